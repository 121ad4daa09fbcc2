"""Connections as the kernel counted them, from real flows to the sums that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from svcnat.agent.connections import Totals
from svcnat.agent.counting import FEW, Counting, most_endpoints
from svcnat.agent.reconcile import reconcile
from svcnat.agent.targets import Target
from svcnat.errors import MissingError
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.plan import Plan, Settings, plan
from tests.bed import PATIENCE, Bed, temporary_bed
from tests.ruleset.build import service, slice_of

pytestmark = pytest.mark.packets

FLOWS = 12


@pytest.fixture
def bed() -> Iterator[Bed]:
    """A node, its pods and a client."""
    with temporary_bed() as made:
        yield made


def world(*, counters: bool | None = None, pods: int = 3) -> Plan:
    """A service of both families with a node port, and another one that nobody uses."""
    services = [
        service("web", "10.96.0.10", "fd00:10:96::10"),
        service("db", "10.96.0.11"),
    ]
    slices = [
        slice_of("web", *(f"10.244.0.{number + 1}" for number in range(pods))),
        slice_of("web", "fd00:10:244::1", kind="IPv6"),
        slice_of("db", "10.244.0.6"),
    ]
    return plan(services, slices, Settings(node_name="n1", endpoint_counters=counters))


def sums(counting: Counting, totals: Totals) -> dict[tuple[str, str], int]:
    totals.update(counting())
    return {(labels[2], labels[5]): count for labels, count in totals.sums.items()}


def test_flows_are_counted(bed: Bed) -> None:
    """Each flow counts once for its Service and once for the endpoint that it reached, of both families."""
    wanted = world()
    target, totals = Target("n1", bed.netns("node")), Totals()
    counting = Counting(lambda: [(target, wanted.services)])
    with Namespace(target.netns) as namespace:
        reconcile(namespace, compile_plan(wanted))
    for version in (4, 6):
        bed.listen("TCP", 8080, version)
    reached: Counter[str] = Counter()
    for _ in range(FLOWS):
        seen = bed.probe("client", "10.96.0.10", 80, patience=PATIENCE)
        reached[f"10.244.0.{seen.pod[-1]}:8080"] += 1
    bed.probe("client", "fd00:10:96::10", 80, patience=PATIENCE)
    reached["[fd00:10:244::1]:8080"] += 1
    found = sums(counting, totals)
    assert found.pop(("web", "")) == FLOWS + 1
    assert found.pop(("db", "")) == 0
    assert found.pop(("db", "10.244.0.6:8080")) == 0
    assert {endpoint: count for (_, endpoint), count in found.items() if count} == reached
    assert {(reading.node, reading.namespace, reading.port, reading.protocol) for reading in counting()} == {
        ("n1", "default", "p80", "tcp")
    }
    # A table that is made again counts from nothing; the sums go on, also if somebody looks before it is.
    before = sums(counting, totals)
    with Namespace(target.netns) as namespace:
        namespace.commit("delete table ip svcnat\n")
        assert sums(counting, totals) == before
        reconcile(namespace, compile_plan(wanted))
    bed.probe("client", "10.96.0.10", 80, patience=PATIENCE)
    found = sums(counting, totals)
    assert found.pop(("web", "")) == before.pop(("web", "")) + 1
    assert sum(found.values()) == sum(before.values()) + 1


def test_services_come_and_go(bed: Bed) -> None:
    """What is asked for follows what is served, although what did not change is not looked up again."""
    serving = [world()]
    target = Target("n1", bed.netns("node"))
    counting = Counting(lambda: [(target, serving[0].services)])
    with Namespace(target.netns) as namespace:
        reconcile(namespace, compile_plan(serving[0]))
        assert len({reading.endpoint for reading in counting() if reading.service == "web"}) == 5
        changed = world(pods=2)
        serving[0] = Plan(
            changed.settings, {**serving[0].services, ("default", "web"): changed.services["default", "web"]}
        )
        # Its rules may lag behind: what is not there is left out.
        assert len({reading.endpoint for reading in counting() if reading.service == "web"}) == 4
        reconcile(namespace, compile_plan(serving[0]))
        assert {reading.service for reading in counting()} == {"web", "db"}
        serving[0] = Plan(changed.settings, {("default", "db"): serving[0].services["default", "db"]})
        assert {reading.service for reading in counting()} == {"db"}


def test_too_many_endpoints(bed: Bed) -> None:
    """Of a target with more endpoints than a scrape has time for, only Services are counted."""
    wanted = world()
    target = Target("n1", bed.netns("node"))
    with Namespace(target.netns) as namespace:
        reconcile(namespace, compile_plan(wanted))
    for few, counts in ((5, True), (4, False), (0, False)):
        found = list(Counting(lambda: [(target, wanted.services)], few=few)())
        assert any(reading.endpoint for reading in found) == counts
        assert {reading.service for reading in found} == {"web", "db"}


def test_endpoints_without_counters(bed: Bed) -> None:
    """With endpointCounters off there is nothing to tell about endpoints."""
    wanted = world(counters=False)
    target = Target("n1", bed.netns("node"))
    with Namespace(target.netns) as namespace:
        reconcile(namespace, compile_plan(wanted))
    found = list(Counting(lambda: [(target, wanted.services)])())
    assert {reading.endpoint for reading in found} == {""}


def test_a_namespace_that_is_gone() -> None:
    """It is the caller's to know what to do then."""
    with pytest.raises(MissingError):
        list(Counting(lambda: [(Target("n1", "svcnat-test-nowhere"), world().services)])())


def test_the_setting() -> None:
    """With auto, endpointMetrics has a limit, on has none, off asks for nothing."""
    limits = [most_endpoints(Configuration(endpoint_metrics=value)) for value in ("off", "auto", "on")]
    assert limits[:2] == [0, FEW]
    assert limits[2] > 10**9
