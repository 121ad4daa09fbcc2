"""Rounds over targets: what goes wrong with one is told, tried again, and over when it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from svcnat.agent.keeper import Keeper
from svcnat.agent.reconciler import Reasons, Reconciler
from svcnat.agent.sources import Manifests
from svcnat.agent.targets import Target
from svcnat.errors import KernelError
from svcnat.model.configuration import Configuration

pytestmark = pytest.mark.packets

WEB = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}\n"


class Clumsy(Keeper):
    """A keeper that fails when it is asked to, once, at something else than a pass."""

    fails = False

    def interfered(self) -> list[str]:
        if self.fails:
            self.fails = False
            raise KernelError("not this time")
        return super().interfered()


def test_what_failed_beside_a_pass_is_over_when_a_pass_ends_well(empty_netns: str, tmp_path: Path) -> None:
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
        keeper.fails = True
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
