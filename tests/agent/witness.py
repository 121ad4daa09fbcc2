"""Who can tell whether rules are untouched: by packets that pass, and by the generation, which any commit moves."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator

from svcnat.kernel import netns
from svcnat.kernel.nfnetlink import Connection

ENDPOINTS = ("192.0.2.7", "192.0.2.8")
_PATIENCE = 5.0  # seconds, for a connection that is answered at once


class Witness:
    """A network namespace in which the endpoints of :func:`tests.agent.running.web` answer; a context manager."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Witness:
        with netns.entered(self._where):
            # What nobody translates is refused at once: cluster IPs are the host's own, and nobody listens there.
            lines = "link set lo up", "route add local 10.96.0.0/12 dev lo"
            lines += tuple(f"address add {each}/32 dev lo" for each in ENDPOINTS)
            subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
            self._connection = self._stack.enter_context(contextlib.closing(Connection()))
            for each in ENDPOINTS:
                server = self._stack.enter_context(socket.create_server((each, 8080)))
                thread = threading.Thread(target=_answer, args=(server,))
                thread.start()
                self._stack.callback(thread.join)
                self._stack.callback(server.shutdown, socket.SHUT_RDWR)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reaches(self, number: int = 1) -> bool:
        """True if a connection to a Service arrives at an endpoint."""
        with netns.entered(self._where), socket.socket() as client:
            client.settimeout(_PATIENCE)
            try:
                client.connect((f"10.96.{1 + number // 250}.{1 + number % 250}", 80))
            except ConnectionRefusedError:
                return False
            return client.recv(2) == b"ok"

    @contextlib.contextmanager
    def untouched(self, *services: int) -> Iterator[None]:
        """Prove that what happens in the block moves no rule, and that these Services are served afterwards."""
        before = self._connection.generation()
        yield
        assert self._connection.generation() == before, "somebody wrote rules"
        assert all(map(self.reaches, services or (1,))), "a Service is not served"


def _answer(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            with server.accept()[0] as caller:
                caller.sendall(b"ok")
