"""What it costs an agent that follows a folder when one of its files changes: an agent as a process of its own.

Printed as a table by `make bench`, and by `python -m tests.bench.folders` alone. The clock starts when the file is
written, and the generation is when the kernel's ruleset has changed. Processor time is the agent's for one change, all
that it does besides included.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import time
import uuid
from pathlib import Path

from svcnat.kernel import netns
from svcnat.kernel.nfnetlink import Connection
from tests.agents import Agent, memory
from tests.bench.labs import cpu
from tests.bench.objects import endpoint_slice, service

SIZES = (100, 5000)
ENDPOINTS = 5
CHANGES = 20


def write(folder: Path, number: int, endpoints: int) -> None:
    """A Service and its EndpointSlice, in a file of their own."""
    documents = (service(number), endpoint_slice(number, endpoints))
    # Most of JSON is YAML, and such files are mostly YAML: the comment makes it no JSON.
    (folder / f"{number}.yaml").write_text("# \n" + "\n---\n".join(json.dumps(each, indent=1) for each in documents))


def measure(size: int, folder: Path) -> tuple[list[float], float, float, float]:
    """Seconds to the new generation of each change; then seconds of the processor for one, to start, and MiB."""
    where, home = f"svcnat-bench-{uuid.uuid4().hex[:8]}", folder / f"folder-{size}"
    manifests = home / "manifests"
    manifests.mkdir(parents=True)
    for number in range(size):
        write(manifests, number, ENDPOINTS)
    netns.create(where)
    try:
        begun = time.perf_counter()
        with Agent(home, where, "-f", str(manifests)) as agent, netns.entered(where):
            started = time.perf_counter() - begun
            time.sleep(2)  # the folder is watched only after the first pass
            with contextlib.closing(Connection()) as connection:
                busy = cpu(agent.pid)
                generations = _change(manifests, connection, size)
                busy = (cpu(agent.pid) - busy) / CHANGES
            used = memory(agent.pid)
        return generations, busy, started, used
    finally:
        netns.delete(where)


def _change(manifests: Path, connection: Connection, size: int) -> list[float]:
    """Change the endpoints of random Services, one after the other."""
    generations, draw = [], random.Random(1)
    counts = [ENDPOINTS] * size
    for _ in range(CHANGES):
        number = draw.randrange(size)
        counts[number] = draw.choice([each for each in range(1, ENDPOINTS + 3) if each != counts[number]])
        before, begun = connection.generation(), time.perf_counter()
        write(manifests, number, counts[number])
        while connection.generation() == before:
            time.sleep(0.001)
        generations.append(time.perf_counter() - begun)
    return sorted(generations)


def main() -> None:
    print(f"\n| a file changed, {CHANGES} times | services |   median |     most | processor |  start |  memory |")
    print(f"|{'-' * 26}|---------:|---------:|---------:|----------:|-------:|--------:|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SVCNAT_RUNTIME_DIR"] = folder
        for size in SIZES:
            found, busy, started, used = measure(size, Path(folder))
            print(f"| to the kernel's rules    | {size:>8} | {found[len(found) // 2]:>6.2f} s |", end="")
            print(f" {found[-1]:>6.2f} s | {busy:>7.2f} s | {started:>4.1f} s | {used:>3.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
