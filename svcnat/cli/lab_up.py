"""Build a lab: nodes, clients and pods as network namespaces.

PATHs hold manifests, and perhaps one Topology (nodes, clients, address ranges). Without one the lab has one
node and one client. All of it or nothing is built; then pods with readiness probes are waited for.

A lab has DNS, as a cluster has, if the extra "dns" is installed and the Topology does not say `dns: false`: the Service
kube-system/kube-dns and pods that answer for it. Pods of kube-system are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from svcnat.cli import session
from svcnat.cli.terminal import counted, say, say_warnings, visible
from svcnat.errors import UsageError
from svcnat.model.objects import Pod
from svcnat.model.pods import has_ended, is_ready

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Lab

DEFAULT_NAME = "lab"

_MOST_NAMED = 10
_KILLED = 128  # to which a shell adds the number of the signal that ended a command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab up``."""
    parser.add_argument("name", nargs="?", help=f"what to call it (default: {DEFAULT_NAME})")
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)  # a manifest without -f
    session.add_manifest_flags(parser, required=False)
    parser.add_argument(
        "--rootless",
        action="store_true",
        help="build it in a user namespace of its own, without root; every other verb finds it there",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for readiness probes and init containers (default: 60); the lab is up all the same",
    )


def _seconds(text: str) -> float:
    """A number of seconds, with kubectl's unit or without."""
    return max(0.0, float(text.removesuffix("s")))


def run(options: argparse.Namespace) -> int:
    """Build the lab and say what is in it."""
    from svcnat import api
    from svcnat.lab.names import SYSTEM

    if options.stray or "/" in (options.name or ""):
        path = visible(options.stray[0] if options.stray else options.name)
        raise UsageError(f"{path} is not the lab's name: if these are manifests, say -f {path}")
    name = options.lab = (options.lab or DEFAULT_NAME) if options.name is None else options.name
    progress = _Progress()
    try:
        with _ending_orderly():
            lab = api.Lab.up(
                name,
                wanted=session.load_lab(options),
                timeout=options.timeout,
                progress=progress,
                rootless=options.rootless,
            )
    finally:
        progress.end()
    with lab:
        with lab.read() as snapshot:
            pods = [pod for pod in snapshot.list(Pod) if pod.metadata.namespace != SYSTEM]
        nodes, clients = len(lab.built.nodes), len(lab.built.clients)
        attended, nameless = lab.attended, lab.nameless
    contents = ", ".join(counted(*item) for item in ((nodes, "node"), (len(pods), "pod"), (clients, "client")))
    print(visible(f"lab {name} is up: {contents}"))
    if not attended:
        say(f"lab {name} has no agent, which needs pip install '.[agent]': commands make its rules, nobody probes")
    if nameless:
        say(f"lab {name} has no DNS, which needs pip install '.[dns]': names of services do not resolve")
    if options.rootless:
        _say_users(lab)
    _say_unready(name, [pod for pod in pods if not is_ready(pod) and not has_ended(pod)])
    return 0


@contextlib.contextmanager
def _ending_orderly() -> Iterator[None]:
    """Take a request to end, of timeout(1) or a terminal that goes, as Ctrl-C: half a lab does not stay."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # nohup(1) has one of them ignored.
    ours = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _give_up)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _give_up(number: int, _: object) -> None:
    raise SystemExit(_KILLED + number)


def _say_users(lab: Lab) -> None:
    from svcnat.kernel import userns
    from svcnat.lab import names, state

    name, pods = lab.built.name, state.read(lab.built.folder).pods
    ours = names.pod(name, "kube-system", "")
    if userns.users() == 1 and any(pod.manned for key, pod in pods.items() if not key.startswith(ours)):
        say(
            f"lab {name} has one user, root: programs that become another fail; newuidmap, with ranges in /etc/subuid "
            "and /etc/subgid, gives it more"
        )


def _say_unready(name: str, pods: list[Pod]) -> None:
    if pods:
        names = [pod.metadata.qualified_name for pod in pods[:_MOST_NAMED]]
        more = f" and {len(pods) - _MOST_NAMED} more" if len(pods) > _MOST_NAMED else ""
        say_warnings([f"not ready: {', '.join(names)}{more}: `svcnat --lab {name} describe pods` tells why"])


class _Progress:
    """How many pods are ready, on a terminal: one line that is overwritten, and gone in the end."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, ready: int, pods: int) -> None:
        if sys.stderr.isatty():
            text = f"waiting for pods: {ready} of {pods} ready"
            print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
            self._width = len(text)

    def end(self) -> None:
        """Take the line away."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)
            self._width = 0
