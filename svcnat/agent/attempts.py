"""One attempt of a probe: a connection, a request, a command or a health call, and what the kubelet would make of it.

Source: the kubelet's ``pkg/probe`` (tcp, http, exec, grpc), whose messages these are. How long an attempt may take and
what follows from it is :mod:`svcnat.agent.prober`'s subject: an attempt ends when it is cancelled, and leaves no socket
behind. What an endpoint sends goes into no message but a command's output, one printable line of it. aiohttp and h2,
optional extras, are imported when they are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from svcnat.agent.destinations import Unusable, open_socket, place, port_of, target, url_of
from svcnat.agent.probes import WORKS, Key, Outcome, Probed, Where, fails, unclear
from svcnat.errors import SvcnatError
from svcnat.model.objects import GRPCAction, HTTPGetAction, TCPSocketAction
from svcnat.model.quoting import printable, quoted

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

AGENT = "svcnat-probe"
"""How probes introduce themselves to servers."""

_MOST_READ = 10 * 1024  # of a body or an output, as the kubelet
_MOST_RECEIVED = 256 * 1024  # in one attempt, whatever it is: headers, 100 Continue, chunk extensions, certificates
_MOST_AT_ONCE = 4096  # received: an answer whose head is here is judged long before its body is too long
_MOST_REDIRECTS = 10
_MOST_SAID = 300
_LONGEST_LINE = 64 * 1024  # of an answer's head
_OF_THE_MESSAGE = ("content-length", "transfer-encoding", "trailer")  # headers: a request without a body has none
_REDIRECTS = (301, 302, 303, 307, 308)
_OUR_TROUBLE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and the beginning of what it said."""

    code: int
    output: bytes


Runner = Callable[[Key, Sequence[str]], Awaitable[Ran]]
"""Runs a command in the container that a key names. It is cancelled at the probe's timeout: then the command must end.

OSError means that there is no such command, which is a failure; an error of ours says nothing about the container.
"""


class Attempts:
    """What attempts share: the way to run commands, and an HTTP session for each network namespace."""

    def __init__(self, run: Runner | None = None) -> None:
        self._run = run
        self._sessions: dict[str | None, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close the sessions; attempts have ended, or been cancelled, before."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def make(self, probed: Probed) -> Outcome:
        """Probe once, and say how that ended."""
        probe = probed.probe
        try:
            if probe.exec:
                return await self._exec(probed.key, probe.exec.command)
            if probe.http_get:
                return await self._http(probed, probe.http_get)
            if probe.tcp_socket:
                return await _tcp(probed, probe.tcp_socket)
            if probe.grpc:
                return await _grpc(probed, probe.grpc)
            return unclear("the probe has no handler")
        except Unusable as error:
            return unclear(str(error))
        except SvcnatError as error:  # the namespace is not there, or may not be entered
            return unclear(str(error))
        except OSError as error:
            return _of_error(error, "")

    async def _exec(self, key: Key, command: Sequence[str]) -> Outcome:
        if self._run is None:
            raise Unusable("exec probes run in labs only: no container can be entered here")
        try:
            ran = await self._run(key, command)
        except OSError as error:
            return _of_error(error, f"cannot run {quoted(command[0])}")
        except ValueError as error:  # there is a zero in it, say
            raise Unusable(f"{quoted(command[0])} and its arguments are no command") from error
        return fails(said(ran)) if ran.code else WORKS

    async def _http(self, probed: Probed, action: HTTPGetAction) -> Outcome:
        try:
            from aiohttp import ClientConnectorError, ClientError
            from yarl import URL
        except ImportError as error:
            raise Unusable("httpGet probes need the library aiohttp: pip install '.[agent]'") from error
        session = self._session(probed.netns)
        asked = url_of(probed, action)
        try:
            url = URL(asked, encoded=True)
            headers = _headers(action)
        except ValueError as error:
            raise Unusable(f"{quoted(asked)} is no URL that can be asked for") from error
        try:
            with _conversation() as talk:
                return await _follow(session, url, headers)
        except (ClientError, ValueError) as error:  # a ValueError is garbage that became part of a URL
            doing = f"Get {quoted(asked)}"
            if talk.left <= 0:
                return fails(f"{doing}: the server sent more than {_MOST_RECEIVED} bytes")
            cause: OSError | None = error if isinstance(error, OSError) else None
            if isinstance(error, ClientConnectorError):
                cause = error.os_error
                if cause.errno and not isinstance(cause, ssl.SSLError):  # else TLS ended before it had begun
                    doing += f": dial tcp {place(*target(probed, action))}: connect"
            if cause is not None and cause.errno and not isinstance(cause, ssl.SSLError):
                return _of_error(cause, doing)
            return fails(f"{doing}: {_named(error)}")

    def _session(self, where: Where) -> aiohttp.ClientSession:
        name = None if where is None else os.fspath(where)
        if name not in self._sessions:
            self._sessions[name] = _new_session(where)
        return self._sessions[name]


def timed_out(probed: Probed) -> str:
    """Return what the kubelet says when an attempt took too long."""
    probe, limit = probed.probe, f"{probed.probe.timeout_seconds or 1}s"
    try:
        if probe.exec:
            return f"command {quoted(' '.join(probe.exec.command))} timed out after {limit}"
        if probe.http_get:
            text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return f"Get {quoted(url_of(probed, probe.http_get))}: {text}"
        if probe.grpc:
            return f"timeout: health rpc did not complete within {limit}"
        return f"dial tcp {place(*target(probed, probe.tcp_socket or TCPSocketAction()))}: i/o timeout"
    except Unusable as error:
        return str(error)


# --- TCP and gRPC --------------------------------------------------------------------------------------------


async def _tcp(probed: Probed, action: TCPSocketAction) -> Outcome:
    where = target(probed, action)
    with open_socket(probed.netns, where[0]) as connection:
        try:
            await asyncio.get_running_loop().sock_connect(connection, where)
        except OSError as error:
            return _of_error(error, f"dial tcp {place(*where)}: connect")
    return WORKS


async def _grpc(probed: Probed, action: GRPCAction) -> Outcome:
    try:
        from svcnat.agent import grpc_health
    except ImportError as error:
        raise Unusable("grpc probes need the library h2: pip install '.[agent]'") from error
    address, port = probed.address, port_of(probed, action.port)
    connection = open_socket(probed.netns, address)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
        reader, writer = await asyncio.open_connection(sock=connection)
    except OSError as error:
        connection.close()
        return _of_error(error, f'failed to connect service "{place(address, port)}": connect')
    except BaseException:
        connection.close()
        raise
    try:
        return await grpc_health.check(reader, writer, place(address, port), action.service or "", agent=AGENT)
    finally:
        writer.transport.abort()


# --- HTTP ----------------------------------------------------------------------------------------------------


class _Talk:
    """The connections of one attempt, and how much their other sides may still say."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.left = _MOST_RECEIVED

    def open(self, where: Where, address: str) -> socket.socket:
        made = open_socket(where, address, lambda family, kind: _Measured(self, family, kind))
        self.sockets.append(made)
        return made


class _Measured(socket.socket):
    """Receives a little at a time, and no more than its attempt may: then the connection is broken.

    An event loop receives by these two methods, the second for TLS. What it receives is parsed before anybody could
    look at how much it is: this is the one place through which all of it passes.
    """

    def __init__(self, talk: _Talk, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self._talk = talk

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(min(size, _MOST_AT_ONCE), flags)
        self._count(len(data))
        return data

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0, /) -> int:
        count = super().recv_into(buffer, min(size or len(buffer), _MOST_AT_ONCE), flags)
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        self._talk.left -= count
        if self._talk.left <= 0:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))


_talk: ContextVar[_Talk] = ContextVar("what this attempt has open")


def _new_session(where: Where) -> aiohttp.ClientSession:
    import aiohttp

    def open_socket(found: Any) -> socket.socket:
        return _talk.get().open(where, found[4][0])

    connector = aiohttp.TCPConnector(
        limit=0,  # the prober has one
        force_close=True,
        happy_eyeballs_delay=None,
        socket_factory=open_socket,
        ssl=_unverified(),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
    )


@functools.cache
def _unverified() -> ssl.SSLContext:
    """TLS as the kubelet's probes speak it: with whoever answers; so weak keys make nothing worse."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


@contextlib.contextmanager
def _conversation() -> Iterator[_Talk]:
    """Shut down, in the end, what sockets are still open: TLS would wait for the other side's farewell."""
    talk = _Talk()
    token = _talk.set(talk)
    try:
        yield talk
    finally:
        _talk.reset(token)
        for each in talk.sockets:
            if each.fileno() >= 0:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _headers(action: HTTPGetAction) -> list[tuple[str, str]]:
    """The headers that a probe asks for, and the two that the kubelet adds; given as empty, those are left out.

    So is an empty Host: it is the address then.
    """
    given = [(header.name, header.value) for header in action.http_headers]
    named = {name.lower() for name, _ in given}
    ours = [(name, value) for name, value in (("User-Agent", AGENT), ("Accept", "*/*")) if name.lower() not in named]
    asked = [(name, value) for name, value in given if value or name.lower() not in ("user-agent", "accept", "host")]
    return ours + [(name, value) for name, value in asked if name.lower() not in _OF_THE_MESSAGE]


async def _follow(session: aiohttp.ClientSession, url: URL, headers: list[tuple[str, str]]) -> Outcome:
    """Ask, and follow redirects to the same host; one to elsewhere is success with a warning: nobody is asked there."""
    host = url.host
    for _ in range(_MOST_REDIRECTS):
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if location is not None:
                there = response.url.join(type(url)(location))
                if there.host == host and there.scheme in ("http", "https"):
                    url = there
                    continue
                if there.host == host:
                    return fails("HTTP probe was redirected to something that is not HTTP")
            read = 0
            while read < _MOST_READ and (data := await response.content.read(_MOST_READ)):
                read += len(data)
            if 300 <= response.status < 400:
                return Outcome(success=True, message="Probe terminated redirects")
            if 200 <= response.status < 300:
                return WORKS
            return fails(f"HTTP probe failed with statuscode: {response.status}")
    return fails(f"stopped after {_MOST_REDIRECTS} redirects")


# --- what is said --------------------------------------------------------------------------------------------


def _of_error(error: OSError, doing: str) -> Outcome:
    """An error of the network is the endpoint's failure; one of this process says nothing about it."""
    reason = os.strerror(error.errno).lower() if error.errno else type(error).__name__
    text = f"{doing}: {reason}" if doing else reason
    return unclear(text) if error.errno in _OUR_TROUBLE else fails(text)


def _named(error: Exception) -> str:
    """What went wrong, in our words: those of the error may be the endpoint's."""
    from aiohttp import ClientConnectorError, ClientSSLError, ServerDisconnectedError

    if isinstance(error, ClientSSLError):
        return "tls: the handshake failed"
    if isinstance(error, ServerDisconnectedError | ClientConnectorError):
        return "EOF"
    return f"malformed HTTP response ({type(error).__name__})"


def said(ran: Ran) -> str:
    """Return the one line that a failed command's output becomes."""
    text = " ".join(ran.output[:_MOST_READ].decode(errors="replace").split())
    if not text:
        return f"command exited with status {ran.code}"
    return printable(text if len(text) <= _MOST_SAID else text[:_MOST_SAID] + "...")
