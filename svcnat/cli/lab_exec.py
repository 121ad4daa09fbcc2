"""Run a command in a pod, a node or a client of a lab.

WHERE is a pod's name (of the namespace that -n names), NAMESPACE/POD, deployment/NAME or another TYPE/NAME that has
pods, one of which is chosen, a node's name, client, client-2, ... or router. Without --lab every lab is searched. In a
pod the command has the pod's network, host name, /etc/hosts and /etc/resolv.conf, and the environment of the container
beside that of the caller. It sees the pod's processes and no others, if the pod has any: ps lists them, kill ends them.
The exit code is the command's.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from svcnat.cli.pod_choice import choose
from svcnat.errors import UsageError

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.lab.labs import Lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab exec``."""
    parser.usage = f"{parser.prog} [flags] WHERE -- COMMAND [ARGUMENT...]"
    parser.add_argument("where", metavar="WHERE", help="a pod, node or client")
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)  # the place, after a lab's name
    parser.add_argument("-c", "--container", default="", metavar="NAME", help="whose environment (default: the first)")
    # Commands always have our standard input, and our terminal.
    parser.add_argument("-i", "--stdin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-t", "--tty", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Run the command after ``--``, with our standard input and output."""
    from svcnat import api

    if options.stray:
        raise UsageError(
            "say one place to run it in, and which lab by --lab LAB: "
            "svcnat --lab LAB exec WHERE -- COMMAND [ARGUMENT...]"
        )
    namespace = options.namespace or "default"
    name, where = choose(options.where, namespace, options.lab)
    with api.Lab.find(name) as lab:
        sys.stdout.flush()
        code = _run(lab.built, where, options.command, namespace, options.container)
    return code if code >= 0 else 128 - code


def _run(lab: Lab, where: str, command: list[str], namespace: str, container: str) -> int:
    """Run a command to its end, and let it decide what signals mean: a shell goes on after Ctrl-C, and so must we.

    The terminal sends its signals to both of us; what somebody sends to this process is passed on.
    """
    running: subprocess.Popen[Any] | None = None
    early: list[int] = []

    def pass_on(number: int, _: object) -> None:
        if running:
            running.send_signal(number)
        else:
            early.append(number)

    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: pass_on, signal.SIGHUP: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        running = lab.spawn(where, command, namespace, container)
        for number in early:
            running.send_signal(number)
        return running.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
