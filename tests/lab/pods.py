"""Pods for the labs of tests, and what a client asks them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from svcnat.lab.labs import Lab
from svcnat.model.objects import Container, ContainerPort, ObjectMeta, Pod, PodSpec

PATIENCE = 5.0


def pod(name: str, ports: Iterable[tuple[str, int]] = (("TCP", 80), ("UDP", 53)), **spec: Any) -> Pod:
    """A pod with one container; a port is a protocol and a number."""
    container = Container(
        name="main",
        image="nginx",
        ports=[ContainerPort(container_port=port, protocol=protocol) for protocol, port in ports],
    )
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=[container], **spec))


def create(lab: Lab, *pods: Pod) -> None:
    """Put pods into a lab's store."""
    with lab.store.transaction() as transaction:
        for each in pods:
            transaction.create(each)


def delete(lab: Lab, *pod_names: str) -> None:
    """Delete pods from a lab's store, at once: nobody waits for their processes."""
    with lab.store.transaction() as transaction:
        for name in pod_names:
            transaction.delete(Pod, "default", name, 0)


def stored(lab: Lab, name: str) -> Pod:
    """A pod as it is in the store."""
    with lab.store.read() as snapshot:
        found = snapshot.get(Pod, "default", name)
    assert found is not None
    return found


def addresses(lab: Lab, name: str) -> tuple[str, str]:
    """The IPv4 and the IPv6 address that a pod's status tells."""
    v4, v6 = (each.ip for each in stored(lab, name).status.pod_ips)
    return v4, v6


def ask_tcp(address: str, port: int = 80, say: bytes = b"") -> str:
    """What the server at `address` answers to a client that says something and then no more."""
    with socket.create_connection((address, port), timeout=PATIENCE) as client:
        client.sendall(say)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_all(client: socket.socket) -> str:
    """Everything until the server closes."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts).decode()


def ask_udp(address: str, port: int = 53) -> str:
    """What the server at `address` answers to a datagram; only an answer from that very address counts."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((address, port))
        client.send(b"?")
        return client.recv(65536).decode()
