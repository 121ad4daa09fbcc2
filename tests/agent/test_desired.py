"""What changes of objects touch."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.agent.desired import KINDS, Desired, Identity, Touched
from svcnat.model.objects import Deployment, EndpointSlice, Node, NodeSpec, ObjectMeta, Resource, Service
from tests.controllers.build import pod, service
from tests.ruleset.build import slice_of

WEB = ("default", "web")
DB = ("default", "db")


def a_slice(name: str, of: str, *addresses: str) -> EndpointSlice:
    made = slice_of(of, *addresses)
    return replace(made, metadata=replace(made.metadata, name=name))


def a_node(name: str, zone: str = "", *, leaves: bool = False) -> Node:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    taints = [{"key": "ToBeDeletedByClusterAutoscaler"}, "x"] if leaves else [{"key": "other"}]
    return Node(metadata=ObjectMeta(name=name, labels=labels), spec=NodeSpec(taints=taints))


def of_slices(desired: Desired, service: Identity) -> set[str]:
    return {each.metadata.name for each in desired.slices_of(service)}


def test_a_change_touches_its_own_service() -> None:
    """By itself, or by one of its slices; others do not come into it."""
    desired = Desired()
    assert desired.update((), [service("web"), service("db"), a_slice("s", "web", "10.0.0.1")]).services == {WEB, DB}
    assert desired.update((), [a_slice("s", "web", "10.0.0.2")]) == Touched({WEB})
    assert desired.update([(EndpointSlice, "default", "s")], ()) == Touched({WEB})
    assert desired.slices_of(WEB) == ()
    assert desired.update([(Service, *DB)], ()) == Touched({DB})
    assert desired.services.keys() == {WEB}


def test_a_slice_that_changes_hands_touches_both_services() -> None:
    """The one that its label named, and the one that it names now, be there such a Service or not."""
    desired = Desired()
    desired.update((), [a_slice("s", "web", "10.0.0.1")])
    assert desired.update((), [a_slice("s", "db", "10.0.0.1")]).services == {WEB, DB}
    assert of_slices(desired, WEB) == set()
    assert of_slices(desired, DB) == {"s"}
    nobodys = a_slice("s", "db", "10.0.0.1")
    assert desired.update((), [replace(nobodys, metadata=replace(nobodys.metadata, labels={}))]).services == {DB}
    assert list(desired.slices()) == []


def test_what_was_deleted_and_made_again_is_there() -> None:
    """Deletions come first: an object may be in both."""
    desired = Desired()
    desired.update((), [service("web"), a_slice("s", "web", "10.0.0.1")])
    touched = desired.update(
        [(Service, *WEB), (EndpointSlice, "default", "s")], [service("web"), a_slice("s", "db", "10.0.0.1")]
    )
    assert touched.services == {WEB, DB}
    assert desired.services.keys() == {WEB}
    assert of_slices(desired, DB) == {"s"}


def test_what_nobody_knew_does_not_go() -> None:
    """Deletions of what was never there, and kinds that no rule is made from, touch nothing."""
    desired = Desired()
    gone = [(kind, "default", "x") for kind in (*KINDS, Deployment)]
    assert not desired.update(gone, [Deployment(metadata=ObjectMeta(name="x", namespace="default"))])


def test_a_node_has_the_zone_of_its_label() -> None:
    """As long as it is there."""
    desired = Desired()
    assert desired.update((), [a_node("n", "east")]) == Touched(nodes={"n"})
    assert desired.zone_of("n") == "east"
    assert desired.update([(Node, "", "n")], ()) == Touched(nodes={"n"})
    assert desired.zone_of("n") == ""


def test_a_node_is_about_to_go() -> None:
    """By its taint, or because it is being deleted; not any more without, nor when it is gone."""
    desired, stays = Desired(), a_node("n")
    dying = replace(stays, metadata=replace(stays.metadata, deletion_timestamp="2026-01-01T00:00:00Z"))
    for leaves in (a_node("n", leaves=True), dying):
        for other in ([], [stays]):
            desired.update((), [leaves])
            assert desired.leaving == {"n"}
            desired.update([(Node, "", "n")], other)
            assert desired.leaving == set()
        desired.replace([leaves])
        assert desired.leaving == {"n"}
        desired.update((), [stays])
        assert desired.leaving == set()


names = st.sampled_from(["a", "b", "c"])
zones = st.sampled_from(["", "east", "west"])
resources = st.one_of(
    st.builds(lambda name, port: service(name, ports=(port,)), names, st.integers(80, 82)),
    st.builds(lambda name, of, ip: a_slice(name, of, ip), names, names, st.sampled_from(["10.0.0.1", "10.0.0.2"])),
    st.builds(lambda name, zone, leaves: a_node(name, zone, leaves=leaves), names, zones, st.booleans()),
    st.builds(lambda name, ready: pod(name, "10.0.0.1", ready=ready), names, st.booleans()),
)
steps = st.lists(st.tuples(resources, st.booleans()), max_size=12)


def seen(desired: Desired) -> tuple[object, ...]:
    """All that an agent may ask."""
    return (
        desired.services,
        desired.pods,
        {each: desired.zone_of(each) for each in "abc"},
        {each: {one.metadata.name: one for one in desired.slices_of(("default", each))} for each in "abc"},
        sorted(one.metadata.name for one in desired.slices()),
        desired.leaving,
    )


@settings(derandomize=True, max_examples=200, database=None)
@given(steps, steps)
def test_steps_end_where_reading_everything_does(
    first: list[tuple[Resource, bool]], then: list[tuple[Resource, bool]]
) -> None:
    """And reading everything touches exactly what differs: nothing, when it is read again."""
    desired, present = Desired(), {}
    for new, gone in first:
        place = (type(new), new.metadata.namespace, new.metadata.name)
        before = seen(desired)
        if gone:
            present.pop(place, None)
            touched = desired.update([place], ())
        else:
            present[place] = new
            touched = desired.update((), [new])
        assert touched or seen(desired) == before or isinstance(new, EndpointSlice)
    whole = Desired()
    whole.replace(present.values())
    assert seen(desired) == seen(whole)
    assert not desired.replace(present.values())
    assert seen(desired) == seen(whole)

    for new, gone in then:
        place = (type(new), new.metadata.namespace, new.metadata.name)
        present.pop(place, None) if gone else present.update({place: new})
    before = {each: (desired.services.get(each), {*map(repr, desired.slices_of(each))}) for each in services()}
    touched = desired.replace(present.values())
    after = {each: (desired.services.get(each), {*map(repr, desired.slices_of(each))}) for each in services()}
    assert touched.services == {each for each in services() if before[each] != after[each]}


def services() -> list[Identity]:
    return [("default", each) for each in "abc"]
