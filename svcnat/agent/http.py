"""One listening socket that speaks HTTP to anybody, who may have no more of this process than its share.

Connections are counted, per socket and of the whole process, and have to ask for something and to take the answer in
time: files are what the rest of the agent needs, too. What is answered is the caller's business. aiohttp, an optional
extra, is imported when the first one is made.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from svcnat.agent.logs import leave_out_clients

if TYPE_CHECKING:
    from aiohttp import web

MOST_CONNECTIONS = 100
"""Of one listener."""
REQUEST_SECONDS = 10.0
"""How long a request may take from its first byte, or the first one from the connection, to its last header."""

_BACKLOG = 128
_AT_ONCE = 10  # connections accepted before those of them that are too many are closed
_IDLE_SECONDS = 60.0  # how long a connection may wait for its next request
_ANSWER_SECONDS = 30.0  # how long an answer may take to be made and read
_GRACE_SECONDS = 0.5  # how long an answer that is being sent may take when its server closes

Respond = Callable[["web.BaseRequest"], Awaitable["web.StreamResponse"]]

_everywhere: set[_Connection] = set()  # what all listeners of this process have open


def listen(address: str, port: int, *, both: bool = False) -> socket.socket:
    """A listening socket of the thread's network namespace, on that address; ``::`` is IPv4's, too, if `both` are."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        server.bind((address, port))
        server.listen(_BACKLOG)  # with SO_REUSEADDR it is this that finds a port in use
    except OSError:
        server.close()
        raise
    return server


class Listener:
    """A listening socket, which is its own from here on, and the connections that it accepted."""

    def __init__(
        self,
        listening: socket.socket,
        respond: Respond,
        logger: logging.Logger,
        *,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        from aiohttp import web

        self._socket, self._respond, self.request_seconds = listening, respond, request_seconds
        self.connections: set[_Connection] = set()
        self._http = web.Server(
            self._answer, access_log=None, logger=leave_out_clients(logger), keepalive_timeout=_IDLE_SECONDS
        )
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=self._socket, backlog=_AT_ONCE)
        self._socket.listen(_BACKLOG)  # as many may wait: the loop takes the one number for both

    async def close(self) -> None:
        """Close the socket and all connections; one that never started, too."""
        if self._server:
            self._server.close()
        self._socket.close()
        self._http.pre_shutdown()  # lets the idle connections go, which a shutdown would wait for
        await self._http.shutdown(_GRACE_SECONDS)

    def speaker(self) -> asyncio.Protocol:
        """Who speaks HTTP on one more connection."""
        return self._http()

    def has_room(self) -> bool:
        """False if it has its share of connections, or the process has."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4  # as many as probes may have
        return len(self.connections) < MOST_CONNECTIONS and len(_everywhere) < most

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.transport and request.transport.get_protocol()
        if isinstance(connection, _Connection):
            connection.asked()
        return await self._respond(request)


class _Connection(asyncio.Protocol):
    """Between a connection and who speaks HTTP on it: hangs up on who is one too many, or too slow.

    Nothing in here knows aiohttp from another protocol of asyncio's.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._speaker: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._asking = True  # a request has begun, or is the least one may expect of somebody who connects

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if not self._listener.has_room():
            transport.abort()
            return
        self._listener.connections.add(self)
        _everywhere.add(self)
        self._transport = transport
        self._until(self._listener.request_seconds)
        self._speaker = self._listener.speaker()
        self._speaker.connection_made(transport)

    def asked(self) -> None:
        """A request is complete, as far as it is looked at."""
        self._asking = False
        self._until(_ANSWER_SECONDS + _IDLE_SECONDS)

    def data_received(self, data: bytes) -> None:
        if not self._speaker:
            return
        if not self._asking:
            self._asking = True
            self._until(self._listener.request_seconds)
        self._speaker.data_received(data)

    def eof_received(self) -> bool | None:
        return self._speaker.eof_received() if self._speaker else None

    def pause_writing(self) -> None:
        if self._speaker:
            self._speaker.pause_writing()

    def resume_writing(self) -> None:
        if self._speaker:
            self._speaker.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._listener.connections.discard(self)
        _everywhere.discard(self)
        if self._speaker:
            self._speaker.connection_lost(exc)

    def _until(self, seconds: float) -> None:
        """Hang up then, unless told otherwise; not politely, or who reads nothing would keep it open."""
        assert self._transport
        if self._deadline:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
