"""A node and a pod as two network namespaces with a link; servers in the pod that behave as badly as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from svcnat.kernel import netns, sysctl
from svcnat.kernel.links import Device, Veth, build

ADDRESSES = ("10.0.0.2", "fd00::2")
"""The pod's; the node has .1 and ::1."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Pair:
    """The two namespaces, by name."""

    def __init__(self, make_netns: Callable[[], str]) -> None:
        self.node, self.pod = make_netns(), make_netns()
        for each in (self.node, self.pod):
            with netns.entered(each):
                sysctl.write({"net/ipv6/conf/default/accept_dad": 0})  # or the first seconds are without IPv6
        near = Device(netns.path(self.node), "eth0", ("10.0.0.1/24", "fd00::1/64"))
        build([Veth(near, Device(netns.path(self.pod), "eth0", ("10.0.0.2/24", "fd00::2/64")))])

    def listener(self, address: str, port: int, *, backlog: int = 128) -> socket.socket:
        """A socket that listens in the pod."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.entered(self.pod):
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(backlog)
        return made

    @contextlib.asynccontextmanager
    async def serving(
        self, serve: Serve, port: int = 80, *, tls: ssl.SSLContext | None = None, address: str = ADDRESSES[0]
    ) -> AsyncIterator[None]:
        """Serve every connection to a port of the pod by `serve`, until the block ends."""
        conversations: set[asyncio.Task[None]] = set()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            conversations.add(task)
            try:
                with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                    await serve(reader, writer)
            finally:
                conversations.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(converse, sock=self.listener(address, port), ssl=tls)
        try:
            yield
        finally:
            server.close()
            for each in tuple(conversations):
                each.cancel()
            await asyncio.gather(*conversations, return_exceptions=True)
            await server.wait_closed()


def sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(file))  # noqa: PTH115 - what it names is no path
    return {each for each in found if each.startswith("socket:")}


def self_signed(folder: Path) -> ssl.SSLContext:
    """The TLS of a server whose certificate nobody has signed, for another name, and with a weak key."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", "1", "-subj", "/CN=elsewhere"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(certificate, key)
    return context
