from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.claims import cluster_ip
from svcnat.controllers.react import settled
from svcnat.controllers.world import MemoryWorld
from svcnat.model.kinds import KINDS
from svcnat.model.objects import Namespace, ObjectMeta, OwnerReference, Pod, Service
from tests.controllers.build import pod, service


def test_a_kind_is_named_by_its_class() -> None:
    """Worlds take classes; stores write their names."""
    assert [kind.type.__name__ for kind in KINDS] == [kind.name for kind in KINDS]


def test_a_stateless_world_is_the_same_for_the_same_input() -> None:
    """Uids are hashes, or what the manifest says; there are no times and no versions."""
    resources = [service(), pod("a", "10.0.0.1"), Namespace(metadata=ObjectMeta(name="default", uid="given"))]
    world = settled(resources)
    assert world.everything() == settled(reversed(resources)).everything()
    assert world.list(Namespace)[0].metadata.uid == "given"
    meta = world.list(Pod)[0].metadata
    assert len(meta.uid) == 36
    assert (meta.resource_version, meta.creation_timestamp) == ("", None)


def test_defaults_are_filled_in() -> None:
    """What a controller reads is complete."""
    assert settled([service()]).list(Service)[0].spec.ports[0].target_port == 80


def test_objects_are_found_by_labels() -> None:
    """All labels must match; none match all of the namespace."""
    labels = ({"a": "1"}, {"a": "1", "b": "1"}, {"a": "2", "b": "1"})
    world = MemoryWorld.of([pod(f"p{index}", labels=each) for index, each in enumerate(labels)])
    assert [each.metadata.name for each in world.labelled(Pod, "default", {"a": "1", "b": "1"})] == ["p1"]
    assert [each.metadata.name for each in world.labelled(Pod, "default", {"a": "1"})] == ["p0", "p1"]
    assert len(world.labelled(Pod, "default", {})) == 3
    assert list(world.labelled(Pod, "other", {"a": "1"})) == []
    assert [each.metadata.name for each in world.list(Pod, "default")] == ["p0", "p1", "p2"]
    assert list(world.list(Pod, "other")) == []


def test_owned_objects_are_found_by_uid() -> None:
    """And are no longer found when they have gone, or have another owner."""
    child = pod("a")
    child = replace(child, metadata=replace(child.metadata, owner_references=[OwnerReference(uid="u1")]))
    world = MemoryWorld.of([child])
    assert [each.metadata.name for each in world.owned("u1")] == ["a"]
    world.put(replace(child, metadata=replace(child.metadata, owner_references=[OwnerReference(uid="u2")])))
    assert list(world.owned("u1")) == []
    world.remove(child)
    world.remove(child)
    assert list(world.owned("u2")) == []


def test_a_removed_service_gives_its_addresses_back() -> None:
    """A stateless world keeps no claim of what is gone."""
    world = MemoryWorld.of([service("a", cluster_ip="10.96.0.7")])
    assert not world.claim(cluster_ip("10.96.0.7"), service("b"))
    world.remove(service("a"))
    assert world.claim(cluster_ip("10.96.0.7"), service("b"))


pairs = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)


@settings(derandomize=True, max_examples=60)
@given(selectors=st.lists(pairs, max_size=8), changed=pairs, labels=pairs)
def test_services_are_found_by_pod_labels(
    selectors: list[dict[str, str]], changed: dict[str, str], labels: dict[str, str]
) -> None:
    """The index finds what a walk over all Services would; one without a selector selects nothing."""
    world = MemoryWorld.of([service(f"s{index}", selector=each) for index, each in enumerate(selectors)])
    if selectors:
        first = world.list(Service)[0]
        world.put(replace(first, spec=replace(first.spec, selector=changed)))
    expected = [
        each for each in world.list(Service) if each.spec.selector and each.spec.selector.items() <= labels.items()
    ]
    assert world.services_selecting("default", labels) == expected
    assert list(world.services_selecting("other", labels)) == []
