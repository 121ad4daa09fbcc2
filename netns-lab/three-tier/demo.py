"""A whole application, told by real packets: front ends, back ends, redis and MariaDB, each scaled and killed alone.

Run it with `make demo`, as root. It uses svcnat's Python API for the lab and the client outside, and its commands for
what a person would type. Everything happens in network namespaces that are gone at the end.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import svcnat
from svcnat.errors import SvcnatError
from svcnat.model.objects import Node, Pod

FOLDER = Path(__file__).parent
TIERS = ("front-end", "back-end", "redis", "mysql")
DOOR = 30080  # the front end's node port
MORE = 40  # visits, before each part of the story ends
# The programs of the pods are started by name: those of this interpreter's environment come first.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


class Visitor(threading.Thread):
    """Somebody outside the cluster who visits over and over, some 50 times a second, and keeps what was answered."""

    def __init__(self, lab: svcnat.Lab, address: str) -> None:
        super().__init__()
        self._lab, self._address = lab, address
        self._enough = threading.Event()
        self.answers: list[dict[str, str]] = []
        self.failures: list[str] = []
        self.slowest = 0.0

    def visit(self) -> None:
        """One visit, on a connection of its own; it fails unless every tier has done its part."""
        connection = http.client.HTTPConnection(self._address, DOOR, timeout=5)
        begun = time.monotonic()
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            told = json.load(response)
            if response.status == http.HTTPStatus.OK:
                self.answers.append(told)
            else:
                self.failures.append(told["error"])
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.failures.append(str(error))
        finally:
            connection.close()
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def run(self) -> None:
        self._lab.run("client", self._keep_visiting)

    def _keep_visiting(self) -> None:
        for _ in range(6000):  # two minutes at most
            self.visit()
            if self._enough.wait(0.02):
                return

    def stop(self) -> None:
        self._enough.set()
        self.join()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def command(lab: str, *words: str) -> None:
    """Run svcnat as a person would, and show what was typed."""
    print(f"$ svcnat --lab {lab} {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "svcnat", "--lab", lab, *words], check=True)


def pods(lab: svcnat.Lab, tier: str) -> list[str]:
    with lab.read() as objects:
        found = objects.list(Pod, "default")
    return [each.metadata.name for each in found if each.metadata.labels.get("tier") == tier]


class Story:
    """What is told of one visitor: each part with the visits since the one before."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._answers, self._failures = 0, 0

    def tell(self) -> int:
        """Wait for some more visits, and draw who answered in each tier; the result is how many were in vain."""
        wanted, end = len(self._visitor.answers) + MORE, time.monotonic() + 10
        while len(self._visitor.answers) < wanted and time.monotonic() < end:
            time.sleep(0.02)
        answers = self._visitor.answers[self._answers :]
        failures = self._visitor.failures[self._failures :]
        self._answers += len(answers)
        self._failures += len(failures)
        for tier in TIERS:
            counts = Counter(each[tier] for each in answers)
            print(f"  {tier:<11}" + "   ".join(f"{pod.rpartition('-')[2]} {counts[pod]:>3}" for pod in sorted(counts)))
        visits, slowest = len(answers) + len(failures), 1000 * self._visitor.slowest
        print(f"  {visits} visits, {len(failures)} in vain, none longer than {slowest:.0f} ms")
        self._visitor.slowest = 0.0
        for failure, count in Counter(failures).most_common(3):
            print(f"  {count} times {failure}")
        return len(failures)


def main() -> None:
    name = f"three-tier-{os.getpid()}"
    say("Front ends, back ends, a redis-server and a MariaDB, on two nodes.")
    up = ["lab", "up", name, *["--rootless"] * (os.geteuid() != 0), "-f", str(FOLDER.relative_to(Path.cwd()))]
    print("$ svcnat", *up, flush=True)
    subprocess.run([sys.executable, "-m", "svcnat", *up], check=True)
    lab = svcnat.Lab.find(name)
    visitor = None
    try:
        command(name, "get", "pods,services", "-o", "wide")
        with lab.read() as objects:
            node = objects.get(Node, "", "node-1")
        address = node.status.addresses[0].address
        visitor = Visitor(lab, address)
        story = Story(visitor)
        visitor.start()

        say(f"Somebody outside visits {address}:{DOOR} over and over; each visit goes through all tiers.")
        failed = story.tell()

        say("Each tier is scaled alone. Who was there before knows nothing of it.")
        command(name, "scale", *(f"deployment/{tier}" for tier in ("redis", "mysql")), "--replicas", "2")
        command(name, "scale", "deployment/front-end", "--replicas", "3")
        for tier in ("redis", "mysql", "front-end"):
            command(name, "rollout", "status", f"deployment/{tier}")
        failed += story.tell()

        for tier in TIERS:
            say(f"One pod of {tier} dies, under load.")
            command(name, "delete", "pod", pods(lab, tier)[0])
            failed += story.tell()

        say("A service balances, it copies nothing: without its one database, nobody is served until there is another.")
        command(name, "scale", "deployment/mysql", "--replicas", "1")
        (last,) = pods(lab, "mysql")
        command(name, "delete", "pod", last)
        command(name, "rollout", "status", "deployment/mysql")
        story.tell()
        visitor.stop()
    finally:
        if visitor and visitor.is_alive():
            visitor.stop()
        lab.down()
    sys.exit(bool(failed))


if __name__ == "__main__":
    try:
        main()
    except SvcnatError as error:
        sys.exit(f"error: {error}")
