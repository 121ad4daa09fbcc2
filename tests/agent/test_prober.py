"""The schedule of probes and what becomes of their outcomes, by a clock of our own: no endpoint, no waiting."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from svcnat.agent.attempts import Ran
from svcnat.agent.prober import Prober
from svcnat.agent.probes import Key, Probed, Result
from svcnat.errors import StoreError
from svcnat.model.defaults import probe_with_defaults
from svcnat.model.objects import ExecAction, Probe
from tests.agent.clockwork import Clockwork, run


def key(name: str = "a") -> Key:
    return Key("Pod", "default", name, "main")


def probed(name: str = "a", *, ready: bool = False, started: str = "", **fields: Any) -> Probed:
    """A probe by a command, which is whatever the test makes of it."""
    probe = probe_with_defaults(Probe(exec=ExecAction(command=["check"]), **fields))
    return Probed(key(name), probe, "10.0.0.1", ready=ready, started=started)


class World:
    """Containers whose commands end as they are told, and somebody who takes the reports."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.asked: list[tuple[float, str]] = []
        self.results: list[tuple[float, Result]] = []
        self.hanging: set[str] = set()
        self.now = self.most = 0
        self.takes = 0.0
        self.trouble: Exception | None = None
        self.on_report: Callable[[Result], Any] | None = None
        self._began = asyncio.get_running_loop().time()

    def time(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    async def run(self, about: Key, command: Sequence[str]) -> Ran:
        self.asked.append((self.time(), about.name))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(1e9 if about.name in self.hanging else self.takes)
        finally:
            self.now -= 1
        return Ran(self.codes.get(about.name, 0), b"down")

    async def report(self, result: Result) -> None:
        self.results.append((self.time(), result))
        if self.on_report:
            await self.on_report(result)
        if self.trouble:
            raise self.trouble

    def said(self) -> list[tuple[str, bool, str, bool]]:
        return [(each.key.name, each.ready, each.message, each.changed) for _, each in self.results]

    @asynccontextmanager
    async def prober(self, *, wall: float = 0, **options: Any) -> AsyncIterator[Prober]:
        async with Prober(self.report, run=self.run, wall=lambda: wall, **options) as made:
            yield made
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.now == 0


FAILED = "Readiness probe failed: down"


def test_an_endpoint_becomes_ready_and_unready() -> None:
    """At once with the first success, after three failures in a row, ten seconds apart; reported when it changes."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            await prober.update([probed()])
            await asyncio.sleep(0.001)
            assert world.results == [(0.0, Result(key(), ready=True, message="", changed=True))]
            world.codes["a"] = 1
            await asyncio.sleep(60)
            assert world.said()[1:] == [("a", True, FAILED, False), ("a", False, FAILED, True)]
            first, *rest = (when for when, _ in world.asked)
            assert first == 0
            assert 5 <= rest[0] < 15
            assert {round(later - before, 3) for before, later in pairwise(rest)} == {10}
            assert world.results[2][0] == pytest.approx(rest[2])
            world.codes["a"] = 0
            await asyncio.sleep(11)
            assert world.said()[3:] == [("a", True, "", True)]

    run(main())


def test_what_the_objects_say_is_corrected_until_they_say_it() -> None:
    """A result that was not written, or was overwritten, is reported again after the next attempt."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            world.trouble = StoreError("read-only")
            await prober.update([probed()])
            await asyncio.sleep(45)
            assert len(world.results) == len(world.asked) >= 4
            assert {each.ready for _, each in world.results} == {True}
            world.trouble = None
            await asyncio.sleep(30)
            told = len(world.results)
            await asyncio.sleep(30)
            assert len(world.results) == told
            await prober.update([probed(ready=True)])
            await asyncio.sleep(30)
            assert len(world.results) == told
            await prober.update([probed(ready=False)])  # somebody overwrote it
            await asyncio.sleep(30)
            assert len(world.results) == told + 1

    run(main())


def test_a_fault_of_whoever_takes_reports_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next attempt is made."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            world.trouble = RuntimeError("a mistake")
            await prober.update([probed()])
            await asyncio.sleep(25)
            assert len(world.results) >= 2

    run(main())
    assert "a mistake" in caplog.text


def test_the_log_says_what_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    """Once each time, though the result cannot be written: who follows manifests has no Events to look at."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        world = World()
        world.trouble = StoreError("read-only")
        async with world.prober() as prober:
            await prober.update([probed(failure_threshold=1)])
            await asyncio.sleep(30)
            world.trouble = None
            await asyncio.sleep(10)
            world.codes["a"] = 1
            await asyncio.sleep(30)

    run(main())
    assert [each.getMessage() for each in caplog.records] == [
        "Pod default/a main is ready",
        f"Pod default/a main is not ready: {FAILED}",
    ]


def test_ready_endpoints_stay_ready_until_the_opposite_is_proved() -> None:
    """Also when their probe changes, or the agent starts again: no service loses its endpoints for that."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            await prober.update([probed(ready=True)])
            await asyncio.sleep(30)
            await prober.update([probed(ready=True, period_seconds=5)])
            await asyncio.sleep(30)
            assert world.results == []

    run(main())


def test_first_probes_are_spread_but_new_endpoints_are_probed_at_once() -> None:
    """A thousand endpoints that are ready at the start ask for a hundredth of a second each, and so do their next."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            many = [probed(f"p{number}", ready=True) for number in range(1000)]
            await prober.update([*many, probed("unready")])
            await asyncio.sleep(0.001)
            assert [name for _, name in world.asked if name == "unready"] == ["unready"]
            await asyncio.sleep(10)
            assert {name for _, name in world.asked} == {*(f"p{number}" for number in range(1000)), "unready"}
            assert max(Counter(int(when * 10) for when, _ in world.asked).values()) < 40
            world.asked.clear()
            more = [probed(f"n{number}", ready=True) for number in range(1000)]
            await prober.update([*many, *more])
            await asyncio.sleep(0.001)
            assert len({name for _, name in world.asked if name.startswith("n")}) == 1000
            world.asked.clear()
            await asyncio.sleep(30)
            # What began together goes separate ways.
            assert max(Counter(int(when * 10) for when, _ in world.asked).values()) < 60

    run(main())


def test_no_more_attempts_than_allowed_are_in_hand() -> None:
    """The others wait their turn, and get it."""

    async def main() -> None:
        world = World()
        world.takes = 0.5
        async with world.prober(concurrency=10) as prober:
            await prober.update(probed(f"p{number}") for number in range(100))
            await asyncio.sleep(0.1)
            assert (world.most, world.now) == (10, 10)
            await asyncio.sleep(5)
            assert len({name for _, name in world.asked}) == 100
            assert {each.ready for _, each in world.results} == {True}
            # Those that are taken away while they wait or ask leave room for others.
            await prober.update(probed(f"q{number}") for number in range(100))
            await prober.update([])
            await prober.update(probed(f"r{number}") for number in range(10))
            await asyncio.sleep(0.1)
            assert world.now == 10
        assert world.most == 10

    run(main())


def test_an_attempt_ends_with_its_timeout() -> None:
    """It fails then, and the next one comes in its turn."""

    async def main() -> None:
        world = World()
        world.hanging.add("a")
        async with world.prober() as prober:
            await prober.update([probed(ready=True, timeout_seconds=2, failure_threshold=2)])
            await asyncio.sleep(40)
            message = 'Readiness probe failed: command "check" timed out after 2s'
            assert world.said() == [("a", True, message, False), ("a", False, message, True)]
            assert world.now == 0

    run(main())


@pytest.mark.parametrize(("period", "timeout"), [(1, 1), (3, 2), (10, 1), (10, 9)])
def test_attempts_that_time_out_are_as_frequent_as_others(period: int, timeout: int) -> None:
    """What does not answer is unready after three periods, however much of one an attempt may take."""

    async def main() -> None:
        world = World()
        world.hanging.add("a")
        async with world.prober() as prober:
            await prober.update([probed(ready=True, period_seconds=period, timeout_seconds=timeout)])
            await asyncio.sleep(20 * period)
            starts = [when for when, _ in world.asked]
            assert {round(later - before, 3) for before, later in pairwise(starts)} == {period}
            assert [when for when, each in world.results if each.changed] == [pytest.approx(starts[2] + timeout)]

    run(main())


def test_attempts_longer_than_a_period_follow_each_other() -> None:
    """A turn that passes meanwhile is taken at the end, once, as a ticker has it."""

    async def main() -> None:
        world = World()
        world.hanging.add("a")
        async with world.prober() as prober:
            await prober.update([probed(ready=True, period_seconds=1, timeout_seconds=5)])
            await asyncio.sleep(60)
            starts = [when for when, _ in world.asked]
            assert {round(later - before, 3) for before, later in pairwise(starts)} == {5}

    run(main())


def test_a_loop_that_was_busy_blames_nobody() -> None:
    """A timeout that is noticed late may have been ours: it does not count."""

    async def main() -> None:
        world = World()
        world.hanging.add("a")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clockwork)
        async with world.prober() as prober:
            await prober.update([probed(failure_threshold=1, ready=True, period_seconds=100)])
            while not world.now:
                await asyncio.sleep(0.1)
            loop.be_late(3)
            await asyncio.sleep(2)
            assert world.said() == [
                ("a", True, "Readiness probe errored: svcnat was too busy to hear the answer", False)
            ]

    run(main())


def test_the_initial_delay_counts_from_the_start_of_the_container() -> None:
    """What is left of it; all of it when nobody knows, never more when the clock jumped."""

    async def main() -> None:
        for started, begins in (
            ("", 30),
            ("1970-01-01T00:16:40Z", 30),
            ("1970-01-01T00:16:20Z", 10),
            ("1970-01-01T00:00:00Z", 0),
            ("2170-01-01T00:00:00Z", 30),
            ("nonsense", 30),
        ):
            world = World()
            async with world.prober(wall=1000) as prober:
                await prober.update([probed(started=started, initial_delay_seconds=30)])
                await asyncio.sleep(begins - 0.01 if begins else 0.001)
                assert len(world.asked) == (0 if begins else 1)
                await asyncio.sleep(0.02)
                assert len(world.asked) == 1

    run(main())


def test_what_was_never_ready_is_asked_again_soon() -> None:
    """After 1/4 s, 1/2 s and so on up to the period; what was ready once has to wait for its turn, as in a cluster."""

    async def main() -> None:
        world = World()
        world.codes["a"] = 1
        async with world.prober() as prober:
            await prober.update([probed("a", period_seconds=3, failure_threshold=1)])
            await asyncio.sleep(20)
            times = [when for when, _ in world.asked]
            assert [pytest.approx(later - earlier, abs=0.01) for earlier, later in pairwise(times[:5])] == [
                0.25,
                0.5,
                1,
                2,
            ]
            assert all(1.5 <= later - earlier <= 4.5 for earlier, later in pairwise(times[4:]))
            world.codes["a"] = 0
            await asyncio.sleep(5)
            assert world.said()[-1] == ("a", True, "", True)
            world.codes["a"] = 1
            asked = len(world.asked)
            await asyncio.sleep(30)
            assert len(world.asked) - asked in (9, 10, 11)

    run(main())


def test_a_threshold_of_successes_is_one_of_periods() -> None:
    """What was never ready is asked again soon until it succeeds once; then every success takes its period."""

    async def main() -> None:
        world = World()
        world.codes["a"] = 1
        async with world.prober() as prober:
            await prober.update([probed(period_seconds=10, success_threshold=3)])
            await asyncio.sleep(3)
            assert len(world.asked) == 4
            world.asked.clear()
            world.codes["a"] = 0
            await asyncio.sleep(40)
            starts = [when for when, _ in world.asked]
            assert starts[0] == pytest.approx(3.75)
            assert 5 <= starts[1] - starts[0] <= 15
            assert starts[2] - starts[1] == pytest.approx(10)
            assert [when for when, each in world.results if each.changed] == [pytest.approx(starts[2])]

    run(main())


def test_what_is_no_longer_wanted_ends_at_once() -> None:
    """Amid an attempt as well: when update returns, nothing asks any more. A changed probe begins anew."""

    async def main() -> None:
        world = World()
        world.hanging |= {"a", "b", "c"}
        async with world.prober() as prober:
            await prober.update([probed("a", timeout_seconds=99), probed("b", timeout_seconds=99)])
            await asyncio.sleep(0.01)
            assert world.now == 2
            await prober.update([probed("b", timeout_seconds=98)])
            assert world.now == 0
            await asyncio.sleep(0.01)
            assert [name for _, name in world.asked] == ["a", "b", "b"]
            await prober.update([])
            await asyncio.sleep(1000)
            assert len(world.asked) == 3
        await prober.close()  # once more

    run(main())


def test_a_report_may_lead_to_an_update() -> None:
    """Which may even take away what was reported on."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:

            async def follow(result: Result) -> None:
                await prober.update([probed("b", ready=True)])

            world.on_report = follow
            await prober.update([probed("a")])
            await asyncio.sleep(0.01)
            assert [name for _, name in world.asked] == ["a", "b"]
            await asyncio.sleep(60)
            assert {name for when, name in world.asked if when > 0.1} == {"b"}

    run(main())


def test_reasons_are_not_repeated() -> None:
    """Failures without consequences are worth a word when they begin, and one a minute if their words change.

    The same words come again after five minutes: Events are kept for an hour, and a failure may last longer.
    """

    async def main() -> None:
        world = World()

        async def same(about: Key, command: Sequence[str]) -> Ran:
            return Ran(1, b"down")

        async def varying(about: Key, command: Sequence[str]) -> Ran:
            return Ran(1, str(world.time()).encode())

        for runner, exactly in ((same, 12), (varying, 60)):
            world.results.clear()
            async with Prober(world.report, run=runner) as prober:
                await prober.update([probed(period_seconds=1)])
                await asyncio.sleep(3595)
            assert len(world.results) == exactly
            assert not any(each.changed or each.ready for _, each in world.results)

    run(main())


def test_a_failure_after_a_success_is_news() -> None:
    """The same words again, but not more than once a minute."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            await prober.update([probed(ready=True, period_seconds=10)])
            for _ in range(60):
                world.codes["a"] = 1 - world.codes.get("a", 0)
                await asyncio.sleep(10)
            assert 5 <= len(world.results) <= 11
            assert set(world.said()) == {("a", True, FAILED, False)}

    run(main())


def test_a_probe_that_nobody_can_make_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning, one report, and the endpoint stays as it is; only the report is repeated, after minutes."""
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        world = World()
        async with Prober(world.report) as prober:
            await prober.update([probed(ready=True)])
            await asyncio.sleep(290)
            assert len(world.results) == 1
            await asyncio.sleep(290)
            assert len(world.results) == 2
            del world.results[1]
        text = "Readiness probe errored: exec probes run in labs only: no container can be entered here"
        assert world.said() == [("a", True, text, False)]

    run(main())
    assert len(caplog.records) == 1


def test_an_unexpected_error_is_ours(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged without the words of the endpoint, and counts for nothing."""

    async def main() -> None:
        world = World()

        async def broken(about: Key, command: Sequence[str]) -> Ran:
            raise ZeroDivisionError("\x1b[31m")

        async with Prober(world.report, run=broken) as prober:
            await prober.update([replace(probed(), ready=True)])
            await asyncio.sleep(60)
        assert world.said() == [("a", True, "Readiness probe errored: unexpected ZeroDivisionError", False)]

    run(main())
    assert "\x1b" not in caplog.text


def test_a_container_that_starts_anew_has_proved_nothing() -> None:
    """Its first failure says nothing, whatever the one before it had proved; its first success does."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            await prober.update([probed()])
            await asyncio.sleep(0.001)
            await prober.update([probed(ready=True)])
            world.codes["a"] = 1
            await prober.update([probed(started="2026-05-17T10:00:00Z")])
            await asyncio.sleep(0.001)
            assert world.said()[1:] == [("a", False, FAILED, False)]
            world.codes["a"] = 0
            await asyncio.sleep(20)
            assert world.said()[2:] == [("a", True, "", True)]

    run(main())


@pytest.mark.parametrize("new", [{"started": "2026-05-17T10:00:00Z"}, {"address": "10.0.0.2"}], ids=["start", "move"])
def test_what_an_object_says_of_the_container_before_is_not_believed(new: dict[str, str]) -> None:
    """A pod whose status was not changed with its address: a first success keeps it ready, a first failure does not."""

    async def main() -> None:
        world = World()
        for code in (0, 1):
            world.codes["a"], world.results = code, []
            async with world.prober() as prober:
                await prober.update([probed(ready=True)])
                await asyncio.sleep(15 if code == 0 else 0.001)
                await prober.update([replace(probed(ready=True), **new)])
                await asyncio.sleep(0.001)
            assert world.said() == ([("a", False, FAILED, True)] if code else [])

    run(main())


def test_a_thousand_updates_change_nothing() -> None:
    """What is wanted as before is not disturbed, however often that is said."""

    async def main() -> None:
        world = World()
        async with world.prober() as prober:
            for _ in range(1000):
                await prober.update([probed(ready=True)])
                await asyncio.sleep(0.1)
            assert 9 <= len(world.asked) <= 11

    run(main())
