"""Connections that an agent ends some time after their endpoint left (`terminate=SECONDS`): processes and packets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from svcnat import api
from svcnat.kernel import netns
from tests.agent.traffic import Servers
from tests.agents import Agent, runtime, until
from tests.bed import ADDRESSES, PODS, Bed, temporary_bed

pytestmark = pytest.mark.packets

VIP = ("10.96.0.10", "fd00:10:96::a")
SECONDS = 3


@pytest.fixture
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        yield made


def manifest(*pods: str) -> str:
    """A Service whose connections outlive their endpoint by a few seconds."""
    slices = "".join(
        f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{kind.lower()}, labels: {{kubernetes.io/service-name: web}}}}
addressType: {kind}
ports: [{{port: 8081}}]
endpoints: [{", ".join(f'{{addresses: ["{ADDRESSES[pod][index]}"]}}' for pod in pods)}]
"""
        for index, kind in enumerate(("IPv4", "IPv6"))
    )
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: web, annotations: {{svcnat.io/on-endpoint-removal: terminate={SECONDS}}}}}
spec:
  clusterIP: "{VIP[0]}"
  clusterIPs: ["{VIP[0]}", "{VIP[1]}"]
  ipFamilyPolicy: RequireDualStack
  ports: [{{port: 80}}]
{slices}"""


def ask(client: socket.socket) -> str:
    """Who answers a line."""
    client.sendall(b"?")
    return client.recv(64).decode()


def is_reset(client: socket.socket) -> bool:
    """True if a connection is ended by force; until then its server answers."""
    try:
        return ask(client) not in PODS
    except ConnectionResetError:
        return True


def test_connections_end_some_seconds_after_their_endpoint_left(bed: Bed) -> None:
    """Until then they go on; those whose endpoint came back in time stay, and those of others do not notice."""
    connections: dict[tuple[str, int], socket.socket] = {}
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(Agent(stack.enter_context(runtime()), bed.netns("node")))
        stack.enter_context(Servers(bed, 8081, PODS[:3]))
        opened = api.Cluster.open(state=agent.state, config=agent.config, netns=bed.netns("node"))
        cluster = stack.enter_context(opened)
        cluster.apply(api.load(text=manifest(*PODS[:3])))
        for version, family in ((0, socket.AF_INET), (1, socket.AF_INET6)):
            for _ in range(200):
                with netns.entered(bed.netns("client")):
                    client = stack.enter_context(socket.socket(family))
                client.settimeout(30)
                client.connect((VIP[version], 80))
                connections.setdefault((ask(client), version), client)
                if len(connections) == 3 * (version + 1):
                    break
        assert len(connections) == 6
        cluster.apply(api.load(text=manifest(PODS[2])))
        assert {ask(client) for client in connections.values()} == set(PODS[:3])
        cluster.apply(api.load(text=manifest(*PODS[1:3])))
        for version in (0, 1):
            until(lambda version=version: is_reset(connections[PODS[0], version]), "the end of a connection")
            for pod in PODS[1:3]:
                assert ask(connections[pod, version]) == pod
