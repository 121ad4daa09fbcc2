"""Programs in a pod that look names up all the time, and a count of what they were told: run it to measure a lab's DNS.

Usage: python -m tests.dns.load [RATE [SECONDS [SERVICES]]]: 2,000 questions a second for 30 seconds, about 5,000
Services, from a pod on another node than the server's. It prints; it asserts nothing.
"""

from __future__ import annotations

import io
import os
import selectors
import socket
import statistics
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from svcnat import api
from svcnat.api.labs import load_lab
from svcnat.dns import wire
from svcnat.lab import nameserver, process

SERVER = "10.96.0.10"
PATIENCE = 5.0  # seconds, as resolvers have
CHANGES = 200
TOPOLOGY = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: here}, {name: there}]
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec: {nodeName: there, containers: [{name: main, image: x}]}
"""


def manifest(services: int) -> str:
    """So many Services, every tenth of them headless with three endpoints, and a client."""
    documents = [TOPOLOGY]
    for n in range(services):
        headless = "  clusterIP: None\n" if n % 10 == 0 else ""
        documents.append(
            f"apiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\n"
            f"spec:\n{headless}  ports: [{{name: http, port: 80}}]\n"
        )
        if headless:
            endpoints = ", ".join(f"{{addresses: [10.{n >> 8}.{n & 255}.{i}]}}" for i in range(1, 4))
            documents.append(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
                f"metadata: {{name: s{n}-1, labels: {{kubernetes.io/service-name: s{n}}}}}\n"
                f"ports: [{{name: http, port: 80}}]\nendpoints: [{endpoints}]\n"
            )
    return "---\n".join(documents)


@dataclass(slots=True)
class Tally:
    """Questions, those that were answered well, and the seconds that it took them."""

    asked: int = 0
    took: list[float] = field(default_factory=list)


def ask(rate: int, seconds: float, services: int) -> Tally:
    """Ask evenly, here: as glibc and musl do, for A and AAAA at once, from one socket, which is closed afterwards."""
    tally = Tally()
    questions = [
        [wire.question_of((f"s{n}", "default", "svc", "cluster", "local"), kind) for kind in (1, 28)]
        for n in range(services)
    ]
    began = time.perf_counter()
    with selectors.EpollSelector() as waiting:
        while (now := time.perf_counter()) < began + seconds or waiting.get_map():
            while now < began + seconds and tally.asked < (now - began) * rate:
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                client.connect((SERVER, 53))
                for ident, question in enumerate(questions[tally.asked // 2 * 7919 % services]):
                    client.send(wire.ask(ident, question, recurse=True, edns=False, do=False))
                waiting.register(client, selectors.EVENT_READ, (time.perf_counter(), {0, 1}))
                tally.asked += 2
            for key, _ in waiting.select(0.0005):
                sent, idents = key.data
                reply = key.fileobj.recv(4096)
                if not reply[3] & 15 and reply[1] in idents:
                    idents.discard(reply[1])
                    tally.took.append(time.perf_counter() - sent)
                if not idents:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
            if now > began + seconds + PATIENCE:
                break
        for key in list(waiting.get_map().values()):
            waiting.unregister(key.fileobj)
            key.fileobj.close()
    return tally


def change(lab: api.Lab) -> list[float]:
    """The seconds from each of some commits to the first answer of it in a pod."""
    took = []

    def look(number: int) -> None:
        question = wire.question_of((f"new{number}", "default", "svc", "cluster", "local"), 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect((SERVER, 53))
            for _ in range(1000):
                client.send(wire.ask(1, question, recurse=True, edns=False, do=False))
                if not client.recv(4096)[3] & 15:
                    return

    def every_one() -> None:
        for number in range(CHANGES):
            text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: new{number}}}\nspec: {{ports: [{{port: 80}}]}}"
            (made,) = api.load(text=text).manifests
            with lab.built.store.transaction() as transaction:
                transaction.create(made.document)
            committed = time.perf_counter()
            look(number)
            took.append(time.perf_counter() - committed)

    lab.run("asker", every_one)
    return sorted(took)


def main(rate: int = 2000, seconds: int = 30, services: int = 5000) -> None:
    """Measure, and print."""
    name = f"load-{uuid.uuid4().hex[:8]}"
    with api.Lab.up(name, wanted=load_lab("-", stdin=io.BytesIO(manifest(services).encode()))) as lab:
        try:
            (server,) = process.running(*nameserver.command(name)[3:])
            lab.run("asker", lambda: ask(100, 1, services))
            before = cpu(server.pid)
            tally = lab.run("asker", lambda: ask(rate, seconds, services))
            used = (cpu(server.pid) - before) / seconds
            took = sorted(tally.took)
            print(
                f"{rate} questions/s for {seconds} s from a pod, {services} services: asked {tally.asked}, answered "
                f"{len(took)}, p50 {_at(took, 0.5)}, p99 {_at(took, 0.99)}; {used:.0%} of a core, {memory(server.pid)}"
            )
            changes = change(lab)
            print(
                f"change to answer, {len(changes)} new services: median {statistics.median(changes) * 1e3:.1f} ms, "
                f"p99 {_at(changes, 0.99)}, longest {changes[-1] * 1e3:.1f} ms"
            )
        finally:
            lab.down()


def _at(found: list[float], part: float) -> str:
    return f"{found[int(len(found) * part)] * 1e3:.1f} ms" if found else "-"


def memory(pid: int) -> str:
    """What a process has in memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(f"{int(line.split()[1]) >> 10} MiB" for line in lines if line.startswith("VmRSS"))


def cpu(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
