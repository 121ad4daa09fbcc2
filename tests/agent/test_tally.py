"""How much a node's rules serve, as metrics and `status` tell it."""

from __future__ import annotations

from svcnat.agent.tally import Tally
from svcnat.ruleset.plan import Settings, plan
from tests.ruleset.build import service, slice_of

WEB = ("default", "web")
LOCAL = {"external_traffic_policy": "Local", "internal_traffic_policy": "Local", "external_ips": ["198.51.100.7"]}


def test_endpoints_without_a_policy() -> None:
    """All that may still have flows count; a Service that is gone counts for nothing."""
    tally = Tally()
    for pods in (2, 3, 1):
        slices = [slice_of("web", *(f"10.244.0.{number + 1}" for number in range(pods)))]
        tally.put(WEB, plan([service("web", "10.96.0.10")], slices, Settings(node_name="n1")).services[WEB])
        assert tally.endpoints == pods
        assert not +tally.far
    tally.put(WEB, ())
    tally.put(WEB, ())
    assert tally.endpoints == 0


def test_far_from_every_endpoint() -> None:
    """With a Local policy, and all endpoints on other nodes, it is counted once for each policy, as by kube-proxy."""
    tally = Tally()
    for node, policies, far in (
        ("n2", LOCAL, {"internal": 1, "external": 1}),
        ("n1", LOCAL, {}),
        ("n2", LOCAL | {"internal_traffic_policy": "Cluster"}, {"external": 1}),
        ("n2", LOCAL | {"external_traffic_policy": "Cluster"}, {"internal": 1}),
        (None, LOCAL | {"external_traffic_policy": ""}, {"internal": 1}),
        ("n2", {}, {}),
        ("", LOCAL, {"internal": 1, "external": 1}),
    ):
        web = service("web", "10.96.0.10", "fd00:10:96::10", **policies)
        slices = [
            slice_of("web", "10.244.0.1", "10.244.0.2", node=node),
            slice_of("web", "fd00:10:244::1", kind="IPv6", node=node),
        ]
        tally.put(WEB, plan([web], slices, Settings(node_name="n1")).services[WEB])
        assert +tally.far == far
    # Without any endpoint it is not for want of near ones.
    tally.put(WEB, plan([service("web", "10.96.0.10", **LOCAL)], [], Settings(node_name="n1")).services[WEB])
    assert not +tally.far
    tally.put(WEB, ())
    assert not +tally.far
