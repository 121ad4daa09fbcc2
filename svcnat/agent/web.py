"""The agent's own pages: /metrics for Prometheus, /healthz for load balancers, /livez for who restarts it.

/healthz and /livez answer in kube-proxy's words (its pkg/proxy/healthcheck/proxy_health.go). What they say is decided
in :mod:`svcnat.agent.freshness`, what /metrics says in :mod:`svcnat.agent.metrics`. Served in the agent's own network
namespace, whatever namespaces' rules it keeps. aiohttp, an optional extra, is imported when the first page is served.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self

from svcnat.agent.freshness import Health
from svcnat.agent.http import Listener, listen
from svcnat.errors import MissingError
from svcnat.model.configuration import Bind

if TYPE_CHECKING:
    from aiohttp import web

_log = logging.getLogger(__name__)


class Measured(Protocol):
    """What :class:`svcnat.agent.metrics.Metrics` offers to its pages."""

    def text(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        ...

    def checked(self, path: str, code: int) -> None:
        """/healthz or /livez answered."""
        ...


class Pages:
    """The servers of the pages; an async context manager that closes them."""

    def __init__(
        self, health: Callable[[], Health], alive: Callable[[], bool] = lambda: True, metrics: Measured | None = None
    ) -> None:
        """Serve nothing yet. `alive`: false when only a restart helps; without metrics there is no /metrics.

        Raises:
            MissingError: aiohttp is not installed.

        """
        try:
            import aiohttp.web  # noqa: F401 - the rest of this module takes it from where Python keeps it
        except ImportError as error:
            raise MissingError("metrics and healthz need the library aiohttp: pip install '.[agent]'") from error
        self._answers = {"/healthz": self._healthz, "/livez": self._livez}
        self._health, self._alive, self._metrics = health, alive, metrics
        self._scraper = ThreadPoolExecutor(1, "svcnat-scrape")
        self._open: dict[Bind, _Page] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def update(self, metrics: Bind | None, healthz: Bind | None) -> tuple[str, ...]:
        """Serve exactly there, None meaning nowhere, whatever was served before; returns what could not be, in lines.

        One that stays where it is keeps its connections; what could not be served is tried again at the next update.
        Both may be one address.
        """
        wanted: dict[Bind, frozenset[str]] = {}
        if healthz:
            wanted[healthz] = frozenset(("/healthz", "/livez"))
        if metrics and self._metrics:
            wanted[metrics] = wanted.get(metrics, frozenset()) | {"/metrics"}
        await asyncio.gather(*(self._open.pop(place).close() for place in list(self._open) if place not in wanted))
        warnings = []
        for place, paths in wanted.items():
            if place in self._open:
                self._open[place].paths = paths
                continue
            try:
                listener = _Page(self._answer, paths, place)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                warnings.append(f"{' and '.join(sorted(paths))}: cannot be served on {place}: {reason}")
                continue
            self._open[place] = listener
            await listener.start()
        return tuple(warnings)

    async def close(self) -> None:
        """Close every socket, for good."""
        await self.update(None, None)
        self._scraper.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, path: str) -> web.Response:
        from aiohttp import web

        if path == "/metrics":
            assert self._metrics
            # In a thread of its own: reading the kernel's counters takes a while, and other threads may be busy.
            body = await asyncio.get_running_loop().run_in_executor(self._scraper, self._metrics.text)
            return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
        code, text = self._answers[path]()
        if self._metrics:
            self._metrics.checked(path, code)
        return web.Response(status=code, body=text.encode(), headers={"Content-Type": "application/json"})

    def _healthz(self) -> tuple[int, str]:
        health, now = self._health(), time.time()
        eligible = "true" if health.eligible else "false"
        body = f'{{"lastUpdated": "{_time(health.updated)}","currentTime": "{_time(now)}", "nodeEligible": {eligible}}}'
        return (200 if health.fresh and health.eligible else 503), body

    def _livez(self) -> tuple[int, str]:
        health, now = self._health(), time.time()
        body = f'{{"lastUpdated": "{_time(health.updated)}","currentTime": "{_time(now)}"}}'
        return (200 if self._alive() else 503), body


class _Page:
    """One listener, and the paths that it answers at the moment."""

    def __init__(self, answer: Callable[[str], Awaitable[web.Response]], paths: frozenset[str], place: Bind) -> None:
        self.paths = paths
        self._answer = answer
        # Of two families a configuration cannot name two addresses: the one that is all of them is of both.
        self._listener = Listener(listen(place.address, place.port, both=True), self._respond, _log)
        self.start, self.close = self._listener.start, self._listener.close

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        if request.path not in self.paths:
            response = web.Response(status=404, text="404 page not found\n")
        elif request.method not in ("GET", "HEAD"):
            response = web.Response(status=405, text="405 method not allowed\n", headers={"Allow": "GET, HEAD"})
        else:
            response = await self._answer(request.path)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = "svcnat"  # instead of the versions of Python and aiohttp
        return response


def _time(seconds: float) -> str:
    """A moment as Go prints it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC"
