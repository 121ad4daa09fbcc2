"""How long after a commit to the store the kernel has other rules: an agent as a process of its own, and its socket.

Printed as a table by `make bench`, and by `python -m tests.bench.agent` alone. The clock starts when the store's
transaction is committed; the generation is when the kernel's ruleset has changed, the answer when the command that
waits for the agent would go on.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
import uuid
from pathlib import Path

import msgspec

from svcnat.agent.control import Client, Reconcile, socket_of_state
from svcnat.kernel import netns
from svcnat.kernel.nfnetlink import Connection
from svcnat.model.kinds import from_document
from svcnat.store.sqlite import Store
from tests.agents import Agent, memory
from tests.bench.objects import endpoint_slice, service

SIZES = (100, 5000)
ENDPOINTS = 5
CHANGES = 300


def measure(size: int, folder: Path) -> tuple[list[float], list[float], float, float]:
    """Seconds to the new generation and to the answer, for each change; then seconds to start, and MiB of the agent."""
    where, state = f"svcnat-bench-{uuid.uuid4().hex[:8]}", folder / f"agent-{size}" / "state.db"
    netns.create(where)
    try:
        with Store.open(state) as store:
            with store.transaction() as transaction:
                for number in range(size):
                    transaction.create(service(number))
                    transaction.create(endpoint_slice(number, ENDPOINTS))
            begun = time.perf_counter()
            with Agent(state.parent, where) as agent, netns.entered(where):
                started = time.perf_counter() - begun
                connection = Connection()
                with contextlib.closing(connection), Client.find(socket_of_state(state)) as client:
                    generations, answers = _change(store, client, connection, size)
                used = memory(agent.pid)
        return generations, answers, started, used
    finally:
        netns.delete(where)


def _change(store: Store, client: Client, connection: Connection, size: int) -> tuple[list[float], list[float]]:
    """Change the endpoints of random Services, one after the other."""
    generations, answers, draw = [], [], random.Random(1)
    counts = [ENDPOINTS] * size
    for _ in range(CHANGES):
        number = draw.randrange(size)
        counts[number] = draw.choice([each for each in range(1, ENDPOINTS + 3) if each != counts[number]])
        changed = from_document(endpoint_slice(number, counts[number]))
        before = connection.generation()
        with store.transaction() as transaction:
            live = transaction.get(type(changed), "default", changed.metadata.name)
            transaction.put(msgspec.structs.replace(live, endpoints=changed.endpoints))
        begun = time.perf_counter()
        client._socket.send(msgspec.json.encode(Reconcile(transaction.revision)))  # an answer would be waited for
        while connection.generation() == before:
            time.sleep(0.0002)
        generations.append(time.perf_counter() - begun)
        client.receive()
        answers.append(time.perf_counter() - begun)
    return sorted(generations), sorted(answers)


def main() -> None:
    print(f"\n| endpoint change to packets, {CHANGES} changes | services |   median |      p99 |      most |")
    print("|----------------------------------------|---------:|---------:|---------:|----------:|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SVCNAT_RUNTIME_DIR"] = folder
        for size in SIZES:
            generations, answers, started, used = measure(size, Path(folder))
            for what, found in (("commit to the kernel's generation", generations), ("commit to the answer", answers)):
                middle, late = found[len(found) // 2], found[len(found) * 99 // 100]
                print(f"| {what:<38} | {size:>8} |", end="")
                print(f" {1e3 * middle:>5.1f} ms | {1e3 * late:>5.1f} ms | {1e3 * found[-1]:>6.1f} ms |", flush=True)
            begins = f"start of the agent, {used:.0f} MiB"
            print(f"| {begins:<38} | {size:>8} | {started:>6.2f} s  |          |           |")


if __name__ == "__main__":
    main()
