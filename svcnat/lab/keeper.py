"""The keeper of a rootless lab, ``python -m svcnat.lab.keeper FILE``: holds the namespaces that the lab is in.

It is the init of a PID namespace, in user and mount namespaces of its own, with a ``/run/netns`` and a ``/proc`` of its
own: when it ends, so does every process of the lab, and with them all mounts and network namespaces, however it ended.
It does so by itself when FILE has gone and nobody who came from outside is there any more. On descriptor 3 it says
:data:`READY` when all is in place, or what went wrong. It knows nothing of labs (:mod:`svcnat.lab.rootless`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from svcnat.errors import SvcnatError
from svcnat.kernel import links, netns, surroundings
from svcnat.lab.channel import LISTENER

READY = "ready"

_LOOK_ROUND = 1.0
_PARENT = 1  # field 4 of proc_pid_stat(5), counted after the command's closing parenthesis


def main() -> None:
    """Hold the namespaces until the file that the command line names has gone."""
    file = Path(sys.argv[1])
    os.chdir("/")
    os.closerange(LISTENER + 1, os.sysconf("SC_OPEN_MAX"))
    trouble = _furnish()
    with contextlib.suppress(BrokenPipeError):
        os.write(LISTENER, (trouble or READY).encode())
    os.close(LISTENER)
    if trouble:
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while file.exists() or _has_visitors():
        signal.sigtimedwait({signal.SIGCHLD}, _LOOK_ROUND)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _furnish() -> str:
    """Make the mounts, and a loopback that works; the answer is what went wrong, if something did."""
    try:
        if not netns.isolate_run():
            return "it has no namespaces of its own"
        if not surroundings.begin_apart():
            return (
                "/proc cannot be mounted, as parts of it are hidden here: in a container, --security-opt unmask=ALL "
                "(podman) or systempaths=unconfined (docker) shows them"
            )
        links.bring_up("lo")
    except (SvcnatError, OSError) as error:
        return str(error)
    return ""


def _has_visitors() -> bool:
    """True if there is a process whose parent is outside."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and folder.name != "1":
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                if int(stat[_PARENT]) == 0:
                    return True
    return False


if __name__ == "__main__":
    main()
