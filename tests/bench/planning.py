"""Print what one endpoint's change costs in the pure core, by how many services there are.

Run it with ``python -m tests.bench.planning``. No kernel is involved: from the objects of one Service to the change
that would be committed. Every second change takes an endpoint away, every other one brings it back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from msgspec.structs import replace

from svcnat.model.objects import EndpointSlice, Service
from svcnat.ruleset.assembly import Assembly
from svcnat.ruleset.compile import compile_service
from svcnat.ruleset.plan import Settings
from svcnat.ruleset.planner import Planner
from tests.ruleset.build import service, slice_of

SIZES = (5_000, 30_000)
ENDPOINTS = 10
CHANGES = 400
KINDS = ("plain", "affinity", "round-robin")


def objects(number: int, kind: str, endpoints: int = ENDPOINTS) -> tuple[Service, list[EndpointSlice]]:
    one = service(f"s{number}", f"10.{96 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}")
    if kind == "affinity":
        one = replace(one, spec=replace(one.spec, session_affinity="ClientIP"))
    if kind == "round-robin":
        one = replace(one, metadata=replace(one.metadata, annotations={"svcnat.io/scheduler": kind}))
    return one, [
        slice_of(f"s{number}", *(f"10.{200 + n}.{number // 250}.{number % 250 + 1}" for n in range(endpoints)))
    ]


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(size: int, kind: str) -> None:
    """One row."""
    known = Settings(node_name="node-1")
    planner, assembly = Planner(known), Assembly(known)

    def compiled() -> None:
        for identity, ports in planner.take().items():
            parts[identity] = compile_service(ports)

    def edited() -> None:
        for identity, fragments in parts.items():
            assembly.put(identity, fragments)
        assembly.change()
        assembly.learned()
        assembly.settle(swept=False)

    parts: dict = {}
    for number in range(size):
        planner.put(*objects(number, kind))
    compiled()
    edited()
    planning, editing = [], []
    for turn in range(CHANGES):
        parts.clear()
        changed = objects(turn // 2 * 7 % size, kind, ENDPOINTS - 1 + turn % 2)
        planning.append(timed(lambda changed=changed: (planner.put(*changed), compiled())))  # type: ignore[misc]
        editing.append(timed(edited))
    print(f"| {kind:<12} | {size:>8} ", end="")
    for times in (planning, editing):
        print(f"| {statistics.median(times) * 1e6:>8.0f} | {sorted(times)[-CHANGES // 100] * 1e6:>8.0f} ", end="")
    print("|", flush=True)


def main() -> None:
    print(
        "| kind         | services | put + compile: median | p99 | put + change + settle: median | p99, microseconds |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        for size in SIZES:
            measure(size, kind)


if __name__ == "__main__":
    main()
