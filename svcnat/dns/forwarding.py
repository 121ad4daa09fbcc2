"""Asking other servers: over UDP, over TCP what did not fit, one server after the other, and believing only answers.

Each question has a number and a source port of its own, both random, and its socket takes packets from nobody but the
server that was asked; what comes back is an answer only if it repeats number and question (RFC 5452). Nothing is
remembered from one question to the next. Sockets are opened by the caller, in whatever network namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from svcnat.dns import wire
from svcnat.dns.listening import Address, family_of

Opening = Callable[[socket.AddressFamily, socket.SocketKind], socket.socket]

PORT = 53
_PATIENCE = 1.5  # seconds for one server
_ROUNDS = 2
_IN_ALL = 4.5  # seconds: stub resolvers ask again after five
_MOST = 1000  # questions under way
_MOST_SERVERS = 3  # of a resolv.conf, as glibc has it
_LOOK_SECONDS = 1.0  # between two looks at resolv.conf
_NOT_GOOD = (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP)


class ForwardingError(Exception):
    """Nobody answered."""


class Forwarder:
    """Asks the servers that `upstreams` names at the time."""

    def __init__(
        self, upstreams: Callable[[], Sequence[Address]], opening: Opening, *, patience: float = _PATIENCE
    ) -> None:
        """`opening` makes a socket where the servers are reached; `patience`: seconds for one server."""
        self.upstreams = upstreams
        self._opening = opening
        self._patience = patience
        self._under_way = 0

    async def ask(self, query: wire.Query, question: bytes | None = None) -> bytes:
        """The response to a query's question, or to another one on its behalf.

        Raises:
            ForwardingError: no server answers, or too many questions are under way.

        """
        servers = self.upstreams()
        if not servers or self._under_way >= _MOST:
            raise ForwardingError("no upstream" if not servers else "too many questions are under way")
        self._under_way += 1
        poor: bytes | None = None
        try:
            async with asyncio.timeout(_IN_ALL):
                for server in [*servers] * _ROUNDS:
                    with contextlib.suppress(OSError, TimeoutError, EOFError):
                        async with asyncio.timeout(self._patience):
                            response = await self._ask_one(server, query, question or query.question)
                        if wire.rcode_of(response) not in _NOT_GOOD:
                            return response
                        if poor is not None:
                            return poor
                        poor = response
        except TimeoutError:
            pass
        finally:
            self._under_way -= 1
        if poor is not None:
            return poor
        raise ForwardingError("no upstream answers")

    async def _ask_one(self, server: Address, query: wire.Query, question: bytes) -> bytes:
        ident = secrets.randbelow(1 << 16)
        message = wire.ask(
            ident,
            question,
            recurse=bool(query.flags & 0x0100),
            edns=bool(query.payload),
            do=query.do,
            checking_disabled=bool(query.flags & 0x0010),
        )
        response = await self._over_udp(server, ident, question, message)
        if wire.is_truncated(response):
            with contextlib.suppress(OSError, EOFError):
                return await self._over_tcp(server, ident, question, message)
        return response

    async def _over_udp(self, server: Address, ident: int, question: bytes, message: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with self._open(server, socket.SOCK_DGRAM) as asking:
            asking.connect(server)  # the kernel draws the port, and takes packets from there only
            await loop.sock_sendall(asking, message)
            while True:
                response = await loop.sock_recv(asking, wire.LARGEST)
                if wire.answers(response, ident, question):
                    return response

    async def _over_tcp(self, server: Address, ident: int, question: bytes, message: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with self._open(server, socket.SOCK_STREAM) as asking:
            await loop.sock_connect(asking, server)
            await loop.sock_sendall(asking, len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(await _receive(asking, 2), "big")
            response = await _receive(asking, size)
        if not wire.answers(response, ident, question):
            raise EOFError
        return response

    def _open(self, server: Address, kind: socket.SocketKind) -> socket.socket:
        opened = self._opening(family_of(server[0]), kind)
        opened.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        return opened


async def _receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes of a connection; EOFError if it ends before."""
    data = bytearray()
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(connection, size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


class ResolvConf:
    """The name servers of a file like /etc/resolv.conf, as it is at the time."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._read_at = float("-inf")
        self._found: tuple[Address, ...] = ()

    def __call__(self) -> tuple[Address, ...]:
        """The servers; a file that cannot be read names none."""
        now = self._clock()
        if now - self._read_at >= _LOOK_SECONDS:
            text = ""
            with contextlib.suppress(OSError):
                text = self._path.read_text(encoding="utf-8", errors="replace")
            self._found = name_servers(text)
            self._read_at = now
        return self._found


def name_servers(text: str) -> tuple[Address, ...]:
    """The ``nameserver`` lines of a resolv.conf(5); what is no address is passed over, as glibc does."""
    found = []
    for line in text.splitlines():
        match = re.match(r"nameserver[ \t]+([0-9A-Fa-f.:]+(%\S+)?)", line)
        if match:
            with contextlib.suppress(OSError):
                socket.inet_pton(family_of(match[1].partition("%")[0]), match[1].partition("%")[0])
                found.append((match[1], PORT))
    return tuple(found[:_MOST_SERVERS])
