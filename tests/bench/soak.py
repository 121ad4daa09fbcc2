"""Churn for minutes, and print what an agent has meanwhile: memory, descriptors, files, and what is in the kernel.

Run it with `make soak` (SECONDS=600). Endpoints, Services and node addresses come and go, clients of sticky Services
talk, strangers flush the tables and delete elements, the configuration is read again, pages are read, probes run, and
now and then the network namespace itself is another one. At the end the objects are as they were at the beginning, and
so the last row of the table is to be like the first. Below it are the means of both halves of the churn: what leaks has
more in the second. It asserts nothing.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import msgspec

from svcnat.agent.control import Client, Reconcile
from svcnat.errors import SvcnatError
from svcnat.kernel import netns
from svcnat.model.kinds import from_document
from svcnat.model.objects import EndpointSlice, Resource, Service
from svcnat.store.sqlite import Store
from tests.agents import CONFIG, Agent, memory, runtime, until
from tests.bench.objects import endpoint_slice, service

SECONDS = 600
EVERY = 30  # seconds between two rows
SERVICES = 200
ENDPOINTS = 5
HEADS = [f"{head:>8}" for head in ("time", "changes", "services", "RSS MiB", "fds", "sockets", "threads")]
HEADS += [f"{head:>8}" for head in ("watches", "files", "KiB", "tombs", "Events")]
HEADS += [f"{head:>8}" for head in ("chains", "sets", "elements", "flows", "namespaces", "rules")]
_PAUSE = 0.03  # seconds between two changes
_PROBED = 10  # seconds until probes have found out that nobody listens
_TIDY = 45  # seconds until an agent has removed chains that it does not use


class Soak:
    """A namespace, a state file, an agent that follows it, and what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.where = f"svcnat-soak-{uuid.uuid4().hex[:8]}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.page = f"127.0.0.1:{free.getsockname()[1]}"
        self.done: Counter[str] = Counter()
        self.draw = random.Random(1)
        self.more: set[int] = set()
        """Services beyond those of the beginning."""
        self._folder = folder
        self._config = CONFIG.replace('metricsBindAddress: ""', f'metricsBindAddress: "{self.page}"')
        self.store = Store.open(folder / "state.db")
        with self.store.transaction() as transaction:
            for number in range(SERVICES):
                for each in objects(number, ENDPOINTS):
                    transaction.create(each)
        self._build()
        self.agent = Agent(folder, self.where, config=self._config)

    def close(self) -> None:
        """Leave nothing."""
        self.store.close()
        netns.delete(self.where)

    def _build(self) -> None:
        """A namespace in which every address is its own, so that whatever is sent arrives."""
        netns.create(self.where)
        self._in_it("ip", "link", "set", "lo", "up")
        self._in_it("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
        self._in_it("ip", "route", "add", "local", "10.0.0.0/8", "dev", "lo")

    def _in_it(self, *command: str) -> str:
        with netns.entered(self.where):
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # --- what happens ----------------------------------------------------------------------------------------

    def happen(self) -> None:
        """Let one thing happen, most often a change of endpoints."""
        what: list[tuple[int, Callable[[], None]]] = [
            (1000, self.change_endpoints),
            (60, self.come_or_go),
            (200, self.talk),
            (10, self.delete_an_element),
            (5, self.flush),
            (10, self.change_address),
            (3, self.reload),
            (5, self.read_pages),
            (20, self.ask),
            (1, self.replace_namespace),
        ]
        (chosen,) = self.draw.choices([each for _, each in what], [weight for weight, _ in what])
        self.done[chosen.__name__.replace("_", " ")] += 1
        chosen()

    def _commit(self, *changed: Resource, deleted: tuple[tuple[type[Resource], str, str], ...] = ()) -> None:
        with self.store.transaction() as transaction:
            for place in deleted:
                transaction.delete(*place)
            for each in changed:
                live = transaction.get(type(each), each.metadata.namespace, each.metadata.name)
                if live is None:
                    transaction.create(each)
                elif isinstance(live, EndpointSlice) and isinstance(each, EndpointSlice):
                    transaction.put(msgspec.structs.replace(live, endpoints=each.endpoints))
        client = until(lambda: Client.find(self.agent.socket), "an agent that listens")
        with client:
            client.ask(Reconcile(transaction.revision))

    def change_endpoints(self) -> None:
        """As a deployment that is scaled does."""
        self._commit(objects(self.draw.randrange(SERVICES), self.draw.randrange(ENDPOINTS + 3))[1])

    def come_or_go(self) -> None:
        """A Service that comes, or one of those that came goes."""
        if len(self.more) < 50 and self.draw.random() < 0.5:
            number = self.draw.randrange(SERVICES, 2 * SERVICES)
            self.more.add(number)
            self._commit(*objects(number, ENDPOINTS))
        elif self.more:
            self.take_away(self.more.pop())

    def take_away(self, number: int) -> None:
        """Delete a Service and its slice."""
        name = f"service-{number}"
        self._commit(deleted=((EndpointSlice, "default", name), (Service, "default", name)))

    def talk(self) -> None:
        """A few clients of a few Services, of which some are sticky."""
        with netns.entered(self.where):
            for _ in range(5):
                address = service(self.draw.randrange(SERVICES))["spec"]["clusterIP"]
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
                    client.bind((f"10.1.0.{self.draw.randrange(1, 200)}", 0))
                    client.sendto(b"?", (address, 53))

    def delete_an_element(self) -> None:
        """As a stranger would."""
        with contextlib.suppress(subprocess.CalledProcessError):
            address = service(self.draw.randrange(SERVICES))["spec"]["clusterIP"]
            self._in_it("nft", "delete", "element", "ip", "svcnat", "frontends", f"{{ {address} . tcp . 80 }}")

    def flush(self) -> None:
        """As `systemctl reload nftables` does."""
        self._in_it("nft", "flush", "ruleset")

    def change_address(self) -> None:
        """Of the node."""
        with contextlib.suppress(subprocess.CalledProcessError):
            verb = self.draw.choice(("add", "del"))
            self._in_it("ip", "address", verb, f"192.0.2.{self.draw.randrange(2, 9)}/32", "dev", "lo")

    def reload(self) -> None:
        """Read the configuration again, as `systemctl reload svcnat` does."""
        self._configure(self.draw.choice(("", "masqueradeAll: true\n")))

    def _configure(self, line: str) -> None:
        self.agent.config.write_text(self._config + line)
        self.agent.signal(signal.SIGHUP)

    def read_pages(self) -> None:
        """As a Prometheus server does."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.page}/metrics") as answer:
            answer.read()

    def ask(self) -> None:
        """As `svcnat status` does."""
        with contextlib.suppress(SvcnatError):
            self.agent.ask(deep=True)

    def replace_namespace(self) -> None:
        """As a lab that is taken down and built again does."""
        netns.delete(self.where)
        self._build()

    def calm_down(self) -> None:
        """Make the objects what they were at the beginning, and wait until the kernel is, too."""
        for number in self.more:
            self.take_away(number)
        self.more.clear()
        self._configure("")
        self._commit(*(objects(number, ENDPOINTS)[1] for number in range(SERVICES)))
        time.sleep(_TIDY)

    # --- what it comes to ------------------------------------------------------------------------------------

    def figures(self) -> Iterator[str]:
        """A row of the table."""
        process = Path("/proc", str(self.agent.pid))
        yield str(sum(self.done.values()))
        yield str(SERVICES + len(self.more))
        yield f"{memory(self.agent.pid):.1f}"
        links = [each.readlink() for each in list((process / "fd").iterdir()) if each.is_symlink()]
        yield str(len(links))
        yield str(sum(str(link).startswith("socket:") for link in links))
        yield str(len(list((process / "task").iterdir())))
        yield str(sum(_watches(process)))
        sizes = [each.stat().st_size for each in self._folder.rglob("*") if each.is_file() and each != self.agent.log]
        yield str(len(sizes))
        yield str(sum(sizes) // 1024)
        with contextlib.closing(sqlite3.connect(self.store.path)) as connection:
            for table in ("tombstones", "events"):
                yield str(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        # What happened last may have emptied everything; it is not what is asked for here.
        state = until(self._calm, "rules equal to the objects")
        listed = json.loads(self._in_it("nft", "-j", "list", "ruleset"))["nftables"]
        kinds = Counter(kind for each in listed for kind in each)
        yield str(kinds["chain"])
        yield str(kinds["set"] + kinds["map"])
        yield str(sum(len(part.get("elem", ())) for each in listed for part in each.values()))
        yield str(len(self._in_it("conntrack", "-L").splitlines()))
        yield str(len(_namespaces(process)))
        yield state

    def _calm(self) -> str:
        """The state of the rules, in a word; "" if they are not what they are to be."""
        state = self.agent.ask(deep=True)
        if not state or state.troubles or state.targets[0].state != "synced" or state.targets[0].different:
            return ""
        return state.targets[0].state if self._in_it("nft", "list", "tables") else ""


def objects(number: int, endpoints: int) -> tuple[Resource, Resource]:
    """A Service and its slice; some are sticky, some take turns, some are probed."""
    one = service(number)
    notes: dict[str, str] = {}
    if number % 4 == 1:
        one["spec"]["sessionAffinity"] = "ClientIP"
    elif number % 4 == 2:
        notes["svcnat.io/scheduler"] = "round-robin"
    elif number % 20 == 3:
        notes["svcnat.io/probe"] = json.dumps({"tcpSocket": {}, "periodSeconds": 1})
    one["spec"]["ports"].append({"name": "dns", "port": 53, "protocol": "UDP"})
    one["spec"]["ports"][0]["name"] = "web"
    one["metadata"]["annotations"] = notes
    two = endpoint_slice(number, endpoints)
    two["ports"] = [{"name": "web", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]
    return from_document(one), from_document(two)


def _namespaces(process: Path) -> set[str]:
    """The network namespaces that a process holds: by its threads, which are in them, and by descriptors."""
    found = set()
    for each in [*process.glob("task/*/ns/net"), *process.glob("fd/*")]:
        with contextlib.suppress(OSError):
            found.add(str(each.readlink()))
    return {each for each in found if each.startswith("net:")}


def _watches(process: Path) -> Iterator[int]:
    """How many watches each inotify instance of a process has."""
    for each in (process / "fdinfo").iterdir():
        with contextlib.suppress(OSError):
            yield each.read_text().count("inotify wd:")


def _row(begun: float, soak: Soak) -> list[str]:
    cells = [f"{time.monotonic() - begun:.0f} s", *soak.figures()]
    _print(cells)
    return cells


def _print(cells: list[str]) -> None:
    print("|", " | ".join(cell.rjust(len(head)) for cell, head in zip(cells, HEADS, strict=True)), "|", flush=True)


def _mean(what: str, rows: list[list[str]]) -> list[str]:
    """The mean of each column; words, of which there is only one kind, stay."""
    columns = list(zip(*rows, strict=True))
    means = [f"{fmean(map(float, column)):.1f}" for column in columns[1:-1]]
    return [what, *means, columns[-1][0]]


def main(seconds: float) -> None:
    for row in (HEADS, ["-" * len(head) for head in HEADS]):
        print("|", " | ".join(row), "|", flush=True)
    with runtime() as folder:
        soak = Soak(folder)
        try:
            with soak.agent:
                time.sleep(_PROBED)
                begun = time.monotonic()
                _row(begun, soak)
                rows: list[list[str]] = []
                while (passed := time.monotonic() - begun) < seconds:
                    soak.happen()
                    if passed >= (len(rows) + 1) * EVERY:
                        rows.append(_row(begun, soak))
                    time.sleep(_PAUSE)
                soak.calm_down()
                _row(begun, soak)
                if middle := len(rows) // 2:
                    _print(_mean("1st half", rows[:middle]))
                    _print(_mean("2nd half", rows[middle:]))
                print("\nwhat happened:", ", ".join(f"{count} x {what}" for what, count in soak.done.most_common()))
        finally:
            soak.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
