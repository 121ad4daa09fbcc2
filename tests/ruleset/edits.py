"""Edits of Services as hypothesis draws them: every feature, and quarrels about shared addresses."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.model.objects import EndpointSlice, LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus
from svcnat.ruleset.plan import Settings
from tests.ruleset.build import DEAD, LEAVING, READY, service, slice_of

SETTINGS = Settings(
    node_name="here",
    cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"),
    node_port_addresses=("192.0.2.1", "2001:db8::1"),
    bridges=("br0",),
)
NAMES = ("a", "b", "c", "d")
_NOTES = (
    {},
    {},
    {"svcnat.io/scheduler": "round-robin"},
    {"svcnat.io/scheduler": "source-hash"},
    {"svcnat.io/max-connections": "5"},
    {"svcnat.io/max-connections": "9", "svcnat.io/connection-rate": "5/minute"},
    {"svcnat.io/on-endpoint-removal": "terminate"},
)


@st.composite
def objects(draw, name: str) -> tuple[Service, list[EndpointSlice]]:
    """One Service and its slices; four names share two external addresses, a cluster IP and two node ports."""
    number = NAMES.index(name)
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    four, six = f"10.96.0.{number}", f"fd00::{number + 1}"
    protocol = draw(st.sampled_from(["TCP", "UDP", "SCTP"]))
    policies = st.sampled_from(["Cluster", "Local"])
    one = service(
        name,
        *draw(st.sampled_from([(four,), (six,), (four, six), ("None",)])),
        ports=((80, protocol),),
        type=kind,
        external_ips=draw(st.lists(st.sampled_from(["203.0.113.1", "2001:db8::5", "10.96.0.0"]), max_size=2)),
        session_affinity=draw(st.sampled_from(["None", "None", "ClientIP"])),
        internal_traffic_policy=draw(policies),
        external_traffic_policy=draw(policies),
        load_balancer_source_ranges=draw(st.sampled_from([[], ["192.0.2.0/24"]])),
        health_check_node_port=draw(st.sampled_from([None, 31000 + number])),
    )
    ports = [replace(one.spec.ports[0], node_port=draw(st.sampled_from([30080, 30081])))]
    stamp = draw(st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]))
    one = replace(
        one,
        metadata=replace(one.metadata, creation_timestamp=stamp, annotations=draw(st.sampled_from(_NOTES))),
        spec=replace(one.spec, ports=ports),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=[LoadBalancerIngress(ip="198.51.100.1")])),
    )
    conditions = st.sampled_from([READY, READY, READY, LEAVING, DEAD])
    slices = []
    for prefix, family in (("10.244.0.", "IPv4"), ("fd01::", "IPv6")):
        for node in ("here", "there"):
            numbers = draw(st.lists(st.integers(1, 4), unique=True, max_size=3))
            found = [(f"{prefix}{each}", draw(conditions)) for each in numbers]
            weights = draw(st.sampled_from(["", "", f'{{"{prefix}1": 0, "{prefix}2": 2}}']))
            slices.append(
                slice_of(name, *found, ports=(("p80", 8080, protocol),), kind=family, node=node, weights=weights)
            )
    return one, slices
