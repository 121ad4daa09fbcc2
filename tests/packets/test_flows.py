"""Flows that outlive a change: UDP clients that never stop talking, and services that ask for an end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from svcnat import api
from svcnat.kernel import netns
from tests.bed import ADDRESSES, Bed, temporary_bed

pytestmark = pytest.mark.packets

FRONT = {4: "10.96.0.10", 6: "fd00:10:96::a"}


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        yield made


@pytest.fixture
def sync(bed: Bed):
    """Send the service to these pods; `notes` are its annotations; no pods at all with None: no service."""

    def run(*pods: str, notes: str = "{}", protocol: str = "UDP", there: bool = True) -> None:
        service = f"""
apiVersion: v1
kind: Service
metadata: {{name: echo, annotations: {notes}}}
spec:
  clusterIPs: ["{FRONT[4]}", "{FRONT[6]}"]
  clusterIP: "{FRONT[4]}"
  ipFamilyPolicy: RequireDualStack
  type: NodePort
  ports: [{{port: 7, protocol: {protocol}, nodePort: 30007}}]
"""
        slices = "".join(
            f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-{kind.lower()}, labels: {{kubernetes.io/service-name: echo}}}}
addressType: {kind}
ports: [{{port: 7007, protocol: {protocol}}}]
endpoints: [{", ".join(f'{{addresses: ["{ADDRESSES[pod][index]}"]}}' for pod in pods)}]
"""
            for index, kind in enumerate(("IPv4", "IPv6"))
        )
        other = (
            "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.96.9.9, ports: [{port: 9}]}\n"
        )
        text = other + ("---" + service + slices if there else "")
        api.sync(api.load(text=text), bed.netns("node"))

    return run


class Client:
    """One UDP flow: the same socket, whatever happens."""

    def __init__(self, bed: Bed, source: str, destination: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in destination else socket.AF_INET
        with netns.entered(bed.netns(source)):
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.connect((destination, port))
        self._socket.settimeout(0.25)
        self._bed = bed

    def ask(self) -> str:
        """Send one datagram: the pod that got it, "refused", or "" for silence."""
        try:
            self._socket.send(b"?")
        except (ConnectionRefusedError, PermissionError):
            return "refused"
        pod = self._bed.receive()
        if pod:
            assert self._socket.recv(16) == b"!"
            return pod
        try:
            self._socket.recv(16)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return ""
        raise AssertionError("an answer that no pod gave")

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("way", ["cluster IP", "node port"])
def test_a_udp_client_follows_its_service_through_every_change(bed, sync, version, way) -> None:
    """Before the first endpoint, from one to the next, down to none and back: no answer is ever lost for good."""
    bed.listen("UDP", 7007, version)
    destination = (FRONT[version], 7) if way == "cluster IP" else (ADDRESSES["node"][version == 6], 30007)
    sync()
    client = Client(bed, "client", *destination)
    stranger = Client(bed, "pod-4", ADDRESSES["pod-5"][version == 6], 7007)
    assert stranger.ask() == "pod-5"
    try:
        assert client.ask() == "refused"
        for pods in (["pod-1"], ["pod-2"], [], ["pod-3"], ["pod-3", "pod-1"], ["pod-1"]):
            sync(*pods)
            assert client.ask() in (pods or ["refused"])
        assert stranger.ask() == "pod-5"
    finally:
        client.close()
        stranger.close()


def test_a_udp_client_that_spoke_before_its_service_existed_is_heard(bed, sync) -> None:
    """Its flow was never translated, and would stay so as long as it keeps talking."""
    bed.listen("UDP", 7007, 4)
    sync(there=False)
    client = Client(bed, "client", FRONT[4], 7)
    try:
        assert client.ask() == ""
        sync("pod-1")
        assert client.ask() == "pod-1"
        sync(there=False)
        assert client.ask() == ""
    finally:
        client.close()


def test_flows_of_endpoints_that_stay_are_left_alone(bed, sync) -> None:
    """Another endpoint comes and goes: an established flow keeps its own."""
    bed.listen("UDP", 7007, 4)
    sync("pod-1")
    client = Client(bed, "client", FRONT[4], 7)
    try:
        assert client.ask() == "pod-1"
        for pods in (("pod-1", "pod-2"), ("pod-1", "pod-2", "pod-3"), ("pod-1",)):
            sync(*pods)
            assert [client.ask() for _ in range(5)] == ["pod-1"] * 5
    finally:
        client.close()


@pytest.mark.parametrize(("notes", "ends"), [("{}", False), ("{svcnat.io/on-endpoint-removal: terminate}", True)])
def test_tcp_connections_end_only_where_the_service_asks_for_it(bed, sync, notes, ends) -> None:
    """By default an established connection outlives its endpoint's membership; with terminate it is reset."""
    with netns.entered(bed.netns("pod-1")):
        listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", 7007))
    listener.listen()
    sync("pod-1", protocol="TCP", notes=notes)
    with netns.entered(bed.netns("client")):
        client = socket.socket()
    client.settimeout(3)
    try:
        client.connect((FRONT[4], 7))
        server, _ = listener.accept()
        server.settimeout(3)
        sync("pod-2", protocol="TCP", notes=notes)
        client.send(b"still there?")
        if ends:
            with pytest.raises(ConnectionResetError):
                client.recv(16)
        else:
            assert server.recv(16) == b"still there?"
        server.close()
    finally:
        client.close()
        listener.close()
