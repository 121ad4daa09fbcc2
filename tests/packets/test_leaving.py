"""UDP clients of endpoints that leave step by step: their flows end when nothing serves them, and not before."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from svcnat import api
from svcnat.model.configuration import Configuration
from tests.bed import ADDRESSES, Bed, temporary_bed
from tests.packets.test_flows import Client

pytestmark = pytest.mark.packets

LEAVING = "conditions: {ready: false, serving: true, terminating: true}"
FRONT = "10.96.0.10"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        made.listen("UDP", 7007, 4)
        yield made


def sync(bed: Bed, *endpoints: str, weights: str = "{}", addresses: tuple[str, ...] = ("172.30.0.11/32",)) -> None:
    """Make the rules of a service with these endpoints: a pod's name, and fields."""
    listed = ", ".join(
        f'{{addresses: ["{ADDRESSES[pod][0]}"], {fields}}}'
        for pod, _, fields in (each.partition(" ") for each in endpoints)
    )
    text = f"""
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{clusterIP: {FRONT}, type: NodePort, ports: [{{port: 7, protocol: UDP, nodePort: 30007}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  labels: {{kubernetes.io/service-name: echo}}
  annotations: {{svcnat.io/weights: '{weights}'}}
addressType: IPv4
ports: [{{port: 7007, protocol: UDP}}]
endpoints: [{listed}]
"""
    api.sync(api.load(text=text), bed.netns("node"), config=Configuration(node_port_addresses=list(addresses)))


@pytest.mark.parametrize("way", ["terminating", "drained"])
def test_an_endpoint_that_got_nothing_new_any_more_goes(bed, way) -> None:
    """It was in no slot of the rules when it went, and yet clients were still with it."""
    sync(bed, "pod-1")
    client = Client(bed, "client", FRONT, 7)
    try:
        assert client.ask() == "pod-1"
        if way == "drained":
            sync(bed, "pod-1", "pod-2", weights=f'{{"{ADDRESSES["pod-1"][0]}": 0}}')
        else:
            sync(bed, f"pod-1 {LEAVING}", "pod-2")
        assert client.ask() == "pod-1"
        sync(bed, "pod-2")
        assert client.ask() == "pod-2"
    finally:
        client.close()


def test_a_client_that_spoke_before_the_address_answered_node_ports_is_heard(bed) -> None:
    """Its flow was never translated; and one to an address that answers no more is not served for ever."""
    sync(bed, "pod-1", addresses=())
    client = Client(bed, "client", ADDRESSES["node"][0], 30007)
    try:
        assert client.ask() == "refused"
        sync(bed, "pod-1")
        assert client.ask() == "pod-1"
        sync(bed, "pod-1", addresses=())
        assert client.ask() == "refused"
    finally:
        client.close()
