"""Clients and servers that talk through a node's rules all the time: who answered whom, when, and what went wrong.

Both run in threads of the test's process. A server answers every line, or datagram, with its pod's name.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import threading
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from svcnat.kernel import netns
from tests.bed import ADDRESSES, Bed

PATIENCE = 10.0  # seconds for an answer: far more than any that comes takes
_AGAIN = 2.0  # seconds until a client of UDP that stays asks once more
_FIRST_PORT, _PORTS = 10_000, 20_000
"""Of datagrams: a port that comes twice would be the same flow, and the kernel's own choice repeats itself."""
T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """A connection, a datagram, or a line of a connection that lasts: its moments (monotonic), and the outcome."""

    kind: str
    to: str
    began: float
    ended: float
    result: str
    """The pod that answered, or what went wrong."""


class Servers:
    """Pods that answer on one port, over TCP and UDP; a context manager, of which each pod can leave and come back."""

    def __init__(self, bed: Bed, port: int, pods: Iterable[str]) -> None:
        self._bed, self._port = bed, port
        self._open: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._talks: set[asyncio.Task[None]] = set()
        self._first = tuple(pods)

    def __enter__(self) -> Servers:
        self._thread.start()
        for pod in self._first:
            self.open(pod)
        return self

    def __exit__(self, *_: object) -> None:
        for pod in tuple(self._open):
            self.close(pod)
        self._do(self._hang_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, pod: str) -> None:
        """Let a pod answer."""
        made = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with netns.entered(self._bed.netns(pod)):
                server = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("::", self._port))
            made.append(server)
        made[0].listen(512)
        self._open[pod] = (made[0], made[1])
        self._do(self._listen(pod, *made))

    def close(self, pod: str) -> None:
        """Let a pod end as a graceful server does: whoever came before now gets an answer, nobody who comes later."""
        self._do(self._leave(pod, *self._open.pop(pod)))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(60)

    async def _listen(self, pod: str, stream: socket.socket, datagrams: socket.socket) -> None:
        self._loop.add_reader(stream, self._accept, pod, stream)
        self._loop.add_reader(datagrams, self._echo, pod, datagrams)

    async def _leave(self, pod: str, stream: socket.socket, datagrams: socket.socket) -> None:
        self._accept(pod, stream)
        self._echo(pod, datagrams)
        for each in (stream, datagrams):
            self._loop.remove_reader(each)
            each.close()

    async def _hang_up(self) -> None:
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _accept(self, pod: str, stream: socket.socket) -> None:
        while True:
            try:
                connection, _ = stream.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            talk = self._loop.create_task(self._talk(pod, connection))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)

    async def _talk(self, pod: str, connection: socket.socket) -> None:
        with connection:
            try:
                while await self._loop.sock_recv(connection, 64):
                    await self._loop.sock_sendall(connection, pod.encode())
            except OSError:
                pass  # the client sees it, too

    def _echo(self, pod: str, datagrams: socket.socket) -> None:
        while True:
            try:
                _, client = datagrams.recvfrom(64)
            except BlockingIOError:
                return
            datagrams.sendto(pod.encode(), client)


class Load(threading.Thread):
    """Clients in one namespace: new connections at a steady rate, by turns to each destination, and old ones.

    A client of UDP that stays asks once more if it hears nothing, as such clients do: an answer that is under way while
    the flow's endpoint is removed is lost. It is counted.

    Beside every fourth new connection a datagram is sent, by turns from a new socket and from one of a few that stay;
    and over one connection to each destination, which lasts, a line. A context manager; :attr:`attempts` are complete
    after it.
    """

    KEPT = 4  # sockets for datagrams to each destination

    def __init__(self, where: str, destinations: Iterable[tuple[str, int]], rate: float, *, lasting: bool = True):
        super().__init__()
        self.attempts: list[Attempt] = []
        self.repeated = 0
        self._where, self._destinations, self._rate, self._lasting = where, tuple(destinations), rate, lasting
        self._ending = threading.Event()
        self._begun = threading.Event()
        self._wrong: list[BaseException] = []

    def __enter__(self) -> Load:
        self.start()
        assert self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()
        if self._wrong:
            raise self._wrong[0]

    @property
    def failures(self) -> list[Attempt]:
        """What no pod answered."""
        return [each for each in self.attempts if each.result not in ADDRESSES]

    def count(self, *kinds: str) -> int:
        """How many attempts there were of these kinds: connection, datagram, kept, lasting."""
        return sum(each.kind in kinds for each in self.attempts)

    def run(self) -> None:
        """Work, until it ends."""
        try:
            with netns.entered(self._where):
                asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by __exit__
            self._wrong.append(error)
        finally:
            self._begun.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        kept = [[_socket(to, socket.SOCK_DGRAM) for _ in range(self.KEPT)] for to in self._destinations]
        lasting = [_socket(to, socket.SOCK_STREAM) for to in self._destinations if self._lasting]
        locks = {each: asyncio.Lock() for each in itertools.chain(*kept, lasting)}
        try:
            for each, to in zip(lasting, self._destinations, strict=False):
                await loop.sock_connect(each, to)
            for sockets, to in zip(kept, self._destinations, strict=True):
                for each in sockets:
                    each.connect(to)
            start, number = loop.time(), 0
            async with asyncio.TaskGroup() as group:
                while not self._ending.is_set():
                    which = number % len(self._destinations)
                    group.create_task(self._connect(self._destinations[which]))
                    turn, beside = divmod(number // len(self._destinations), 4)
                    if beside == 0 and turn % 2:
                        group.create_task(self._send(self._destinations[which], _FIRST_PORT + number % _PORTS))
                    elif beside == 0:
                        sender = kept[which][turn // 2 % self.KEPT]
                        group.create_task(self._ask("kept", sender, self._destinations[which], locks[sender]))
                    elif beside == 1 and lasting:
                        line = lasting[which]
                        group.create_task(self._ask("lasting", line, self._destinations[which], locks[line]))
                    number += 1
                    if number == 8 * len(self._destinations):
                        self._begun.set()
                    await asyncio.sleep(max(0.0, start + number / self._rate - loop.time()))
        finally:
            for each in locks:
                each.close()

    async def _connect(self, to: tuple[str, int]) -> None:
        with _socket(to, socket.SOCK_STREAM) as client:
            await self._ask("connection", client, to, asyncio.Lock(), connect=True)

    async def _send(self, to: tuple[str, int], port: int) -> None:
        with _socket(to, socket.SOCK_DGRAM) as client:
            client.bind(("", port))
            client.connect(to)
            await self._ask("datagram", client, to, asyncio.Lock())

    async def _ask(
        self, kind: str, client: socket.socket, to: tuple[str, int], lock: asyncio.Lock, *, connect: bool = False
    ) -> None:
        """Ask over a socket, and note what came of it."""
        async with lock:
            result, began = "", time.monotonic()
            if kind == "kept" and not (result := await self._once(client, to, _AGAIN)):
                self.repeated += 1
                began = time.monotonic()
            result = result or await self._once(client, to, PATIENCE, connect=connect) or "silence"
            self.attempts.append(Attempt(kind, to[0], began, time.monotonic(), result))

    async def _once(self, client: socket.socket, to: tuple[str, int], patience: float, *, connect: bool = False) -> str:
        """Who answers; "" if nobody does."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience):
                if connect:
                    await loop.sock_connect(client, to)
                await loop.sock_sendall(client, b"?")
                return (await loop.sock_recv(client, 64)).decode() or "closed"
        except TimeoutError:
            return ""
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))


def _socket(to: tuple[str, int], kind: int) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
