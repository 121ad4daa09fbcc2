"""The HTTP servers of healthCheckNodePort, by which load balancers find the nodes that have endpoints of a Service.

They answer what kube-proxy does (its pkg/proxy/healthcheck/service_health.go). What they count is decided in
:mod:`svcnat.ruleset.plan`, and when it changed, by the caller. No endpoint is probed here. aiohttp, an optional
extra, is imported when the first servers are made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from svcnat.agent.http import Listener, listen
from svcnat.errors import KernelError, MissingError
from svcnat.kernel import netns
from svcnat.ruleset.plan import HealthCheck

if TYPE_CHECKING:
    from aiohttp import web

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - kube-proxy's answer to a node whose addresses are not known

_log = logging.getLogger(__name__)

_Place = tuple[str, int]  # an address and a port


@dataclass(frozen=True, slots=True)
class Unserved:
    """A health check that one address does not answer, and why."""

    check: HealthCheck
    address: str
    reason: str


class HealthServers:
    """The health check servers of one network namespace; an async context manager that closes them.

    One update or close at a time, in one event loop. Sockets keep a namespace alive that has lost its name, so close
    them before it goes, or update soon after.
    """

    def __init__(self, where: str | os.PathLike[str] | None = None, healthy: Callable[[], bool] = lambda: True) -> None:
        """Serve nothing yet, in the network namespace of that name or path; None: in the thread's.

        `healthy`: whether the node's rules keep up; while they do not, every answer is 503.

        Raises:
            MissingError: aiohttp is not installed.

        """
        try:
            import aiohttp.web  # noqa: F401 - the rest of this module takes it from where Python keeps it
        except ImportError as error:
            raise MissingError("health checks need the library aiohttp: pip install '.[agent]'") from error
        self._where, self._healthy = where, healthy
        self._identity: tuple[int, int] | None = None
        self._listeners: dict[_Place, _Checked] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def update(self, checks: Iterable[HealthCheck], addresses: Iterable[str] = ()) -> tuple[Unserved, ...]:
        """Serve exactly these checks on these addresses of the node, whatever was served before.

        `addresses` are those that answer node ports, canonical text of both families; without any, all of the node's
        answer, as with kube-proxy. What cannot be served is returned and does not keep the rest from being served; it
        is tried again at the next update. A check whose count changed keeps its sockets.

        Raises:
            MissingError: the network namespace is not there; nothing is served any more.
            PrivilegeError: CAP_SYS_ADMIN is missing, to enter it.

        """
        await self._leave_old_namespace()
        wanted, unserved = _places(checks, tuple(dict.fromkeys(addresses)) or EVERYWHERE)
        await self._close([place for place in self._listeners if place not in wanted])
        for place, listener in self._listeners.items():
            listener.check = wanted.pop(place)
        if wanted:
            unserved += await self._open(wanted)
        return tuple(unserved)

    async def close(self) -> None:
        """Close every socket."""
        await self._close(list(self._listeners))

    async def _leave_old_namespace(self) -> None:
        """Close everything if the name is another namespace's now, or nobody's."""
        try:
            identity = netns.identity(self._where)
        except KernelError:
            await self.close()
            raise
        if identity != self._identity:
            await self.close()
            self._identity = identity

    async def _open(self, wanted: dict[_Place, HealthCheck]) -> list[Unserved]:
        unserved: list[Unserved] = []
        opened: list[_Checked] = []
        with netns.entered(self._where):  # nothing is awaited in here
            for (address, port), check in wanted.items():
                try:
                    opened.append(_Checked(check, listen(address, port), self._healthy))
                except OSError as error:
                    unserved.append(Unserved(check, address, os.strerror(error.errno or 0)))
                else:
                    self._listeners[address, port] = opened[-1]
        for listener in opened:
            await listener.start()
        return unserved

    async def _close(self, places: Iterable[_Place]) -> None:
        await asyncio.gather(*(self._listeners.pop(place).close() for place in places))


def _places(
    checks: Iterable[HealthCheck], addresses: tuple[str, ...]
) -> tuple[dict[_Place, HealthCheck], list[Unserved]]:
    """What each address and port is to answer; of two checks on one port, the first has it."""
    wanted: dict[_Place, HealthCheck] = {}
    unserved = []
    for check in checks:
        for address in addresses:
            holder = wanted.setdefault((address, check.port), check)
            if holder is not check:
                unserved.append(Unserved(check, address, f"the port is that of {holder.namespace}/{holder.name}"))
    return wanted, unserved


class _Checked:
    """One listener, and the check that it answers at the moment."""

    def __init__(self, check: HealthCheck, listening: socket.socket, healthy: Callable[[], bool]) -> None:
        self.check, self._healthy = check, healthy
        self._listener = Listener(listening, self._answer, _log)
        self.start, self.close = self._listener.start, self._listener.close

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - all get one answer
        from aiohttp import web

        healthy = self._healthy()
        headers = {
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
            "X-Load-Balancing-Endpoint-Weight": str(self.check.local_endpoints),
            "Server": "svcnat",  # instead of the versions of Python and aiohttp
        }
        status = 200 if self.check.local_endpoints and healthy else 503
        return web.Response(status=status, body=_body(self.check, healthy=healthy).encode(), headers=headers)


def _body(check: HealthCheck, *, healthy: bool) -> str:
    """What kube-proxy says, to the byte; names of objects have no character that JSON would escape."""
    return (
        "{\n"
        '\t"service": {\n'
        f'\t\t"namespace": "{check.namespace}",\n'
        f'\t\t"name": "{check.name}"\n'
        "\t},\n"
        f'\t"localEndpoints": {check.local_endpoints},\n'
        f'\t"serviceProxyHealthy": {"true" if healthy else "false"}\n'
        "}"
    )
