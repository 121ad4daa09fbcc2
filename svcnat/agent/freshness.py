"""Whether the rules keep up with what is asked of them: what /healthz answers.

Healthy is who has no request for a pass older than the grace, as with kube-proxy (its pkg/proxy/healthcheck/
proxy_health.go); an idle agent is healthy. Other than there, a first pass that never ends is unhealthy, too, and so is
a round, for it is what finds out that there is a request; and a pass answers only the requests that came before it
began. Nothing here knows why a pass did not come.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

GRACE_SECONDS = 60.0  # kube-proxy's healthTimeout: twice its default syncPeriod


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the rules keep up.

    ``fresh``: no request for a pass waits longer than the grace, and no round takes longer. ``updated``: the last
    pass, seconds of the epoch. ``eligible``: the node may get clients, as far as it is concerned.
    """

    fresh: bool
    updated: float
    eligible: bool = True


class Freshness:
    """When passes over targets were asked for, and when they were done; any thread may say so."""

    def __init__(
        self,
        grace: float = GRACE_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`grace`: seconds that a request may wait; `clock` measures them, `now` is what is shown."""
        self._grace, self._clock, self._now = grace, clock, now
        self._lock = threading.Lock()
        self._oldest: dict[str, float] = {}  # of each target, since when a request has been waiting
        self._newest: dict[str, float] = {}
        self.eligible = True
        """False while all targets' Nodes are about to go."""
        self._round: float | None = None  # since when one is under way
        self._updated = now()

    def began(self) -> None:
        """Note that a round begins, or waits for its thread."""
        self._round = self._clock()

    def ended(self) -> None:
        """Note that the round is over."""
        self._round = None

    @property
    def under_way(self) -> float:
        """For how many seconds a round has been under way; 0.0 if none is."""
        began = self._round
        return 0.0 if began is None else self._clock() - began

    def requested(self, node: str) -> None:
        """Note that something changed that asks for a pass over the target."""
        with self._lock:
            self._newest[node] = self._clock()
            self._oldest.setdefault(node, self._newest[node])

    def passed(self, node: str, seconds: float = 0.0) -> None:
        """Note that a pass over the target ended well; it began so many seconds ago."""
        with self._lock:
            began = self._clock() - seconds
            self._updated = self._now()
            if node not in self._oldest:
                return
            if self._newest[node] <= began:
                del self._oldest[node], self._newest[node]
            else:
                # When the first request after that came is not known: no earlier than this.
                self._oldest[node] = max(self._oldest[node], began)

    def left(self, node: str) -> None:
        """Note that the target is none any more."""
        with self._lock:
            self._oldest.pop(node, None)
            self._newest.pop(node, None)

    def keeps_up(self, node: str) -> bool:
        """Say whether that target's rules keep up, whatever those of the others do."""
        with self._lock:
            waited = self._clock() - self._oldest[node] if node in self._oldest else 0.0
            return max(waited, self.under_way) < self._grace

    def health(self) -> Health:
        """What is true now; while everything is fresh, ``updated`` is now, as kube-proxy shows it."""
        with self._lock:
            waited = self._clock() - min(self._oldest.values()) if self._oldest else 0.0
            fresh = max(waited, self.under_way) < self._grace
            return Health(fresh, self._now() if fresh else self._updated, self.eligible)
