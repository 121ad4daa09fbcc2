"""The course's example, told by real packets: a service, its pods, balanced requests, a pod that dies.

Run it with `make demo`, as root. It uses svcnat's Python API for the lab and the client, and its commands for what
a person would type. Everything happens in network namespaces that are gone at the end.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import svcnat
from svcnat.errors import SvcnatError
from svcnat.model.objects import Pod, Service

FOLDER = Path(__file__).parent
REQUESTS = 300


class Client(threading.Thread):
    """The front end: it asks for the cluster IP, ten times a second or as fast as it is told, and counts answers."""

    def __init__(self, lab: svcnat.Lab, address: str) -> None:
        super().__init__()
        self._lab, self._address = lab, address
        self._enough = threading.Event()
        self.answered, self.failed = 0, []

    def ask(self) -> str:
        """One request; the answer names the pod that gave it."""
        with socket.create_connection((self._address, 80), timeout=2) as connection:
            connection.sendall(b"hello\n")
            return connection.makefile().readline().split()[0]

    def run(self) -> None:
        self._lab.run("front-end", self._keep_asking)

    def _keep_asking(self) -> None:
        for _ in range(6000):  # a minute at most
            try:
                self.ask()
                self.answered += 1
            except OSError as error:
                self.failed.append(str(error))
            if self._enough.wait(0.01):
                return

    def stop(self) -> None:
        self._enough.set()
        self.join()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def command(*words: str) -> None:
    """Run svcnat as a person would, and show what was typed."""
    print(f"$ svcnat {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "svcnat", *words], check=True)


def spread(lab: svcnat.Lab, client: Client) -> None:
    """Send requests from the front-end pod and draw who answered."""
    counts = lab.run("front-end", lambda: Counter(client.ask() for _ in range(REQUESTS)))
    for pod, count in sorted(counts.items()):
        print(f"  {pod:<28} {count:>4}  {'#' * round(60 * count / REQUESTS)}")


def main() -> None:
    name = f"demo-{os.getpid()}"
    say("One node, a front-end pod and three back-end pods, each a network namespace of its own.")
    rootless = ["--rootless"] * (os.geteuid() != 0)
    command("lab", "up", name, *rootless, "-f", str(FOLDER.relative_to(Path.cwd())))
    lab = svcnat.Lab.find(name)
    client = None
    try:
        say("The service has one fixed address, whatever happens to the pods behind it.")
        command("--lab", name, "get", "services")
        print()
        command("--lab", name, "get", "pods", "-o", "wide")
        with lab.read() as objects:
            back_end = objects.get(Service, "default", "back-end")
            victim = next(pod for pod in objects.list(Pod, "default") if pod.metadata.name.startswith("back-end"))
        address = back_end.spec.cluster_ip
        client = Client(lab, address)
        client.start()

        say(f"{REQUESTS} requests from the front end to {address}: each pod gets its share, at random.")
        spread(lab, client)

        say(f"{victim.metadata.name} ({victim.status.pod_ip}) dies, while the front end keeps asking.")
        command("--lab", name, "delete", "pod", victim.metadata.name)

        say("The Deployment brings one back, with another name and another address.")
        command("--lab", name, "get", "pods", "-o", "wide")
        print()
        spread(lab, client)

        time.sleep(0.5)
        client.stop()
        say(f"The front end asked {client.answered} times meanwhile, {len(client.failed)} of them in vain.")
        print("It never noticed: it only knows the service." if not client.failed else "\n".join(client.failed))
    finally:
        if client and client.is_alive():
            client.stop()
        lab.down()
    sys.exit(bool(client.failed))


if __name__ == "__main__":
    try:
        main()
    except SvcnatError as error:
        sys.exit(f"error: {error}")
