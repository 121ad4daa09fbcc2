"""Rounds over targets: what goes wrong with one is told, tried again, and over when it works."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from svcnat.agent.keeper import Keeper
from svcnat.agent.reconciler import Reconciler
from svcnat.agent.rounds import Observer, Reasons
from svcnat.agent.sources import Manifests, StateFile
from svcnat.agent.targets import Target
from svcnat.errors import KernelError, MissingError
from svcnat.kernel import netns
from svcnat.kernel.links import Device, Veth, build
from svcnat.model.configuration import Configuration
from svcnat.store.sqlite import Store

pytestmark = pytest.mark.packets

WEB = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}\n"


class Clumsy(Keeper):
    """A keeper that fails when it is asked to, once, at something else than a pass."""

    fails: Exception | None = None

    def interfered(self) -> list[str]:
        if self.fails:
            error, self.fails = self.fails, None
            raise error
        return super().interfered()


@pytest.mark.parametrize("error", [KernelError("not this time"), OSError("not this time")])
def test_what_failed_beside_a_pass_is_over_when_a_pass_ends_well(
    empty_netns: str, tmp_path: Path, error: Exception
) -> None:
    """Nothing changed, so that nothing else would be a reason for one; and nobody is woken for it again and again."""
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    now = 100.0
    reconciler = Reconciler(
        Manifests([str(manifest)]),
        (Target("node", empty_netns),),
        Configuration(),
        keeping=lambda target, config, _: Clumsy(target, config, follows="", identity=None, clock=lambda: now),
        clock=lambda: now,
    )
    reconciler.open()
    try:
        reconciler.round(Reasons(objects=True))
        assert [target.state for target in reconciler.state().targets] == ["synced"]
        ((_, keeper),) = reconciler.keepers
        assert isinstance(keeper, Clumsy)
        keeper.fails = error
        reconciler.round(Reasons(events=True))
        (failing,) = reconciler.state().targets
        assert (failing.state, failing.error) == ("failing", "not this time")
        assert reconciler.due is not None
        assert reconciler.due > now
        reconciler.round(Reasons(events=True))
        assert [target.state for target in reconciler.state().targets] == ["failing"]
        now = reconciler.due
        reconciler.round(Reasons(events=True))
        assert [target.state for target in reconciler.state().targets] == ["synced"]
        assert reconciler.due is None
    finally:
        reconciler.close()


def test_what_fails_for_weeks_is_tried_again_as_ever(empty_netns: str, tmp_path: Path) -> None:
    """The pause between tries has grown to its greatest long before, and no number of tries is too many."""
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    now = 100.0
    reconciler = Reconciler(
        Manifests([str(manifest)]),
        (Target("node", empty_netns),),
        Configuration(),
        keeping=lambda target, config, _: Clumsy(target, config, follows="", identity=None, clock=lambda: now),
        clock=lambda: now,
    )
    reconciler.open()
    try:
        reconciler.round(Reasons(objects=True))
        ((_, keeper),) = reconciler.keepers
        assert isinstance(keeper, Clumsy)
        pauses = []
        for _ in range(1100):
            keeper.fails = KernelError("not this time")
            reconciler.round(Reasons(events=True))
            assert reconciler.due is not None
            pauses.append(reconciler.due - now)
            now = reconciler.due
        assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6] + 1092 * [30])
        assert reconciler.state().targets[0].retries[""].tries == 1100
        reconciler.round(Reasons(events=True))
        assert [target.state for target in reconciler.state().targets] == ["synced"]
    finally:
        reconciler.close()


class Told(Observer):
    """Who writes down whether the objects can be read."""

    def __init__(self) -> None:
        self.reads: list[bool] = []

    def read(self, target: Target, *, well: bool) -> None:
        self.reads.append(well)


def test_objects_that_cannot_be_read_are_told_for_every_target(empty_netns: str, tmp_path: Path) -> None:
    """The rules stay as they are, so no pass would tell; and when the objects can be read again, that is told, too."""
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    observer = Told()
    reconciler = Reconciler(
        Manifests([str(manifest)]),
        (Target("node", empty_netns),),
        Configuration(),
        observer=observer,
        keeping=lambda target, config, _: Keeper(target, config, follows="", identity=None),
    )
    reconciler.open()
    try:
        reconciler.round(Reasons(objects=True))
        manifest.write_text("kind: Service\nmetadata: [\n")
        for _ in range(2):
            reconciler.round(Reasons(objects=True))
        assert observer.reads == [False]
        assert reconciler.state().troubles
        manifest.write_text(WEB)
        reconciler.round(Reasons(objects=True))
        assert observer.reads == [False, True]
        assert not reconciler.state().troubles
    finally:
        reconciler.close()


def test_what_the_host_tells_is_read_even_while_a_target_fails(empty_netns: str, tmp_path: Path) -> None:
    """Or its socket stays readable, and the event loop is woken again and again."""
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    reconciler = Reconciler(
        Manifests([str(manifest)]),
        (Target("node", empty_netns),),
        Configuration(),
        keeping=lambda target, config, _: Clumsy(target, config, follows="", identity=None),
        clock=lambda: 100.0,
    )
    reconciler.open()
    try:
        reconciler.round(Reasons(objects=True))
        ((_, keeper),) = reconciler.keepers
        assert isinstance(keeper, Clumsy)
        keeper.fails = KernelError("not this time")
        reconciler.round(Reasons(events=True))
        build([Veth(Device(netns.path(empty_netns), "a"), Device(netns.path(empty_netns), "b"))])
        _, host = keeper.filenos()
        assert select.select([host], [], [], 0)[0]
        reconciler.round(Reasons(events=True))
        assert not select.select([host], [], [], 0)[0]
    finally:
        reconciler.close()


def test_a_mistyped_namespace_leaves_no_state_file_behind(tmp_path: Path) -> None:
    """Whoever finds one later would think that something follows it."""
    state = tmp_path / "state.db"
    reconciler = Reconciler(
        StateFile(state, lambda _: Store.open(state)),
        (Target("node", "svcnat-there-is-none"),),
        Configuration(),
        keeping=lambda target, config, _: Keeper(target, config, follows="", identity=None),
    )
    with pytest.raises(MissingError, match="svcnat-there-is-none"):
        reconciler.open()
    assert not state.exists()
