"""A server in a thread of its own, in a network namespace, and talking to it by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from svcnat.dns.forwarding import Forwarder
from svcnat.dns.listening import Address, listen
from svcnat.dns.records import Records
from svcnat.dns.responder import Responder
from svcnat.dns.server import Limits, Server
from svcnat.kernel import links, netns

PATIENCE = 20.0


def loopback(where: str) -> str:
    """Bring the loopback of a namespace up, beside a device with addresses: glibc asks for families that there are."""
    links.build([links.Bridge(links.Device(netns.path(where), "unused", ("10.255.0.1/24", "fd00:255::1/64")))])
    return where


def opening_in(where: str) -> Callable[..., socket.socket]:
    """How a forwarder's sockets are opened in a namespace."""

    def opening(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        with netns.entered(where):
            return socket.socket(family, kind)

    return opening


@contextlib.contextmanager
def serving(
    where: str,
    records: Records,
    *addresses: str,
    upstreams: Callable[[], tuple[Address, ...]] | None = None,
    patience: float = 1.5,
    limits: Limits | None = None,
    port: int = 53,
) -> Iterator[Server]:
    """Answer at addresses of a namespace until the block ends."""
    began, loops = threading.Event(), []
    forwarder = Forwarder(upstreams, opening_in(where), patience=patience) if upstreams else None
    with netns.entered(where):
        sockets = [listen((address, port)) for address in addresses or ("127.0.0.1",)]
    server = Server(Responder(records, forwarder), sockets, limits or Limits())

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        async with server:
            began.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert began.wait(PATIENCE)
    try:
        yield server
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def udp(where: str, server: str = "127.0.0.1") -> socket.socket:
    """A client's socket."""
    with netns.entered(where):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    client.connect((server, 53))
    return client


def tcp(where: str, server: str = "127.0.0.1") -> socket.socket:
    """A client's connection."""
    with netns.entered(where):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        client.connect((server, 53))
    return client


def receive(connection: socket.socket) -> bytes:
    """One message from a connection; b"" if it ends."""
    size = _exactly(connection, 2)
    return _exactly(connection, int.from_bytes(size, "big")) if size else b""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except ConnectionError:
            return b""
        if not more:
            return b""
        data += more
    return data
