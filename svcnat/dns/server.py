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
from typing import Any, Protocol, Self

from svcnat.dns import wire
from svcnat.dns.listening import Listening
from svcnat.dns.responder import Responder
from svcnat.dns.wire import Query

_BATCH = 64  # packets at a time, before others get their turn
_MOST_WAITING = 1000  # queries for which others are being asked
_ARRIVING = 0.02  # seconds for queries on their way when a server is to end
_LAST_BATCHES = 16
_LAST_SECONDS = 0.5  # for others' answers

_log = logging.getLogger(__name__)
_IN_PKTINFO = struct.Struct("=I4s4s")


@dataclass(frozen=True, slots=True)
class Limits:
    """What TCP clients may take: connections, seconds without a query or without reading, queries at a time."""

    connections: int = 256
    idle: float = 10.0
    at_a_time: int = 32


class News(Protocol):
    """Whoever knows whether the records are as they should be."""

    def is_behind(self) -> bool:
        """Tell, at next to no cost, whether they are not."""
        ...

    async def catch_up(self) -> None:
        """Wait until they are, but not for long."""
        ...


class Server:
    """Answers on sockets, which it closes at the end; an async context manager.

    No answer is older than its question: what `news` tells of is waited for.
    """

    def __init__(
        self,
        responder: Responder,
        sockets: Sequence[Listening],
        limits: Limits = Limits(),
        news: News | None = None,
    ) -> None:
        self._responder, self._sockets, self._limits, self._news = responder, sockets, limits, news
        self._pausing: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._talks: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        for each in self._sockets:
            asyncio.get_running_loop().add_reader(each.udp, self._read, each.udp)
            self._servers.append(await asyncio.start_server(self._converse, sock=each.tcp, limit=4096))
        return self

    async def __aexit__(self, *_: object) -> None:
        # Whoever asked before others were told to go elsewhere has an answer.
        await asyncio.sleep(_ARRIVING)
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each.udp)
            for _batch in range(_LAST_BATCHES):
                if not self._take(each.udp):
                    break
        for server in self._servers:
            server.close()
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=_LAST_SECONDS)
        tasks = [*self._pausing, *self._waiting, *self._talks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()

    # --- UDP -------------------------------------------------------------------------------------------------

    def _read(self, udp: socket.socket) -> None:
        """Answer the packets that have arrived."""
        if self._news and self._news.is_behind():
            task = asyncio.create_task(self._pause(udp, self._news))
            self._pausing.add(task)
            task.add_done_callback(self._pausing.discard)
            return
        self._take(udp)

    async def _pause(self, udp: socket.socket, news: News) -> None:
        """Leave packets where they are until the records are up to date."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(udp)
        await news.catch_up()
        self._take(udp)
        loop.add_reader(udp, self._read, udp)

    def _take(self, udp: socket.socket) -> bool:
        """Answer some packets; False if none is left."""
        for _ in range(_BATCH):
            try:
                packet, ancillary, _, client = udp.recvmsg(wire.LARGEST, 64)
            except OSError:
                return False
            self._answer(udp, packet, ancillary, client)
        return True

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
        if self._news:
            await self._news.catch_up()
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
