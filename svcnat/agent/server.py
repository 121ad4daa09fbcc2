"""The agent's end of its talk with commands, in its event loop; the words are :mod:`svcnat.agent.control`'s."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import resource
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec

from svcnat.agent.control import GROUP, Answer, Client, Request
from svcnat.errors import KernelError, SvcnatError
from svcnat.kernel import unix

_BACKLOG = 128
_LOOK_SECONDS = 1.0  # between two looks whether the socket's name is still there
_PAUSE = 0.2  # seconds, when no more files can be opened
_SILENCE_SECONDS = 5.0  # who asks for nothing for so long has to make room for others

_log = logging.getLogger(__name__)


class Server:
    """The agent's end; requests are answered by `answer`, watchers are told for as long as it yields."""

    def __init__(self, path: Path, answer: Callable[[Request], AsyncGenerator[Answer, None]]) -> None:
        self._path = path
        self._answer = answer
        self._listening: socket.socket | None = None
        self._file = (0, 0)  # device and inode of the socket's name
        self._tasks: set[asyncio.Task[None]] = set()
        self._crowded = False  # and that was told
        self._silent: dict[asyncio.Task[None], float] = {}  # since when they have asked for nothing

    def open(self) -> None:
        """Listen, in the place of an agent that is gone; only the holder of the writer's lock may.

        Raises:
            KernelError: another agent listens there, or the socket cannot be made.

        """
        other = Client.find(self._path, patience=1.0)
        if other:
            other.close()
            raise KernelError("another agent follows the same objects: one agent keeps all their namespaces")
        try:
            _make_way(self._path.parent)
            listening = unix.listen(self._path, backlog=_BACKLOG)
        except OSError as error:
            raise self._cannot_listen(error) from error
        try:
            listening.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            self._path.chmod(0o600)
            # Without the group, or the right to give the file to it, the agent is its user's alone.
            with contextlib.suppress(KeyError, PermissionError):
                os.chown(self._path, -1, grp.getgrnam(GROUP).gr_gid)
                self._path.chmod(0o660)
            status = self._path.stat()
        except OSError as error:
            listening.close()
            raise self._cannot_listen(error) from error
        self._listening, self._file = listening, (status.st_dev, status.st_ino)

    def _cannot_listen(self, error: OSError) -> KernelError:
        return KernelError(f"cannot listen at {self._path}: {error.strerror}; SVCNAT_RUNTIME_DIR names another folder")

    async def serve(self) -> None:
        """Answer whoever calls, until cancelled."""
        told = ""
        while True:
            accepting = asyncio.create_task(self._accept())
            try:
                while self._is_there():
                    await asyncio.wait((accepting,), timeout=_LOOK_SECONDS)
                    if accepting.done():
                        accepting.result()  # a mistake: it never ends by itself
            finally:
                accepting.cancel()
                await asyncio.gather(accepting, return_exceptions=True)
            # Somebody removed the folder, as systemd does when another unit that shares it ends.
            try:
                self._stop_listening()
                self.open()
                _log.warning("the socket for commands was gone, and is there again: %s", self._path)
                told = ""
            except KernelError as error:
                if str(error) != told:
                    told = str(error)
                    _log.error("commands cannot ask this agent: %s", error)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while self._listening:
            try:
                caller, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                # Too many files are open, say: those who call wait, and the rules are kept all the same.
                _log.warning("a command has to wait: %s", error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            task = asyncio.create_task(self._converse(caller))
            self._tasks.add(task)
            self._silent[task] = asyncio.get_running_loop().time()
            task.add_done_callback(self._forget)
            await self._make_room()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._silent.pop(task, None)

    async def _make_room(self) -> None:
        """Leave most files that may be open to the rules: further callers wait, until others go or are silent."""
        most = _share()
        self._crowded = self._crowded and len(self._tasks) > most // 2
        while len(self._tasks) > most:
            if not self._crowded:
                _log.warning("a command has to wait: too many talk to the agent")
                self._crowded = True
            for task, since in tuple(self._silent.items()):
                if asyncio.get_running_loop().time() - since > _SILENCE_SECONDS:
                    task.cancel()
            await asyncio.wait(self._tasks, timeout=_PAUSE, return_when=asyncio.FIRST_COMPLETED)
            most = _share()

    def _is_there(self) -> bool:
        """True if whoever opens the path gets to us."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening.close()
            self._listening = None

    async def close(self) -> None:
        """Hang up on everybody, and take the socket away."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stop_listening()
        if self._is_there():
            self._path.unlink(missing_ok=True)

    async def _converse(self, caller: socket.socket) -> None:
        """Answer one request after the other; when the caller hangs up, nothing of the conversation stays."""
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this
        with caller, contextlib.suppress(OSError):
            packet = await loop.sock_recv(caller, unix.LARGEST)
            while packet:
                self._silent.pop(this, None)
                replying = asyncio.create_task(self._reply(caller, packet))
                coming = asyncio.create_task(loop.sock_recv(caller, unix.LARGEST))
                try:
                    await asyncio.wait((replying, coming), return_when=asyncio.FIRST_COMPLETED)
                    if coming.done() and not coming.result():
                        return
                    await replying
                    self._silent[this] = loop.time()
                    packet = await coming
                finally:
                    replying.cancel()
                    coming.cancel()
                    await asyncio.gather(replying, coming, return_exceptions=True)

    async def _reply(self, caller: socket.socket, packet: bytes) -> None:
        try:
            request: Request = msgspec.json.decode(packet, type=Request)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            await _send(caller, Answer(error=f"not a request: {error}"))
            return
        try:
            async with contextlib.aclosing(self._answer(request)) as answers:
                async for answer in answers:
                    await _send(caller, answer)
        except SvcnatError as error:
            await _send(caller, Answer(error=str(error)))


def _share() -> int:
    """How many callers may have one of the process's files; pages and probes have as many."""
    return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def _make_way(folder: Path) -> None:
    """Make the folder of sockets and the one above; others may pass, whatever the umask: a socket says who may ask."""
    for each in (folder.parent, folder):
        try:
            each.mkdir(parents=True)
        except FileExistsError:
            continue
        each.chmod(0o755)


async def _send(caller: socket.socket, answer: Answer) -> None:
    await asyncio.get_running_loop().sock_sendall(caller, msgspec.json.encode(answer))
