"""A program that goes on in its child, while this process stands by for whoever started it.

That is how a program gets into a PID namespace: its parent, its shell, its service manager know this process, and find
here its exit code, and one to send signals to. It does not decide why. Source: pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from svcnat.kernel import syscalls

_PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_WATCHED = {signal.SIGCHLD, *_PASSED_ON}


def hand_over(ended: Callable[[], None]) -> None:
    """Return in a child; this process waits for it, calls `ended`, and ends as the child did, without any clean-up.

    The child is killed if this process is. A process with threads would lose them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    child = os.fork()
    if not child:
        syscalls.die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    code = 1
    try:
        code = os.waitstatus_to_exitcode(_attend(child))
        ended()
    finally:
        _end(code)


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only their number is wanted


def _attend(child: int) -> int:
    """Pass signals on until the child has ended; its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        said = signal.sigwaitinfo(_WATCHED)
        if said.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
        # What the kernel sends, for a terminal, it sends to the child as well.
        elif said.si_code <= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, said.si_signo)


def _end(code: int) -> None:
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.kill(os.getpid(), -code)
        code = 128 - code
    os._exit(code)
