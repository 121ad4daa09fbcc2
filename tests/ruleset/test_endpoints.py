"""Which endpoints may be used: readiness, node, topology, weights."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from svcnat.model.objects import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    EndpointSlicePort,
    Hint,
    ObjectMeta,
    ServicePort,
)
from svcnat.ruleset.endpoints import categorize
from tests.ruleset.build import DEAD, LEAVING, NOT_READY, slice_of

PORT = ServicePort(name="p80", port=80, protocol="TCP")


def cluster(*pieces: EndpointSlice, node: str = "", zone: str = "") -> list[str]:
    return [address for address, _ in categorize(PORT, pieces, "ip", node=node, zone=zone).cluster.backends]


def hinted(*pairs: tuple[str, list[str], list[str]]) -> EndpointSlice:
    """Endpoints with hints: (address, nodes, zones)."""
    piece = slice_of("web", *(address for address, _, _ in pairs))
    endpoints = [
        replace(
            one, hints=EndpointHints(for_nodes=[Hint(name=n) for n in nodes], for_zones=[Hint(name=z) for z in zones])
        )
        for one, (_, nodes, zones) in zip(piece.endpoints, pairs, strict=True)
    ]
    return replace(piece, endpoints=endpoints)


def test_ready_endpoints_are_used_in_the_order_of_their_addresses() -> None:
    """Equal objects give equal rules: order in the slices does not matter, 10.0.0.9 comes before 10.0.0.10."""
    pieces = [slice_of("web", "10.0.0.10", ("10.0.0.7", NOT_READY)), slice_of("web", "10.0.0.9", "10.0.0.10")]
    assert cluster(*pieces) == ["10.0.0.9", "10.0.0.10"]


def test_slices_that_contradict_each_other_mean_the_same_in_any_order() -> None:
    """Whoever begins reads them in another order than whoever followed their changes: the first by name is believed."""
    pieces = [
        slice_of("web", ("10.0.0.1", NOT_READY), "10.0.0.2"),
        slice_of("web", "10.0.0.1", ("10.0.0.2", LEAVING), node="here"),
        slice_of("web", "10.0.0.1", ("10.0.0.2", DEAD), weights='{"10.0.0.2": 7}'),
    ]
    named = [
        replace(piece, metadata=replace(piece.metadata, name=name)) for piece, name in zip(pieces, "abc", strict=True)
    ]
    for order in itertools.permutations(named):
        assert cluster(*order) == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("conditions", "used"), [(LEAVING, True), (DEAD, False), (NOT_READY, False)], ids=["leaving", "dead", "not ready"]
)
def test_terminating_endpoints_serve_only_when_nobody_is_ready(conditions, used) -> None:
    """KEP-1669: those that serve while they terminate are the fallback, and only the fallback."""
    assert cluster(slice_of("web", ("10.0.0.1", conditions))) == (["10.0.0.1"] if used else [])
    assert cluster(slice_of("web", ("10.0.0.1", conditions), "10.0.0.2")) == ["10.0.0.2"]


def test_conditions_that_nobody_set_mean_serving() -> None:
    """The API's default, for whoever terminates: ``serving`` left out is true, whatever ``ready`` says."""
    leaving = EndpointConditions(ready=False, terminating=True)
    assert cluster(slice_of("web", ("10.0.0.1", leaving))) == ["10.0.0.1"]


def test_flows_may_go_on_to_endpoints_that_serve() -> None:
    """Terminating and drained endpoints keep the flows that they have."""
    piece = slice_of("web", ("10.0.0.1", LEAVING), ("10.0.0.2", DEAD), "10.0.0.3", weights='{"10.0.0.3": 0}')
    found = categorize(PORT, [piece], "ip", node="", zone="")
    assert found.serving == (("10.0.0.1", 8080), ("10.0.0.3", 8080))
    assert (found.cluster.backends, found.anywhere) == ((), False)


def test_local_endpoints_have_a_fallback_of_their_own() -> None:
    """Policy Local: this node's ready ones, else this node's leaving ones, whatever other nodes have."""
    here = slice_of("web", ("10.0.0.1", LEAVING), node="node-1")
    there = slice_of("web", "10.0.0.2", node="node-2")
    found = categorize(PORT, [here, there], "ip", node="node-1", zone="")
    assert (found.local.backends, found.local_ready) == ((("10.0.0.1", 8080),), frozenset())
    assert found.cluster.backends == (("10.0.0.2", 8080),)


def test_slice_ports_match_by_name_and_protocol() -> None:
    """A slice's port without a name is "", without a protocol TCP, and without a number nothing to balance."""
    bare = EndpointSlice(
        metadata=ObjectMeta(name="x"),
        address_type="IPv4",
        endpoints=[Endpoint(addresses=["10.0.0.1"]), Endpoint(addresses=[])],
        ports=[EndpointSlicePort(port=1), EndpointSlicePort(name="p80", port=2, protocol="UDP"), EndpointSlicePort()],
    )

    def backends(port: ServicePort):
        return categorize(port, [bare], "ip", node="", zone="").cluster.backends

    assert backends(ServicePort(port=80)) == (("10.0.0.1", 1),)
    assert backends(ServicePort(name="p80", protocol="UDP")) == (("10.0.0.1", 2),)
    assert backends(PORT) == ()


@pytest.mark.parametrize(
    ("node", "zone", "used"),
    [
        ("node-1", "east", ["10.0.0.1"]),  # a node hint for us
        ("node-9", "east", ["10.0.0.1", "10.0.0.2"]),  # no node hint for us, but for our zone
        ("node-9", "north", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),  # none for us: all
        ("", "", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ],
)
def test_hints_narrow_the_choice_when_they_are_complete(node, zone, used) -> None:
    """KEP-2433: node hints first, then zones, else everyone."""
    piece = hinted(
        ("10.0.0.1", ["node-1"], ["east"]),
        ("10.0.0.2", ["node-2"], ["east", "west"]),
        ("10.0.0.3", ["node-3"], ["west"]),
    )
    assert cluster(piece, node=node, zone=zone) == used


def test_incomplete_hints_are_ignored() -> None:
    """One endpoint without a hint: the hints are not finished, and cannot be relied on."""
    piece = hinted(("10.0.0.1", [], ["east"]), ("10.0.0.2", [], []))
    assert cluster(piece, zone="east") == ["10.0.0.1", "10.0.0.2"]


def test_hints_lead_to_no_drained_endpoint() -> None:
    """A zone whose endpoints are all drained has none: the others serve it, instead of nobody."""
    piece = hinted(("10.0.0.1", [], ["east"]), ("10.0.0.2", [], ["west"]))
    drained = replace(piece, metadata=slice_of("web", weights='{"10.0.0.1": 0}').metadata)
    assert cluster(drained, zone="east") == ["10.0.0.2"]


def test_hints_do_not_apply_to_the_fallback() -> None:
    """Terminating endpoints are used wherever they are."""
    piece = hinted(("10.0.0.1", [], ["east"]), ("10.0.0.2", [], ["west"]))
    leaving = replace(piece, endpoints=[replace(one, conditions=LEAVING) for one in piece.endpoints])
    assert cluster(leaving, zone="east") == ["10.0.0.1", "10.0.0.2"]


def test_weights_come_with_the_slice() -> None:
    """An address without one has weight 1; 0 drains."""
    piece = slice_of("web", "10.0.0.1", "10.0.0.2", "10.0.0.3", weights='{"10.0.0.2": 7, "10.0.0.3": 0}')
    pool = categorize(PORT, [piece], "ip", node="", zone="").cluster
    assert (pool.backends, pool.weights) == ((("10.0.0.1", 8080), ("10.0.0.2", 8080)), (1, 7))


def test_an_endpoint_that_fails_its_probe_is_not_used() -> None:
    """It neither gets nor keeps flows, whatever its conditions say; unknown results change nothing."""
    piece = slice_of("web", "10.0.0.1", ("10.0.0.2", LEAVING), "10.0.0.3", ("10.0.0.4", NOT_READY), node="node-1")
    results = '{"10.0.0.1": false, "10.0.0.2": false, "10.0.0.4": true}'
    piece = replace(piece, metadata=replace(piece.metadata, annotations={"svcnat.io/probe-results": results}))
    found = categorize(PORT, [piece], "ip", node="node-1", zone="", probed=True)
    assert found.cluster.backends == (("10.0.0.3", 8080),)
    assert found.serving == (("10.0.0.3", 8080), ("10.0.0.4", 8080))
    assert found.local_ready == {"10.0.0.3"}


def test_results_of_probes_count_only_while_somebody_probes() -> None:
    """A Service that no longer asks for probes is rid of what the last ones said."""
    piece = slice_of("web", "10.0.0.1")
    piece = replace(
        piece, metadata=replace(piece.metadata, annotations={"svcnat.io/probe-results": '{"10.0.0.1": false}'})
    )
    assert cluster(piece) == ["10.0.0.1"]
