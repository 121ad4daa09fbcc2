"""A namespace of a lab for one test: its pods, its service ``web``, and who answers there."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from typing import Any

import msgspec

from svcnat import api
from svcnat.model.objects import Pod, Service
from tests.bed import PATIENCE

MANY = 60  # of four endpoints, one is missed by so many connections once in thirty million
SILENCE = 0.2
PORTS = (("http", "TCP", 80), ("dns", "UDP", 53))

_numbers = itertools.count(1)


class Scene:
    """A namespace of the lab's, for one test."""

    def __init__(self, lab: api.Lab) -> None:
        self.lab = lab
        self.number = next(_numbers)
        self.namespace = f"test-{self.number}"
        self.node_port = 30000 + 10 * self.number
        self.caller = f"{self.namespace}/caller"

    def apply(self, *documents: dict[str, Any], namespace: str = "") -> None:
        """Apply documents; those without a namespace are in the scene's."""
        items = msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": documents})
        self.lab.apply(api.load(text=items, namespace=namespace or self.namespace, strict=True))

    def pods(self, *names: str, labels: dict[str, str] | None = None, namespace: str = "", **spec: Any) -> None:
        """Apply pods with these labels (app: web), which serve :data:`PORTS`; names that end in 2 are for node-2."""
        self.apply(*(self.pod(name, labels, **spec) for name in names), namespace=namespace)

    def pod(
        self, name: str, labels: dict[str, str] | None = None, *, ready: bool = True, **spec: Any
    ) -> dict[str, Any]:
        """A pod's document."""
        ports = [{"name": label, "protocol": protocol, "containerPort": port} for label, protocol, port in PORTS]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"} if labels is None else labels},
            "spec": {
                "nodeName": "node-2" if name.endswith("2") else "node-1",
                "containers": [{"name": "main", "image": "nginx", "ports": ports}],
                **spec,
            },
            **({} if ready else {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
        }

    def delete(self, *kinds_and_names: str) -> None:
        """Delete objects of the scene, as ``Pod/web-1``."""
        kinds = {"Pod": Pod, "Service": Service}
        self.lab.delete(
            [(kinds[kind], self.namespace, name) for kind, _, name in (each.partition("/") for each in kinds_and_names)]
        )

    def service(self, kind: str = "ClusterIP", ports: Any = None, labels: Any = None, **spec: Any) -> Service:
        """Apply the service ``web``, and return it as it is then; None takes a field away."""
        exposed = {"nodePort": self.node_port} if kind in ("NodePort", "LoadBalancer") else {}
        ports = ports or [{"name": "http", "port": 80, "targetPort": 80, **exposed}]
        outside = (
            {"externalName": "example.org"} if kind == "ExternalName" else {"selector": {"app": "web"}, "ports": ports}
        )
        document = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "labels": labels or {}},
            "spec": {"type": kind, **outside, **spec},
        }
        self.apply(document)
        return self.read()

    def read(self) -> Service:
        """The service as it is."""
        with self.lab.read() as snapshot:
            found = snapshot.get(Service, self.namespace, "web")
        assert found is not None
        return found

    @property
    def balanced(self) -> str:
        """The address of the service's load balancer."""
        return self.read().status.load_balancer.ingress[0].ip

    def answers(
        self, source: str, address: str, port: int = 80, protocol: str = "TCP", times: int = MANY
    ) -> Counter[str]:
        """Who answered so many connections in a row: pods, ``refused``, or ``nobody``."""

        def count() -> Counter[str]:
            return Counter(ask(address, port, protocol).partition(" ")[0] for _ in range(times))

        return self.lab.run(source, count)

    def ends(self, source: str, address: str, port: int = 80, protocol: str = "TCP", times: int = MANY) -> set[str]:
        """The different ends of so many connections."""
        return set(self.answers(source, address, port, protocol, times))

    def end(self, source: str, address: str, port: int = 80, protocol: str = "TCP") -> str:
        """The end of one connection."""
        return self.answers(source, address, port, protocol, 1).popitem()[0]


def ask(address: str, port: int, protocol: str) -> str:
    """The answer to one connection, or how it ended."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as client:
        client.settimeout(SILENCE)
        try:
            client.connect((address, port))
            client.settimeout(PATIENCE if protocol == "TCP" else SILENCE)
            client.send(b"?\n")
            return client.recv(1000).decode()
        except (ConnectionRefusedError, PermissionError):
            return "refused"
        except OSError:
            return "nobody"
