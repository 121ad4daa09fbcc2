"""The servers' event loop: packets over UDP, and conversations over TCP (RFC 7766) with a bound on each.

It opens no socket: whoever binds them does so in the network namespace that they are for. What is answered is the
:class:`~svcnat.dns.responder.Responder`'s decision. Nothing that arrives ends a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from svcnat.dns import wire
from svcnat.dns.forwarding import Address, family_of
from svcnat.dns.responder import Responder
from svcnat.dns.wire import Query

_BATCH = 64  # packets at a time, before others get their turn
_BUFFER = 2 << 20  # bytes of packets that may wait
_BACKLOG = 256
_MOST_WAITING = 1000  # queries for which others are being asked

_log = logging.getLogger(__name__)
_PKTINFO = {
    socket.AF_INET: (socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO),
}
_IN_PKTINFO = struct.Struct("=I4s4s")


@dataclass(frozen=True, slots=True)
class Limits:
    """What TCP clients may take: connections, seconds without a query or without reading, queries at a time."""

    connections: int = 256
    idle: float = 10.0
    at_a_time: int = 32


@dataclass(frozen=True, slots=True)
class Listening:
    """The two sockets of one address."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def listen(address: Address) -> Listening:
    """Bind both sockets of an address, in the network namespace of the calling thread; port 0: any free one.

    Raises:
        OSError: it is in use, or not an address of this host.

    """
    family = family_of(address[0])
    with contextlib.ExitStack() as stack:
        udp = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        for each in (udp, tcp):
            each.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        with contextlib.suppress(OSError):  # only for who may administer the network
            udp.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), _BUFFER)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _is_wildcard(address[0]):
            level, option = _PKTINFO[family]
            udp.setsockopt(level, socket.IPV6_RECVPKTINFO if family == socket.AF_INET6 else option, 1)
        udp.bind(address)
        tcp.bind((address[0], udp.getsockname()[1]))
        tcp.listen(_BACKLOG)
        stack.pop_all()
    return Listening(udp, tcp)


def _is_wildcard(address: str) -> bool:
    return address in ("0.0.0.0", "::")  # noqa: S104 - what is compared, not what is bound


class Server:
    """Answers on sockets, which it closes at the end; an async context manager."""

    def __init__(self, responder: Responder, sockets: Sequence[Listening], limits: Limits = Limits()) -> None:
        self._responder, self._sockets, self._limits = responder, sockets, limits
        self._waiting: set[asyncio.Task[None]] = set()
        self._talks: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        for each in self._sockets:
            asyncio.get_running_loop().add_reader(each.udp, self._read, each.udp)
            self._servers.append(await asyncio.start_server(self._converse, sock=each.tcp, limit=4096))
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each.udp)
        for server in self._servers:
            server.close()
        tasks = [*self._waiting, *self._talks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()

    # --- UDP -------------------------------------------------------------------------------------------------

    def _read(self, udp: socket.socket) -> None:
        """Answer the packets that have arrived."""
        for _ in range(_BATCH):
            try:
                packet, ancillary, _, client = udp.recvmsg(wire.LARGEST, 64)
            except OSError:  # none is left
                return
            self._answer(udp, packet, ancillary, client)

    def _answer(self, udp: socket.socket, packet: bytes, ancillary: list[Any], client: Any) -> None:
        try:
            found = self._responder.respond(packet, stream=False)
        except Exception:  # noqa: BLE001 - a mistake of ours with one packet is not everybody's
            _log.exception("a packet could not be answered")
            return
        if isinstance(found, Query):
            if len(self._waiting) >= _MOST_WAITING:
                found = self._responder.busy(found, stream=False)
            else:
                task = asyncio.create_task(self._complete(udp, found, ancillary, client))
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
                return
        if found is not None:
            _send(udp, found, ancillary, client)

    async def _complete(self, udp: socket.socket, query: Query, ancillary: list[Any], client: Any) -> None:
        try:
            _send(udp, await self._responder.complete(query, stream=False), ancillary, client)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a query could not be completed")

    # --- TCP -------------------------------------------------------------------------------------------------

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of one connection, each as soon as its answer is there, until the client has enough."""
        task = asyncio.current_task()
        assert task
        if len(self._talks) >= self._limits.connections:
            # The one that has been silent for longest makes room: otherwise silent ones could keep everybody out.
            next(iter(self._talks.values())).transport.abort()
        self._talks[task] = writer
        under_way: set[asyncio.Task[None]] = set()
        try:
            # A client that leaves, is slow or says something that no DNS client says is not worth a word.
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async for packet in self._packets(task, reader):
                    await self._reply(writer, packet, under_way)
            if under_way:
                await asyncio.wait(under_way, timeout=self._limits.idle)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._limits.idle):
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except asyncio.CancelledError:
            pass  # the server closes
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a connection failed")
        finally:
            for each in under_way:
                each.cancel()
            del self._talks[task]
            writer.transport.abort()

    async def _packets(self, task: asyncio.Task[Any], reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
        while True:
            async with asyncio.timeout(self._limits.idle):
                size = int.from_bytes(await reader.readexactly(2), "big")
                packet = await reader.readexactly(size)
            self._talks[task] = self._talks.pop(task)  # the last to be closed when there is no room
            yield packet

    async def _reply(self, writer: asyncio.StreamWriter, packet: bytes, under_way: set[asyncio.Task[None]]) -> None:
        found = self._responder.respond(packet, stream=True)
        if found is None:
            raise EOFError
        if isinstance(found, Query):
            task = asyncio.create_task(self._complete_stream(writer, found))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            if len(under_way) >= self._limits.at_a_time:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        else:
            _write(writer, found)
        async with asyncio.timeout(self._limits.idle):
            await writer.drain()

    async def _complete_stream(self, writer: asyncio.StreamWriter, query: Query) -> None:
        try:
            response = await self._responder.complete(query, stream=True)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a query could not be completed")
        else:
            if not writer.is_closing():
                _write(writer, response)


def _write(writer: asyncio.StreamWriter, response: bytes) -> None:
    writer.write(len(response).to_bytes(2, "big") + response)


def _send(udp: socket.socket, response: bytes, ancillary: list[Any], client: Any) -> None:
    """Send a packet from the address to which the query came; a packet that cannot be sent is lost, as packets are."""
    with contextlib.suppress(OSError):
        if ancillary:
            udp.sendmsg([response], [_back(each) for each in ancillary], 0, client)
        else:
            udp.sendto(response, client)


def _back(information: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """What the kernel told of where a packet arrived, as what it takes for where one is to leave from."""
    level, kind, data = information
    if level == socket.IPPROTO_IP:
        # struct in_pktinfo: the interface is routing's choice, the source is the address that was asked.
        _, local, asked = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
        return level, kind, _IN_PKTINFO.pack(0, local if local != bytes(4) else asked, bytes(4))
    # struct in6_pktinfo: the same, but a link-local address means something on its interface only.
    return information if data.startswith(b"\xfe\x80") else (level, kind, data[:16] + bytes(4))
