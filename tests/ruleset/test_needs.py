"""What Services need of their node: addresses that it serves and no device has, and its loopback for node ports."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from svcnat.model.objects import EndpointConditions, LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus
from svcnat.ruleset.needs import Needs
from svcnat.ruleset.plan import Plan, Settings, plan
from svcnat.ruleset.planner import Planner
from tests.ruleset.build import NOT_READY, READY, service, slice_of
from tests.ruleset.edits import NAMES, objects
from tests.ruleset.edits import SETTINGS as EDITED

SETTINGS = Settings(node_name="here", addresses=("192.0.2.1",), node_port_addresses=("192.0.2.2",), announces=True)


def balanced(*ips: str, mode: str | None = None, **spec) -> Service:
    status = LoadBalancerStatus(ingress=[LoadBalancerIngress(ip=ip, ip_mode=mode) for ip in ips])
    one = service("web", "10.96.0.10", "fd00:10:96::a", type="LoadBalancer", **spec)
    return structs.replace(one, status=ServiceStatus(load_balancer=status))


def announced(planned: Plan) -> tuple[str, ...]:
    return tuple(Needs.of(planned).addresses)


def planned(
    one: Service, *, node: str = "here", endpoint: tuple[str, EndpointConditions] = ("10.244.0.1", READY)
) -> Plan:
    return plan([one], [slice_of("web", endpoint, node=node)], SETTINGS)


def test_load_balancer_and_external_ips_of_both_families() -> None:
    """Each once, however many ports it serves; cluster IPs and node ports are nothing that a link is asked for."""
    one = balanced(
        "192.0.2.100",
        "2001:db8::64",
        external_ips=["192.0.2.101"],
        ports=((80, "TCP"), (53, "UDP")),
    )
    assert set(announced(planned(one))) == {"192.0.2.100", "2001:db8::64", "192.0.2.101"}
    assert len(announced(planned(one))) == 3


def test_addresses_of_the_node_itself_are_not_announced() -> None:
    """The kernel answers for those already, and the node's own services live there."""
    assert announced(planned(balanced("192.0.2.1", "192.0.2.100", external_ips=["192.0.2.2"]))) == ("192.0.2.100",)


def test_what_svcnat_does_not_serve_is_not_announced() -> None:
    """With ipMode Proxy the balancer itself answers; a plain cluster IP has nobody outside."""
    assert announced(planned(balanced("192.0.2.100", mode="Proxy"))) == ()
    assert announced(planned(service("web", "10.96.0.10"))) == ()


@pytest.mark.parametrize(
    ("endpoint", "node", "expected"),
    [
        (("10.244.0.1", READY), "here", ("192.0.2.100",)),
        (("10.244.0.1", READY), "there", ()),  # that node answers, and this one would drop
        (("10.244.0.1", NOT_READY), "there", ("192.0.2.100",)),  # none anywhere: a refusal is an answer, too
    ],
)
def test_policy_local(endpoint, node, expected) -> None:
    """With externalTrafficPolicy Local the nodes with endpoints answer."""
    one = balanced("192.0.2.100", external_traffic_policy="Local")
    assert announced(planned(one, node=node, endpoint=endpoint)) == expected


def test_loopback_is_for_families_with_node_ports() -> None:
    """And only where the configuration asks for it."""
    one = balanced("192.0.2.100")
    port = structs.replace(one.spec.ports[0], node_port=30080)
    one = structs.replace(one, spec=structs.replace(one.spec, ports=[port]))
    on = replace(SETTINGS, localhost_node_ports=True)
    assert set(Needs.of(plan([one], [], on)).loopback) == {"ip", "ip6"}
    assert not Needs.of(plan([balanced("192.0.2.100")], [], on)).loopback
    assert not Needs.of(plan([one], [], SETTINGS)).loopback


@settings(max_examples=80)
@given(st.data())
def test_after_any_edits_they_are_those_of_all(data: st.DataObject) -> None:
    """What Services share is counted; the host is prepared again exactly when what it needs has changed."""
    how = replace(EDITED, announces=True, localhost_node_ports=True)
    planner, needs = Planner(how), Needs(how)
    before: tuple[set[str], set[str]] = (set(), set())
    for _ in range(data.draw(st.integers(1, 10))):
        name = data.draw(st.sampled_from(NAMES))
        if data.draw(st.integers(0, 3)):
            planner.put(*data.draw(objects(name)))
        else:
            planner.remove(("default", name))
        moved = [needs.put(identity, ports) for identity, ports in planner.take().items()]
        fresh = Needs.of(planner.plan())
        now = set(needs.addresses), set(needs.loopback)
        assert now == (set(fresh.addresses), set(fresh.loopback))
        assert any(moved) or now == before
        assert len(moved) != 1 or moved[0] == (now != before)
        before = now
