"""Runs the command of an exec probe in a network namespace, and ends it, with all that it started, when it must.

It must when its time is over, when nobody wants the probe any more, and when the agent is killed.

A :data:`svcnat.agent.attempts.Runner` that knows which namespace a container's is can be made of :func:`run`, and one
that knows more of the container than its network of :func:`run_by`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from svcnat.agent.attempts import Ran
from svcnat.agent.probes import Where
from svcnat.kernel import netns

_MOST_READ = 10 * 1024
_AFTERMATH_SECONDS = 5.0


async def run(where: Where, command: Sequence[str]) -> Ran:
    """Run a command until it exits, and return its status and the beginning of what it said, errors included.

    When this is cancelled, the command and its children are killed first. Children that it leaves behind go on.

    Raises:
        OSError: there is no such command, or it may not be run.
        MissingError: the network namespace is not there.
        PrivilegeError: CAP_SYS_ADMIN is missing, to enter it.

    """

    def spawn(words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        with netns.entered(where):  # nothing is awaited in here
            return subprocess.Popen(list(words), **options)

    return await run_by(spawn, command)


async def run_by(spawn: Callable[..., subprocess.Popen[Any]], command: Sequence[str]) -> Ran:
    """Like :func:`run`; `spawn` starts a command, and takes the options of :class:`subprocess.Popen`."""
    with _leash() as (held, tie):
        return await _run(functools.partial(spawn, pass_fds=(held,)), command, tie)


@contextlib.contextmanager
def _leash() -> Iterator[tuple[int, Callable[[int], None]]]:
    """A descriptor for a command to inherit; its process group, once it is tied to it, is killed when we are.

    It is a pipe's: when its other end is closed, by us or by the kernel in our place, the kernel sends the signal
    (F_SETOWN and F_SETSIG, fcntl(2)). PR_SET_PDEATHSIG would not do: threads that enter namespaces start commands, and
    end at once. Whoever closes what it inherited is let off, and so is what a command leaves behind when it has ended.
    """
    held, ours = os.pipe()

    def tie(group: int) -> None:
        fcntl.fcntl(held, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(held, fcntl.F_SETOWN, -group)
        fcntl.fcntl(held, fcntl.F_SETFL, os.O_ASYNC)

    try:
        yield held, tie
    finally:
        fcntl.fcntl(held, fcntl.F_SETFL, 0)
        os.close(ours)
        os.close(held)


async def _run(spawn: Callable[..., subprocess.Popen[Any]], command: Sequence[str], tie: Callable[[int], None]) -> Ran:
    process = spawn(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    tie(process.pid)
    assert process.stdout is not None
    output = bytearray()
    loop = asyncio.get_running_loop()
    pipe = process.stdout.fileno()
    handle = os.pidfd_open(process.pid)
    exited = asyncio.Event()
    os.set_blocking(pipe, False)

    def read() -> None:
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return
        output.extend(data[: _MOST_READ - len(output)])
        if not data:
            loop.remove_reader(pipe)

    try:
        loop.add_reader(pipe, read)
        loop.add_reader(handle, exited.set)
        await exited.wait()
        read()
    finally:
        if not exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A process that the kernel holds on to ends when it may; we do not wait for ever.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(exited.wait(), _AFTERMATH_SECONDS)
        loop.remove_reader(handle)
        loop.remove_reader(pipe)
        os.close(handle)
        process.stdout.close()
        code = process.poll()
    return Ran(-1 if code is None else code, bytes(output))
