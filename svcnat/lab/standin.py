"""The stand-in process of a lab, ``python -m svcnat.lab.standin FOLDER``: servers for the pods, in one process.

A socket keeps the network namespace that it was opened in, so this process opens the ports of every pod inside the
pod's namespace and serves them all from one event loop. It is told what to serve through a socket handed down as
descriptor 3 (:mod:`svcnat.lab.control`), and exits when its lab's folder goes. It neither makes namespaces nor knows
the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from svcnat.errors import SvcnatError
from svcnat.kernel import netns, unix
from svcnat.lab.channel import LISTENER
from svcnat.lab.control import (
    Answer,
    Close,
    Control,
    Identify,
    Open,
    Port,
    Request,
    Served,
    StandIn,
    Stop,
)
from svcnat.lab.conversation import Conversation, answer_datagrams, open_datagrams

_BACKLOG = 4096
_ARRIVING = 0.02  # seconds for connections on their way when the rules stopped sending any
_LOOK_ROUND = 1.0
_KEYS_AN_ANSWER = 1000
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Servers:
    """Everything that one pod listens on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._listeners: list[asyncio.Server] = []
        self._datagrams: list[socket.socket] = []
        self._conversations: set[Conversation] = set()

    async def open(self, namespace: str, ports: Iterable[Port]) -> tuple[str, ...]:
        """Listen on `ports` in a network namespace, in both families; the answer is what did not work, and why.

        Raises:
            MissingError: there is no such namespace.

        """
        loop = asyncio.get_running_loop()
        failures: dict[str, None] = {}
        streams: list[socket.socket] = []
        with netns.entered(namespace):  # nothing is awaited in here
            for port in ports:
                for family in _FAMILIES:
                    try:
                        if port.protocol == "UDP":
                            self._datagrams.append(open_datagrams(family, port.number))
                        else:
                            streams.append(_open_stream(family, port))
                    except OSError as error:
                        failures[f"port {port.number}/{port.protocol}: {error.strerror}"] = None
        for server in self._datagrams:
            loop.add_reader(server, answer_datagrams, server, self._name)
        for stream in streams:
            listener = await loop.create_server(self._converse, sock=stream, backlog=_BACKLOG)
            self._listeners.append(listener)
        return tuple(failures)

    def _converse(self) -> Conversation:
        return Conversation(self._name, self._conversations)

    async def drain(self, grace: float) -> None:
        """Wait until every client that asked has its answer, for at most `grace` seconds."""
        clock = asyncio.get_running_loop().time
        end = clock() + grace
        while any(conversation.busy for conversation in self._conversations) and clock() < end:
            await asyncio.sleep(_ARRIVING / 4)

    def close(self) -> None:
        """Close every socket."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.close()
        for server in self._datagrams:
            loop.remove_reader(server)
            server.close()
        for conversation in tuple(self._conversations):
            conversation.hang_up()


def _open_stream(family: socket.AddressFamily, port: Port) -> socket.socket:
    protocol = socket.IPPROTO_SCTP if port.protocol == "SCTP" else socket.IPPROTO_TCP
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, protocol)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("", port.number))
        server.listen(_BACKLOG)  # with SO_REUSEADDR it is this that finds a port in use
    except OSError:
        server.close()
        raise
    return server


class Process:
    """The pods that are served, and the requests of the lab."""

    def __init__(self) -> None:
        self._pods: dict[str, Servers] = {}
        self.stopping = asyncio.Event()

    async def answer(self, data: bytes) -> Answer:
        """Do what a request says."""
        try:
            match msgspec.json.decode(data, type=Request):
                case Open(pods):
                    return Answer(
                        failures={pod.key: await self._open(pod) for pod in pods if pod.key not in self._pods}
                    )
                case Close(keys, grace):
                    await self._close(keys, grace)
                case Served(after):
                    return Answer(keys=tuple(sorted(key for key in self._pods if key > after)[:_KEYS_AN_ANSWER]))
                case Identify():
                    return Answer(pid=os.getpid())
                case Stop():
                    self.stopping.set()
        except (SvcnatError, OSError, msgspec.MsgspecError) as error:
            return Answer(error=str(error))
        return Answer()

    async def _open(self, pod: StandIn) -> tuple[str, ...]:
        servers = Servers(pod.name)
        failures = await servers.open(pod.netns, pod.ports)
        self._pods[pod.key] = servers
        return failures

    async def _close(self, keys: Iterable[str], grace: float) -> None:
        going = [self._pods.pop(key) for key in keys if key in self._pods]
        if going and grace:
            await asyncio.sleep(_ARRIVING)
            await asyncio.gather(*(servers.drain(grace) for servers in going))
        for servers in going:
            servers.close()
        await asyncio.sleep(0)  # asyncio closes what it was told to close on the next turn

    def close(self) -> None:
        """Close every socket of every pod."""
        for servers in self._pods.values():
            servers.close()


async def _listen(process: Process, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    conversations: set[asyncio.Task[None]] = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        task = asyncio.create_task(_converse(process, connection))
        conversations.add(task)
        task.add_done_callback(conversations.discard)


async def _converse(process: Process, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(connection, unix.LARGEST):
            await loop.sock_sendall(connection, msgspec.json.encode(await process.answer(data)))


async def _look_round(process: Process, path: Path) -> None:
    """Stop the process when its control socket is gone, or another's: the lab is no more."""
    mine = _inode(path)
    while mine is not None and _inode(path) == mine:
        await asyncio.sleep(_LOOK_ROUND)
    process.stopping.set()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


async def _serve(folder: Path) -> None:
    process = Process()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stopping.set)
    with socket.socket(fileno=LISTENER) as listener:
        listener.settimeout(0)
        tasks = (
            asyncio.create_task(_listen(process, listener)),
            asyncio.create_task(_look_round(process, folder / Control.socket_name)),
        )
        await process.stopping.wait()
        process.close()
        await asyncio.sleep(0)  # the last answers are written, and asyncio closes what it was told to close
        for task in tasks:
            task.cancel()


def _raise_descriptor_limit() -> None:
    """Allow as many sockets as this process may have: a pod of two ports has eight."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(Path("/proc/sys/fs/nr_open").read_text(encoding="utf-8"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Serve the lab in the folder that the command line names, until told to stop."""
    folder = Path(sys.argv[1])
    os.chdir("/")
    os.closerange(LISTENER + 1, os.sysconf("SC_OPEN_MAX"))  # whatever the command that started us had open
    _raise_descriptor_limit()
    asyncio.run(_serve(folder))


if __name__ == "__main__":
    main()
