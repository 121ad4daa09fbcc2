"""What containers of a lab said: a file for each run, kept until the lab goes down.

Nothing here writes them: the supervisor starts each process with its file as standard output and error.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from svcnat.errors import LabError
from svcnat.kernel import holes
from svcnat.lab import names, state
from svcnat.lab.labs import Lab
from svcnat.lab.supervision import Supervision, logs_of
from svcnat.model.objects import Pod

_CHUNK = 1 << 16
_LOOK_SECONDS = 0.1


def container_of(pod: Pod, name: str) -> str:
    """The container of that name, init containers among them, or the first one.

    Raises:
        LabError: the pod has no container of that name.

    """
    containers = [each.name for each in (*pod.spec.containers, *pod.spec.init_containers)]
    if name and name not in containers:
        raise LabError(f"container {name} is not valid for pod {pod.metadata.name}: it has {', '.join(containers)}")
    return name or containers[0]


def runs_of(lab: Lab, pod: Pod, container: str) -> list[Path]:
    """The logs of a container, the oldest first; none of a stand-in."""
    folder = logs_of(lab.folder, pod.metadata.uid) / container
    return sorted(folder.glob("*.log"), key=lambda file: int(file.stem))


def read(file: Path, tail: int | None = None) -> Iterator[bytes]:
    """What is in a log, or its last `tail` lines."""
    with file.open("rb") as opened:
        _skip_forgotten(opened)
        if tail is not None:
            yield from deque(opened, maxlen=tail)
            return
        while chunk := opened.read(_CHUNK):
            yield chunk


def follow(file: Path, tail: int | None, is_over: Callable[[], bool]) -> Iterator[bytes]:
    """What is in a log, then what is added to it, until nothing is to come."""
    with file.open("rb") as opened:
        _skip_forgotten(opened)
        if tail is not None:
            yield from deque(opened, maxlen=tail)
        while True:
            over = is_over()
            _skip_forgotten(opened)
            while chunk := opened.read(_CHUNK):
                yield chunk
            if over:
                return
            time.sleep(_LOOK_SECONDS)


def _skip_forgotten(opened: BinaryIO) -> None:
    """Go on at the first whole line of what the supervisor has kept of a log."""
    here = opened.tell()
    kept = holes.beginning(opened.fileno(), here)
    opened.seek(kept)
    if kept > here:
        opened.readline()


def is_current(lab: Lab, pod: Pod, container: str, file: Path) -> bool:
    """True if the container's process runs, and this is its log."""
    if runs_of(lab, pod, container)[-1:] != [file]:
        return False
    started = state.read(lab.folder).pods.get(names.pod(lab.name, pod.metadata.namespace, pod.metadata.name))
    if started is None or started.uid != pod.metadata.uid:
        return False
    try:
        with Supervision(lab.folder) as supervision:
            crew = supervision.states().get(started.device)
    except LabError:
        return False
    return crew is not None and any(each.name == container and each.since for each in crew.tasks)
