"""A client that asks so many questions a second, evenly, and counts answers: run it to measure a server.

Usage: python -m tests.dns.load [RATE [SECONDS]]: 5,000 Services, the server a process of its own in a namespace, the
client in another one, 2,000 a second for 30 seconds. It prints; it asserts nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from svcnat.dns import wire
from svcnat.kernel import netns
from svcnat.kernel.links import Device, Veth, build

SERVER, CLIENT = "10.0.0.1", "10.0.0.2"


def manifest(services: int) -> str:
    """So many Services, every tenth of them headless with three endpoints."""
    documents = []
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


def ask(rate: int, seconds: float, services: int, server: str = SERVER) -> tuple[int, int, list[float]]:
    """Ask in this thread's namespace: questions, answers, and the seconds that each answer took."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    client.connect((server, 53))
    client.setblocking(False)
    questions = [
        wire.question_of((f"s{n}", "default", "svc", "cluster", "local"), 1 if n % 3 else 28) for n in range(services)
    ]
    sent: dict[int, float] = {}
    took: list[float] = []
    began = time.perf_counter()
    asked = 0
    while (now := time.perf_counter()) < began + seconds + 2 and (sent or now < began + seconds):
        if now < began + seconds:
            while asked < (now - began) * rate:
                ident = asked & 0xFFFF
                client.send(wire.ask(ident, questions[asked * 7919 % services], recurse=True, edns=False, do=False))
                sent[ident] = time.perf_counter()
                asked += 1
        try:
            while True:
                reply = client.recv(4096)
                took.append(time.perf_counter() - sent.pop(int.from_bytes(reply[:2], "big")))
        except BlockingIOError:
            time.sleep(0.0005)
    return asked, len(took), sorted(took)


def main(rate: int = 2000, seconds: int = 30, services: int = 5000) -> None:
    """Measure, and print."""
    prefix = f"svcnat-load-{uuid.uuid4().hex[:8]}-"
    names = [prefix + "server", prefix + "client"]
    for name in names:
        netns.create(name)
    try:
        build(
            [
                Veth(
                    Device(netns.path(names[0]), "eth0", (f"{SERVER}/24",)),
                    Device(netns.path(names[1]), "eth0", (f"{CLIENT}/24",)),
                )
            ]
        )
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "all.yaml").write_text(manifest(services))
            command = [sys.executable, "-m", "svcnat", "dns", "-f", folder, "--netns", names[0], "--listen", SERVER]
            began = time.perf_counter()
            with subprocess.Popen([*command, "--upstream", "none"], stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr
                print(process.stderr.readline().strip(), f"after {time.perf_counter() - began:.1f} s")
                before = cpu(process.pid)
                with netns.entered(names[1]):
                    asked, answered, took = ask(rate, seconds, services)
                used = cpu(process.pid) - before
                memory = next(
                    line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmRSS" in line
                )
                process.send_signal(signal.SIGTERM)
                process.wait()
            print(f"asked {asked}, answered {answered}; processor {used / seconds:.0%} of a core; {memory}")
            print(f"p50 {took[len(took) // 2] * 1e6:.0f} us, p99 {took[len(took) * 99 // 100] * 1e6:.0f} us")
    finally:
        for name in names:
            netns.delete(name)


def cpu(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
