"""What goes wrong in an event loop where nobody waits for it: told in the log, not more often than one would read it.

The loop's own way is a traceback for each time, even for a connection that could not be accepted for want of a file,
which is tried again and again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

_QUIET_SECONDS = 60.0  # between two lines about one kind of mishap
_MOST_KINDS = 100

_log = logging.getLogger(__name__)


class Mishaps:
    """An event loop's exception handler: :meth:`asyncio.loop.set_exception_handler` takes it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell of it, in a line; of those that come soon after one of their kind only how many they were."""
        error = context.get("exception")
        what = str(context.get("message") or "something went wrong")
        kind = (what, type(error).__name__)
        now = self._clock()
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        told, untold = self._kinds.get(kind, (now - _QUIET_SECONDS, 0))
        if now - told < _QUIET_SECONDS:
            self._kinds[kind] = (told, untold + 1)
            return
        self._kinds[kind] = (now, 0)
        fields = {"untold": untold} if untold else {}
        if isinstance(error, OSError):  # of the network, or of this machine's state
            _log.warning("%s: %s", what, error.strerror or type(error).__name__, extra=fields)
        elif isinstance(error, BaseException):  # a mistake of ours
            _log.error("%s", what, exc_info=error, extra=fields)
        else:
            _log.error("%s", what, extra=fields)
