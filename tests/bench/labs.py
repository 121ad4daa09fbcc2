"""How long labs take to come and go, and what a pod costs: whole commands, as people type them.

Printed as a table by `make bench`, and by `python -m tests.bench.labs` alone. A pod's own part is what 200 pods take
beyond 20, divided by 180: what a lab costs without pods is in neither. CPU time is that of all processors, and says
more on a machine that has other work. Memory is the kernel's (slabs and per-CPU data: namespaces, links, routes) and
that of the lab's processes; what containers run comes on top of it, as on any machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from svcnat.kernel import netns

NODES = 4
FEW, MANY, A_SERVICE = 20, 200, 10
RUNS = 3
ELEVEN = Path("netns-lab/eleven-tier")

WEB = """\
---
apiVersion: v1
kind: Service
metadata: {{name: web-{number}}}
spec: {{selector: {{app: web-{number}}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{number}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web-{number}}}}}
  template:
    metadata: {{labels: {{app: web-{number}}}}}
    spec: {{containers: [{{name: main, image: web, ports: [{{containerPort: 80}}]{more}}}]}}
"""
SORTS = {
    "stand-ins": "",
    "stand-ins with httpGet probes": ", readinessProbe: {httpGet: {port: 80}}",
    "programs (sleep)": ", command: [sleep, infinity]",
}


def manifests(folder: Path, pods: int, more: str) -> Path:
    """Write a topology and Services of ten pods each."""
    nodes = ", ".join(f"{{name: node-{number}}}" for number in range(1, NODES + 1))
    text = f"apiVersion: svcnat.io/v1alpha1\nkind: Topology\nnodes: [{nodes}]\n"
    text += "".join(WEB.format(number=number, replicas=A_SERVICE, more=more) for number in range(pods // A_SERVICE))
    file = folder / f"{pods}.yaml"
    file.write_text(text)
    return file


def kernel_kib() -> int:
    """What the kernel has taken for itself that grows with namespaces."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("SUnreclaim", "SReclaimable", "Percpu"))


def processes(name: str) -> dict[int, str]:
    """The processes of a lab, by what they are."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0") if folder.name.isdecimal() else []
        except OSError:
            continue
        if any(name in word for word in words):
            found[int(folder.name)] = " ".join(words[2:5])
    return found


def own_kib(pid: int) -> int:
    """A process's proportional share of memory; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has had; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command(*words: str) -> float:
    """Run svcnat; seconds of wall time."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "svcnat", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"svcnat {' '.join(words)} failed: {done.stderr}")
    return time.perf_counter() - begun


def lab(path: Path) -> tuple[float, float, float, int, int]:
    """A lab of manifests: seconds up and down, those of the processors, and KiB of the kernel and of its processes."""
    name = f"bench-{os.getpid()}"
    before, begun = kernel_kib(), os.times()
    up = command("lab", "up", name, "-f", str(path))
    ended, own = os.times(), processes(name)
    busy = ended.children_user + ended.children_system - begun.children_user - begun.children_system
    busy += sum(map(cpu, own))
    kernel, used = kernel_kib() - before, sum(map(own_kib, own))
    down = command("lab", "down", name)
    namespaces = [each for each in netns.names() if name in each]
    files = [str(each) for each in Path(os.environ["SVCNAT_RUNTIME_DIR"], "labs").iterdir()]
    if left := [*namespaces, *processes(name).values(), *files]:
        sys.exit(f"left behind: {', '.join(left)}")
    return up, down, busy, kernel, used


def best(path: Path) -> tuple[float, ...]:
    """The fastest of a few runs, and the middle of their memory."""
    up, down, busy, kernel, used = (sorted(column) for column in zip(*(lab(path) for _ in range(RUNS)), strict=True))
    return up[0], down[0], busy[0], kernel[RUNS // 2], used[RUNS // 2]


def show(what: str, pods: str, figures: Sequence[float], *, each: bool = False) -> None:
    """A row: of a whole lab in seconds and MiB, or of `each` pod in milliseconds and KiB."""
    factor, unit, size, kind = (1e3, "ms", 1, "KiB") if each else (1, "s ", 1024, "MiB")
    times = " | ".join(f"{factor * figure:>6.{1 if each else 2}f} {unit}" for figure in figures[:3])
    memory = " + ".join(f"{figure / size:.0f}" for figure in figures[3:])
    print(f"| {what:<38} | {pods:>4} | {times} | {f'{memory} {kind}':>18} |", flush=True)


def main() -> None:
    print(
        f"\n| a lab of {NODES} nodes{'':<20} | pods | {'up':>9} | {'down':>9} | {'up, CPU':>9} | kernel + processes |"
    )
    print(f"|{'-' * 40}|-----:|----------:|----------:|----------:|-------------------:|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SVCNAT_RUNTIME_DIR"] = folder
        for what, more in SORTS.items():
            few, many = (best(manifests(Path(folder), pods, more)) for pods in (FEW, MANY))
            show(what, str(FEW), few)
            show(what, str(MANY), many)
            show(
                "... for each pod",
                "",
                [(more - less) / (MANY - FEW) for more, less in zip(many, few, strict=True)],
                each=True,
            )
        show("netns-lab/eleven-tier, 2 nodes", "13", best(ELEVEN))


if __name__ == "__main__":
    main()
