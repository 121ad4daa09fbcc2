"""Programs that tests start beside themselves: none outlives its test, and none keeps it waiting for ever."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import TypeVar

from tests.agents import PATIENCE

T = TypeVar("T", str, bytes)


@contextlib.contextmanager
def ending(process: subprocess.Popen[T], patience: float = 3 * PATIENCE) -> Iterator[subprocess.Popen[T]]:
    """A process that is killed after the block, however that ends, and after `patience` seconds.

    Whoever reads what it prints, or waits for it, is not kept waiting longer than that; ``with Popen(...)`` alone waits
    for a process that nobody ends as soon as something in the block fails.
    """
    clock = threading.Timer(patience, process.kill)
    clock.daemon = True
    clock.start()
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        clock.cancel()
