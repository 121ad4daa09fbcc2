"""Print how long svcnat takes, on this machine, today; run it with `make bench`.

Each figure is the best of a few runs in a network namespace of its own, through the commands that people type: wall
time of the whole process, interpreter start included, and its peak memory.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from svcnat.kernel import netns
from tests.bench import agent, folders, labs
from tests.bench.objects import endpoint_slice, service
from tests.dns import load

SIZES = (100, 1000, 5000)
ENDPOINTS = 5
RUNS = 3


def manifests(folder: Path, name: str, items: list[dict]) -> str:
    """Write a List, and return its path."""
    file = folder / name
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return str(file)


def run(*words: str, quiet: int | None = None) -> tuple[float, float]:
    """Run one command: seconds of wall time, and its peak memory in MiB."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "svcnat", *words], stdout=subprocess.DEVNULL, stderr=quiet)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"svcnat {' '.join(words)} failed")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def best(*words: str, before: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """The fastest of a few runs, each after `before`, and the largest memory of them."""
    results = []
    for _ in range(RUNS):
        before()
        results.append(run(*words))
    return min(seconds for seconds, _ in results), max(memory for _, memory in results)


def show(what: str, size: int, measured: tuple[float, float]) -> None:
    seconds, memory = measured
    print(f"| {what:<44} | {size:>8} | {seconds:>8.3f} s | {memory:>6.0f} MiB |", flush=True)


def measure(size: int, folder: Path) -> None:
    """All rows of one size."""
    where, state = f"svcnat-bench-{uuid.uuid4().hex[:8]}", folder / f"state-{size}" / "state.db"
    world = [item for number in range(size) for item in (service(number), endpoint_slice(number, ENDPOINTS))]
    everything = manifests(folder, f"all-{size}.json", world)
    world[1] = endpoint_slice(0, ENDPOINTS - 1)
    changed = manifests(folder, f"changed-{size}.json", world)
    one, other = (manifests(folder, f"one-{n}.json", [endpoint_slice(0, n)]) for n in (ENDPOINTS, ENDPOINTS - 1))
    target = ("--netns", where)
    clean = partial(run, "cleanup", *target, quiet=subprocess.DEVNULL)
    netns.create(where)
    try:
        show("render -f", size, best("render", "-f", everything))
        show("sync -f, first", size, best("sync", *target, "-f", everything, before=clean))
        show("sync -f, nothing to do", size, best("sync", *target, "-f", everything))
        back = partial(run, "sync", *target, "-f", everything)
        show("sync -f, one endpoint changed", size, best("sync", *target, "-f", changed, before=back))
        clean()
        stateful = (*target, "--state", str(state))
        show("apply -f, all of it new", size, run("apply", *stateful, "-f", everything))
        again = partial(run, "apply", *stateful, "-f", one)
        show("apply -f, one endpoint changed", size, best("apply", *stateful, "-f", other, before=again))
        show("get services", size, best("get", "services", *stateful))
    finally:
        netns.delete(where)


def main() -> None:
    nft = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=False).stdout.split()
    print(
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, nft {' '.join(nft[1:2])}, ",
        end="",
    )
    print(f"{os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}; {ENDPOINTS} endpoints a service, best of {RUNS}\n")
    print(f"| {'command':<44} | services |       time | peak memory |")
    print(f"|{'-' * 46}|---------:|-----------:|-----------:|")
    show("--help", 0, best("--help"))
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            measure(size, Path(folder))
    agent.main()
    folders.main()
    labs.main()
    print("\nNames, asked for in a pod of a lab\n")
    load.main()


if __name__ == "__main__":
    main()
