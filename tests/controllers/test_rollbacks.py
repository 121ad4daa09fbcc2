"""undo, pause and resume: what they refuse, and that the way back leads to what there was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.merge import LAST_APPLIED
from svcnat.controllers.react import react, settled
from svcnat.controllers.rollbacks import paused, resumed, rolled_back
from svcnat.controllers.rolling import revision_of
from svcnat.controllers.world import Change, MemoryWorld
from svcnat.errors import ConflictError, NotFoundError, UsageError
from svcnat.model.labels import CHANGE_CAUSE, HASH_LABEL, REVISION
from svcnat.model.objects import (
    ControllerRevision,
    DaemonSet,
    DaemonSetSpec,
    Deployment,
    DeploymentSpec,
    Node,
    ObjectMeta,
    Pod,
    ReplicaSet,
    StatefulSet,
    StatefulSetSpec,
)
from tests.controllers.test_rollout_laws import LIMIT, META, PICKS, Graceful, change, finish, happen, template

KINDS: dict[str, Any] = {
    "Deployment": Deployment(metadata=META, spec=DeploymentSpec(replicas=2, selector=PICKS, template=template())),
    "StatefulSet": StatefulSet(metadata=META, spec=StatefulSetSpec(replicas=2, selector=PICKS, template=template())),
    "DaemonSet": DaemonSet(metadata=META, spec=DaemonSetSpec(selector=PICKS, template=template())),
}


def world_of(start: Any, kind: type[MemoryWorld] = MemoryWorld) -> MemoryWorld:
    world = kind(settled([]).ranges)
    world.put(Node(metadata=ObjectMeta(name="n1")))
    world.put(start)
    react(world, [Change(None, world.list(type(start))[0])])
    return world


def image(this: Any) -> str:
    (main,) = this.spec.template.spec.containers
    return str(main.image)


def with_image(this: Any, text: str) -> Any:
    return replace(this, spec=replace(this.spec, template=template(text)))


def revisions(world: MemoryWorld) -> dict[int, str]:
    """The image of each revision."""
    sets = {revision_of(each): image(each) for each in world.list(ReplicaSet)}
    kept = world.list(ControllerRevision)
    told = {each.revision or 0: each.data["spec"]["template"]["spec"]["containers"][0]["image"] for each in kept}
    return dict(sorted((sets | told).items()))


@pytest.mark.parametrize("name", KINDS)
def test_there_and_back(name: str) -> None:
    """To the revision before, and by the same word back again; each is a new revision, and none is there twice."""
    world = world_of(KINDS[name])

    def this() -> Any:
        return world.list(type(KINDS[name]))[0]

    with pytest.raises(NotFoundError, match=r"no rollout history found|no last revision to roll back to"):
        rolled_back(world, this())
    for version in ("v2", "v3"):
        change(world, with_image(this(), version))
    assert revisions(world) == {1: "v1", 2: "v2", 3: "v3"}
    change(world, rolled_back(world, this()))
    assert (image(this()), revisions(world)) == ("v2", {1: "v1", 3: "v3", 4: "v2"})
    change(world, rolled_back(world, this()))
    assert (image(this()), revisions(world)) == ("v3", {1: "v1", 4: "v2", 5: "v3"})
    change(world, rolled_back(world, this(), 1))
    assert (image(this()), revisions(world)) == ("v1", {4: "v2", 5: "v3", 6: "v1"})
    same = this()
    assert rolled_back(world, same, 6) is same
    for number in (1, 7, -1):
        with pytest.raises(NotFoundError, match=f"unable to find specified revision {number} in history"):
            rolled_back(world, same, number)


def test_a_deployment_gets_its_annotations_back() -> None:
    """Those of that time, but for what the system and the last apply keep; no label of its ReplicaSets comes along."""
    first = replace(META, annotations={CHANGE_CAUSE: "one", "a": "1", LAST_APPLIED: "{}"})
    world = world_of(replace(KINDS["Deployment"], metadata=first))
    (this,) = world.list(Deployment)
    marks = {**this.metadata.annotations, CHANGE_CAUSE: "two", "b": "2", LAST_APPLIED: "{2}"}
    del marks["a"]
    change(world, with_image(replace(this, metadata=replace(this.metadata, annotations=marks)), "v2"))
    (this,) = world.list(Deployment)
    change(world, rolled_back(world, this))
    (this,) = world.list(Deployment)
    assert this.metadata.annotations == {CHANGE_CAUSE: "one", "a": "1", LAST_APPLIED: "{2}", REVISION: "3"}
    assert HASH_LABEL not in this.spec.template.metadata.labels
    assert revisions(world) == {2: "v2", 3: "v1"}


def test_what_is_refused() -> None:
    """What is paused already, or not; what cannot be; going back while paused."""
    world = world_of(KINDS["Deployment"])
    (this,) = world.list(Deployment)
    with pytest.raises(ConflictError, match=r'^deployments.apps "web" is not paused$'):
        resumed(this)
    still = paused(this)
    assert isinstance(still, Deployment)
    assert still.spec.paused
    with pytest.raises(ConflictError, match=r'^deployments.apps "web" is already paused$'):
        paused(still)
    with pytest.raises(ConflictError, match=r"^you cannot rollback a paused deployment; resume it first with"):
        rolled_back(world, still)
    assert resumed(still) == this
    with pytest.raises(UsageError, match=r'^statefulsets.apps "web" pausing is not supported$'):
        paused(KINDS["StatefulSet"])
    with pytest.raises(UsageError, match=r'^daemonsets.apps "web" resuming is not supported$'):
        resumed(KINDS["DaemonSet"])
    with pytest.raises(UsageError, match=r"^no rollbacker has been implemented for pods$"):
        rolled_back(world, Pod(metadata=META))


def test_revisions_that_nobody_can_go_back_to() -> None:
    """A ReplicaSet without a number, and a revision that somebody wrote nonsense into, are none."""
    world = world_of(KINDS["Deployment"])
    (this,) = world.list(Deployment)
    change(world, with_image(this, "v2"))
    (old,) = [each for each in world.list(ReplicaSet) if image(each) == "v1"]
    world.put(replace(old, metadata=replace(old.metadata, annotations={})))
    (this,) = world.list(Deployment)
    with pytest.raises(NotFoundError, match=r'^no rollout history found for deployment "web"$'):
        rolled_back(world, this)
    world = world_of(KINDS["DaemonSet"])
    (daemon,) = world.list(DaemonSet)
    change(world, with_image(daemon, "v2"))
    first = min(world.list(ControllerRevision), key=lambda each: each.revision or 0)
    world.put(replace(first, data={"spec": "nonsense"}))
    (daemon,) = world.list(DaemonSet)
    with pytest.raises(NotFoundError, match=r"^unable to find specified revision 0 in history$"):
        rolled_back(world, daemon)


lives = st.lists(
    st.one_of(
        st.tuples(st.just("template"), st.sampled_from(["v1", "v2", "v3", "v4"])),
        st.tuples(st.just("undo"), st.integers(0, 6)),
        st.tuples(st.sampled_from(["pause", "resume"]), st.none()),
        st.tuples(st.just("scale"), st.integers(0, 4)),
        st.tuples(st.sampled_from(["ready", "ready", "unready", "delete", "gone"]), st.integers(0, 9)),
    ),
    max_size=25,
)


def asked(world: MemoryWorld, this: Any, what: str, value: Any) -> Any:
    """What becomes of a workload, or itself if something happens to its Pods, which it does."""
    match what:
        case "template":
            return with_image(this, value)
        case "undo":
            return rolled_back(world, this, value)
        case "pause":
            return paused(this)
        case "resume":
            return resumed(this)
        case "scale":
            return this if isinstance(this, DaemonSet) else replace(this, spec=replace(this.spec, replicas=value))
    happen(world, what, value)
    return this


@LIMIT
@given(st.sampled_from(sorted(KINDS)), st.sampled_from([MemoryWorld, Graceful]), lives)
def test_any_life(name: str, kind: type[MemoryWorld], life: list[tuple[str, Any]]) -> None:
    """Going back gives the very template that the revision had; nothing rolls while paused, and all does in the end."""
    world = world_of(KINDS[name], kind)

    def this() -> Any:
        return world.list(type(KINDS[name]))[0]

    for what, value in life:
        before, known = this(), revisions(world)
        wanted = before
        try:
            wanted = asked(world, before, what, value)
            if what == "undo":
                assert image(wanted) == known[value or sorted(known)[-2]]
        except (ConflictError, UsageError):
            assert what in ("pause", "resume") or before.spec.paused
        except NotFoundError:
            assert what == "undo"
            assert value not in known
        if wanted is not before:
            change(world, wanted)
        still = name == "Deployment" and this().spec.paused
        if still and before.spec.paused:
            assert revisions(world) == known
        if not still:
            assert list(revisions(world).values())[-1] == image(this())
            assert len(set(revisions(world).values())) == len(revisions(world))
    if name == "Deployment" and this().spec.paused:
        change(world, resumed(this()))
    finish(world)
    assert {each.spec.containers[0].image for each in world.list(Pod)} <= {image(this())}


@LIMIT
@given(st.lists(st.sampled_from(["v1", "v2", "v3"]), max_size=5), st.integers(0, 4))
def test_a_pause_makes_one_rollout_of_many_changes(images: list[str], replicas: int) -> None:
    """What happens to the template while paused leaves no revision; the last of it counts."""
    world = world_of(KINDS["Deployment"])
    change(world, paused(world.list(Deployment)[0]))
    for each in images:
        change(world, with_image(world.list(Deployment)[0], each))
    (this,) = world.list(Deployment)
    change(world, replace(this, spec=replace(this.spec, replicas=replicas)))
    assert revisions(world) == {1: "v1"}
    assert [each.spec.containers[0].image for each in world.list(Pod)] == ["v1"] * replicas
    change(world, resumed(world.list(Deployment)[0]))
    last = [*images, "v1"][len(images) - 1 if images else 0]
    assert revisions(world) == ({1: "v1"} if last == "v1" else {1: "v1", 2: last})
