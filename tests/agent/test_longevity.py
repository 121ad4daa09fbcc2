"""What an agent holds does not grow with what happens to it: objects are counted, in a process of their own."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.agent.counting import Counting
from svcnat.agent.metrics import Metrics
from svcnat.kernel import netns
from svcnat.model.objects import EndpointSlice, Service
from svcnat.store.sqlite import Store
from tests.agent.running import Rounds, create, endpoints, nft, service, web
from tests.agents import PATIENCE

_CYCLES = 200
_SERVICES = 20


@pytest.mark.packets
def test_nothing_grows_under_churn(empty_netns: str, state: Path) -> None:
    """Two hundred times: a flush and its repair, a Service that comes and goes, a page, another namespace."""
    command = [sys.executable, "-m", __name__, empty_netns, str(state)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    held, alive = counts["held"], counts["alive"]
    assert len(held) == _CYCLES
    assert max(held) < 1.25 * alive[0], "what has died is held"
    assert alive[1] < 1.02 * alive[0], "what lives has grown"


def _alive() -> int:
    """How many objects live, of those that a collector knows; nothing is set aside after it."""
    gc.unfreeze()
    gc.collect()
    return len(gc.get_objects())


def _churn(where: str, store: Store, rounds: Rounds, metrics: Metrics) -> None:
    """Let everything happen once that has an agent make things anew."""
    nft(where, "flush ruleset")
    assert rounds.round(events=True) == ["synced"]
    create(store, service("more", 99), endpoints("more", "192.0.2.9"))
    assert rounds.round(objects=True) == ["synced"]
    with store.transaction() as transaction:
        for kind in (EndpointSlice, Service):
            transaction.delete(kind, "default", "more")
    assert rounds.round(objects=True) == ["synced"]
    assert b"svcnat_service_connections_total{" in metrics.text()
    netns.delete(where)
    netns.create(where)
    assert rounds.round(look=True) == ["gone"]
    assert rounds.round(look=True) == ["synced"]


def _held(where: str, state: Path) -> Iterator[tuple[str, int]]:
    """How many objects live before and after all cycles, and how many are held after each."""
    with Store.open(state) as store:
        for number in range(_SERVICES):
            web(store, number)
        with Rounds(state, where) as rounds:
            # Every page is a new one by this clock.
            metrics = Metrics(Counting(rounds.reconciler.serving), clock=iter(range(0, 10**6, 10)).__next__)
            _churn(where, store, rounds, metrics)  # what is imported and made once is there from here on
            yield "alive", _alive()
            for _ in range(_CYCLES):
                _churn(where, store, rounds, metrics)
                yield "held", gc.get_freeze_count() + len(gc.get_objects())
            yield "alive", _alive()


if __name__ == "__main__":
    counts: dict[str, list[int]] = {}
    for what, count in _held(sys.argv[1], Path(sys.argv[2])):
        counts.setdefault(what, []).append(count)
    print(json.dumps(counts))
