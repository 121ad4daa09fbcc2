"""An event loop whose clock jumps to the next timer when there is nothing to do, so that hours take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Impatient(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing will ever happen again")
        self.now += timeout or 0 if not ready else 0
        return ready


class Clockwork(asyncio.SelectorEventLoop):
    """Its time is that of its timers; `tick` is how exactly it keeps it."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now

    def be_late(self, seconds: float) -> None:
        """Let time pass in which the loop does nothing."""
        self._impatient.now += seconds


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end, and leave nothing running."""
    with asyncio.Runner(loop_factory=Clockwork) as runner:
        runner.run(main)
