"""The plan that follows single Services: it is always the one that a plan of all of them would be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.errors import UsageError
from svcnat.ruleset.plan import plan
from svcnat.ruleset.planner import Planner
from tests.ruleset.build import service, slice_of
from tests.ruleset.edits import NAMES, SETTINGS, objects


@settings(max_examples=80)
@given(st.data())
def test_after_any_edits_it_is_the_plan_of_all(data) -> None:
    """Frontends change hands exactly as if everything were planned anew, and whoever is concerned is told."""
    planner = Planner(SETTINGS)
    present: dict[str, tuple] = {}
    known: dict = {}
    for _ in range(data.draw(st.integers(1, 10))):
        name = data.draw(st.sampled_from(NAMES))
        if data.draw(st.integers(0, 3)):
            present[name] = data.draw(objects(name))
            planner.put(*present[name])
        else:
            present.pop(name, None)
            planner.remove(("default", name))
        fresh = plan(
            (one for one, _ in present.values()), (piece for _, own in present.values() for piece in own), SETTINGS
        )
        assert planner.plan() == fresh
        assert list(planner.plan().services) == list(fresh.services)
        assert dict(planner.services) == fresh.services
        assert planner.health_checks == fresh.health_checks
        if data.draw(st.booleans()):
            for identity, ports in planner.take().items():
                assert known.get(identity, ()) != ports
                known[identity] = ports
            assert {identity: ports for identity, ports in known.items() if ports} == fresh.services


def test_whoever_loses_or_regains_a_frontend_is_among_the_changed() -> None:
    """An older Service that claims an address takes it from a younger one, which gets it back when that one goes."""
    old, young = (
        replace(one, metadata=replace(one.metadata, creation_timestamp=f"2026-01-0{day}T00:00:00Z"))
        for day, one in (
            (1, service("old", "10.96.0.1", external_ips=["203.0.113.5"])),
            (2, service("young", "10.96.0.2", external_ips=["203.0.113.5"])),
        )
    )
    bystander = service("bystander", "10.96.0.3")
    planner = Planner(SETTINGS)
    planner.put(young, [])
    planner.put(bystander, [])
    alone = planner.take()["default", "young"]
    assert len(alone[0].frontends) == 2
    planner.put(old, [])
    taken = planner.take()
    assert sorted(taken) == [("default", "old"), ("default", "young")]
    assert len(taken["default", "young"][0].frontends) == 1
    planner.remove(("default", "old"))
    assert planner.take() == {("default", "old"): (), ("default", "young"): alone}
    assert planner.take() == {}


def test_what_ends_as_it_was_is_no_change() -> None:
    """Two edits that cancel out, an object written again, and the removal of nothing concern nobody."""
    one, more = [slice_of("a", "10.0.0.1")], [slice_of("a", "10.0.0.1", "10.0.0.2")]
    planner = Planner(SETTINGS)
    planner.put(service("a", "10.96.0.1"), one)
    planner.take()
    planner.put(service("a", "10.96.0.1"), more)
    planner.put(service("a", "10.96.0.1"), one)
    planner.remove(("default", "never"))
    assert planner.take() == {}


def test_health_checks_come_and_go_with_their_service() -> None:
    """A LoadBalancer with policy Local has one, and counts this node's endpoints."""
    spec = {"type": "LoadBalancer", "external_traffic_policy": "Local", "health_check_node_port": 31000}
    planner = Planner(SETTINGS)
    planner.put(service("a", "10.96.0.1", **spec), [slice_of("a", "10.0.0.1", node="here")])
    assert [check.local_endpoints for check in planner.health_checks] == [1]
    assert list(planner.services) == [("default", "a")]
    planner.remove(("default", "a"))
    assert (planner.health_checks, dict(planner.services)) == ((), {})


def test_a_service_that_cannot_be_planned_leaves_the_plan_alone() -> None:
    """One broken object must not keep the others from being served, nor lose what it had."""
    planner = Planner(SETTINGS)
    planner.put(service("a", "10.96.0.1"), [])
    before = planner.plan()
    with pytest.raises(UsageError):
        planner.put(service("a", "no address"), [])
    assert planner.plan() == before
