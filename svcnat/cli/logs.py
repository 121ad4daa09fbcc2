"""Print what a container of a lab's pod said, on its standard output and error.

Without --lab every lab is searched for the pod. Stand-ins say nothing. Logs are kept until the lab goes down, those of
former runs of a container too: the last ten, of each the last 5 to 10 MiB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from svcnat.cli.pod_choice import choose
from svcnat.cli.terminal import say
from svcnat.errors import LabError, NotFoundError, UsageError
from svcnat.model.objects import Pod

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.lab.labs import Lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``logs``."""
    parser.add_argument("pod", metavar="POD", help="the pod, as POD, or one of those of TYPE/NAME: deployment/web")
    parser.add_argument("-c", "--container", default="", metavar="NAME", help="which container (default: the first)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container ends")
    parser.add_argument("-p", "--previous", action="store_true", help="of the run before, if it was started again")
    parser.add_argument("--tail", type=int, default=-1, metavar="LINES", help="only so many lines at the end")


def run(options: argparse.Namespace) -> int:
    """Print the log."""
    from svcnat import api

    if options.follow and options.previous:
        raise UsageError("-f and -p cannot be given together: what ended says nothing more")
    if options.tail < -1:
        raise UsageError("--tail must be greater than or equal to -1")
    namespace = options.namespace or "default"
    found, name = choose(options.pod, namespace, options.lab)
    with api.Lab.find(found) as lab:
        with lab.read() as snapshot:
            pod = snapshot.get(Pod, namespace, name)
        if pod is None:
            raise NotFoundError(f'pods "{name}" not found')
        _write(_said(lab.built, pod, options))
    return 0


def _said(lab: Lab, pod: Pod, options: argparse.Namespace) -> Iterable[bytes]:
    from svcnat.lab import logs

    container = logs.container_of(pod, options.container)
    runs = logs.runs_of(lab, pod, container)
    if options.previous:
        if len(runs) < 2:
            raise LabError(f'previous terminated container "{container}" in pod "{pod.metadata.name}" not found')
        runs = runs[:-1]
    if not runs:
        say(f"container {container} has no log: what runs is a stand-in, or nothing yet")
        return ()
    tail = min(options.tail, sys.maxsize) if options.tail >= 0 else None
    if options.follow:
        return logs.follow(runs[-1], tail, lambda: not logs.is_current(lab, pod, container, runs[-1]))
    return logs.read(runs[-1], tail)


def _write(said: Iterable[bytes]) -> None:
    sys.stdout.flush()
    for chunk in said:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
