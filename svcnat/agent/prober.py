"""Probes what asks for it, again and again, and reports what changed: asyncio, one for the agent.

Level-triggered: :meth:`Prober.update` says what is to be probed from now on, and a result is reported until the objects
say the same. Attempts are spread over their period by their key, so that thousands of endpoints never ask at once; only
a new endpoint, or a changed probe, is probed at once. It writes to no store and makes no Events: who gets the reports
does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Literal, Self

from svcnat.agent.attempts import Attempts, Runner, timed_out
from svcnat.agent.probes import Key, Outcome, Probed, Result, State, fails, unclear
from svcnat.errors import SvcnatError

Report = Callable[[Result], Awaitable[None]]
"""Takes a result; raise an error of svcnat if it could not be written: it is reported again after the next attempt."""

MOST_AT_ONCE = 512

_EAGER_SECONDS = 0.25  # after the first attempt at what was never ready; doubled with each, until that is the period
_QUIET_SECONDS = 60.0  # between two reports of failures that change nothing
_AGAIN_SECONDS = 300.0  # between two of the same failure: an Event is kept for an hour after it was told last
_LATE_SECONDS = 0.2  # by so much the loop may be late; beyond, a timeout says nothing about the endpoint

_log = logging.getLogger(__name__)


class Prober:
    """Everything that is probed; an async context manager that ends it all.

    One update or close at a time, in one event loop.
    """

    def __init__(
        self,
        report: Report,
        *,
        run: Runner | None = None,
        concurrency: int = MOST_AT_ONCE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Probe nothing yet.

        `run` runs the commands of exec probes; without it they are not usable. No more than `concurrency` attempts are
        in hand at a time, nor more than a quarter of the files that the process may have open. `wall` is what time it
        is, in seconds since 1970: pods say so when they started.
        """
        self._report = report
        self._attempts = Attempts(run)
        self._wall = wall
        self._subjects: dict[Key, _Subject] = {}
        self._waiting: deque[_Subject] = deque()
        self._free = max(1, min(concurrency, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._begun = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def update(self, wanted: Iterable[Probed]) -> None:
        """Probe exactly these from now on, of two with one key the last; no attempt for others is left afterwards.

        What is wanted as before goes on undisturbed. Whatever is new is probed at once, if its initial delay is over;
        at the first update, what is ready waits for its turn.
        """
        named = {each.key: each for each in wanted}
        ended = []
        for key, subject in list(self._subjects.items()):
            found = named.pop(key, None)
            if found is not None and (found is subject.probed or found.asks_as(subject.probed)):
                subject.probed = found
                subject.told(found.ready)
                continue
            ended.append(subject)
            del self._subjects[key]
            if found is not None:
                named[key] = found
        before = {subject.probed.key: subject for subject in ended}
        await self._end(ended)
        loop = asyncio.get_running_loop()
        for key, each in named.items():
            state = _state_of(each, before.get(key))
            self._subjects[key] = subject = _Subject(each, state)
            delay = self._delay(each)
            if not delay and each.ready and not self._begun:
                delay = _turn(loop.time(), 0.0, subject.phase, subject.period)
            subject.timer = loop.call_later(delay, self._due, subject)
        self._begun = True

    async def close(self) -> None:
        """End every attempt and close every socket."""
        subjects = list(self._subjects.values())
        self._subjects.clear()
        await self._end(subjects)
        await self._attempts.close()

    def _delay(self, probed: Probed) -> float:
        """How many seconds of a container's initial delay are left; a clock that jumped makes it no longer."""
        initial = probed.probe.initial_delay_seconds or 0
        if not initial or not probed.started:
            return float(initial)
        try:
            started = datetime.fromisoformat(probed.started).timestamp()
        except ValueError:
            return float(initial)
        return min(max(0.0, started + initial - self._wall()), float(initial))

    async def _end(self, subjects: Iterable[_Subject]) -> None:
        tasks = []
        for subject in subjects:
            subject.ended = True
            if subject.timer:
                subject.timer.cancel()
            # A report that leads to an update would wait for itself.
            if subject.task and subject.task is not asyncio.current_task():
                subject.task.cancel()
                tasks.append(subject.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the schedule ----------------------------------------------------------------------------------------

    def _due(self, subject: _Subject) -> None:
        """It is a subject's turn: now, or when an attempt ends."""
        subject.timer = None
        self._waiting.append(subject)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._free and self._waiting:
            subject = self._waiting.popleft()
            if not subject.ended:
                self._free -= 1
                subject.attempting = True
                loop = asyncio.get_running_loop()
                subject.began = loop.time()
                subject.task = loop.create_task(self._probe(subject))
                subject.task.add_done_callback(lambda _, subject=subject: self._done(subject))  # type: ignore[misc]

    async def _probe(self, subject: _Subject) -> None:
        outcome = await self._attempt(subject.probed)
        self._release(subject)
        await self._conclude(subject, outcome)

    def _release(self, subject: _Subject) -> None:
        """Let somebody else attempt; also after a task that was cancelled before it began."""
        if subject.attempting:
            subject.attempting = False
            self._free += 1
            self._start_waiting()

    def _done(self, subject: _Subject) -> None:
        subject.task = None
        self._release(subject)
        if not subject.ended:
            loop = asyncio.get_running_loop()
            # Counted from the attempt's beginning, as a ticker does: one that times out makes no turn pass.
            turn = _turn(subject.began, subject.period / 2, subject.phase, subject.period)
            delay = subject.eagerness() or max(0.0, subject.began + turn - loop.time())
            subject.timer = loop.call_later(delay, self._due, subject)

    async def _attempt(self, probed: Probed) -> Outcome:
        loop = asyncio.get_running_loop()
        limit = probed.probe.timeout_seconds or 1
        end = loop.time() + limit
        try:
            async with asyncio.timeout_at(end):
                return await self._attempts.make(probed)
        except TimeoutError:
            if loop.time() - end > _LATE_SECONDS:
                return unclear("svcnat was too busy to hear the answer")
            return fails(timed_out(probed))
        except Exception as error:  # noqa: BLE001 - of a mistake here, not of the endpoint: the others go on
            # The text of the error may be the endpoint's.
            _log.error("probing %s failed unexpectedly: %s", probed.key, type(error).__name__)
            return unclear(f"unexpected {type(error).__name__}")

    # --- the results -----------------------------------------------------------------------------------------

    async def _conclude(self, subject: _Subject, outcome: Outcome) -> None:
        """Draw the conclusion from an attempt, and report what is new."""
        subject.state = subject.state.after(outcome.success, subject.probed.probe)
        state = subject.state
        changed = state.proven and state.ready is not subject.known
        message = _message(outcome)
        if not changed and not self._worth_saying(subject, message):
            return
        again, subject.said = message == subject.said, message
        if message:
            subject.said_at = asyncio.get_running_loop().time()
        if outcome.success is None and not again:
            _log.warning("%s: %s", subject.probed.key, message)
        if changed and subject.logged is not state.ready:
            subject.logged = state.ready
            if state.ready:
                _log.info("%s is ready", subject.probed.key)
            else:
                _log.warning("%s is not ready: %s", subject.probed.key, message)
        reason: Literal["Unhealthy", "ProbeWarning"] = "ProbeWarning" if outcome.success and message else "Unhealthy"
        result = Result(subject.probed.key, state.ready, message, changed, subject.probed.address, reason)
        try:
            await self._report(result)
        except SvcnatError as error:
            # Whoever takes the reports tells of its trouble, once and not for every attempt.
            _log.debug("%s: the result was not written: %s", subject.probed.key, error)
        except Exception:  # noqa: BLE001 - of a mistake of whoever takes the reports: the others go on
            _log.exception("%s: the result was not taken", subject.probed.key)
        else:
            subject.told(state.ready)

    def _worth_saying(self, subject: _Subject, message: str) -> bool:
        """Tell whether a failure without consequences is news: another reason, after a success, or after a while."""
        if not message:
            subject.said = ""
            return False
        if subject.said_at is None:
            return True
        silence = asyncio.get_running_loop().time() - subject.said_at
        return silence >= (_AGAIN_SECONDS if message == subject.said else _QUIET_SECONDS)


class _Subject:
    """What is probed, and where its probing stands."""

    def __init__(self, probed: Probed, state: State) -> None:
        self.probed = probed
        self.state = state
        self.known = probed.ready  # what the objects say
        self.period = float(probed.probe.period_seconds or 10)
        self.phase = zlib.crc32(repr(probed.key).encode()) / 2**32 * self.period
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.attempting = False
        self.began = 0.0
        self.ended = False
        self.logged: bool | None = None
        self.said = ""
        self.said_at: float | None = None
        self._eagerness = _EAGER_SECONDS

    def eagerness(self) -> float:
        """Return in how many seconds to ask again, because it was never ready; 0 when it is to wait for its turn.

        What has succeeded waits: a `successThreshold` asks for so many periods, not for so many quick answers.
        """
        if self.state.last:
            return 0
        if self.state.ready or self._eagerness >= self.period:
            self._eagerness = self.period
            return 0
        self._eagerness *= 2
        return self._eagerness / 2

    def told(self, ready: bool) -> None:  # noqa: FBT001 - the object's own value
        """The objects say `ready`."""
        self.known = ready
        self.state = self.state.told(ready)


def _state_of(probed: Probed, before: _Subject | None) -> State:
    """Where the probing of something new or changed begins: what was proved stays, unless of another container.

    Of that nothing is known, though the object may still say what was true of the one before.
    """
    if before is None:
        return State(probed.ready)
    if (before.probed.started, before.probed.address) != (probed.started, probed.address):
        return State(ready=False, proven=True)
    return State(before.state.ready, proven=before.state.proven)


def _turn(now: float, least: float, phase: float, period: float) -> float:
    """Return in how many seconds, at least `least`, the clock is at `phase` of its period."""
    return least + (phase - now - least) % period


def _message(outcome: Outcome) -> str:
    if outcome.success and not outcome.message:
        return ""
    how = {True: "warning", False: "failed", None: "errored"}[outcome.success]
    return f"Readiness probe {how}: {outcome.message}"
