"""A cluster IP under many flows: fair shares from everywhere, quick refusals, and changes that lose nobody."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from svcnat.agent.reconcile import reconcile
from svcnat.kernel import netns, sysctl
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.plan import Settings, plan
from tests.bed import ADDRESSES, PODS, Bed, temporary_bed
from tests.ruleset.build import service, slice_of

pytestmark = pytest.mark.packets

VIP = {4: "10.96.0.10", 6: "fd00:10:96::a"}
PORTS = ((80, "TCP"), (53, "UDP"))
SLICE_PORTS = (("p80", 8080, "TCP"), ("p53", 5353, "UDP"))
SETTINGS = Settings(cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"))

SERVED = 8081  # the bed itself listens on 8080

FLOWS = 3000
CRITICAL = 13.816  # chi-square, two degrees of freedom, p = 0.001


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        for version in (4, 6):
            made.listen("TCP", 8080, version)
            made.listen("UDP", 5353, version)
        yield made


def rules(*pods: str):
    four = [ADDRESSES[pod][0] for pod in pods]
    six = [ADDRESSES[pod][1] for pod in pods]
    slices = [
        slice_of("web", *four, ports=SLICE_PORTS),
        slice_of("web", *six, ports=SLICE_PORTS, kind="IPv6"),
    ]
    return compile_plan(plan([service("web", VIP[4], VIP[6], ports=PORTS)], slices, SETTINGS))


@pytest.fixture
def program(bed: Bed) -> Iterator[Callable[..., None]]:
    """A function that makes the node's rules send the service to these pods."""
    with Namespace(bed.netns("node")) as namespace:
        yield lambda *pods: reconcile(namespace, rules(*pods))


def chi_square(counts: Counter[str], categories: int) -> float:
    expected = counts.total() / categories
    return sum((counts[name] - expected) ** 2 / expected for name in PODS[:categories])


@pytest.mark.parametrize(
    ("source", "protocol", "version"),
    [
        ("pod-5", "TCP", 4),
        ("pod-5", "UDP", 4),
        ("pod-5", "TCP", 6),
        ("pod-5", "UDP", 6),
        ("node", "TCP", 4),
        ("client", "TCP", 4),
        ("client", "UDP", 6),
        ("pod-1", "TCP", 4),  # one of the endpoints: hairpin
    ],
)
def test_flows_spread_evenly(bed, program, source, protocol, version) -> None:
    """3,000 flows over 3 endpoints pass a chi-square test at p > 0.001.

    A fair die fails that test once in a thousand throws, so a failure is thrown once more: both fail once in a million.
    """
    program(*PODS[:3])
    port = 80 if protocol == "TCP" else 53
    for last in (False, True):
        seen = [bed.probe(source, VIP[version], port, protocol) for _ in range(FLOWS)]
        assert {one.what for one in seen} == {"reached"}
        counts = Counter(one.pod for one in seen)
        assert set(counts) == set(PODS[:3])
        if chi_square(counts, 3) < CRITICAL:
            return
        assert not last, f"not an even spread, twice: {counts}"


def test_refusals_do_not_wait(bed, program) -> None:
    """No endpoints: TCP is refused by a reset, so a hundred clients in a row are told at once, each of them.

    ICMP, which plain `reject` would send, is limited to one error a second: with the kernel's default limits these
    probes, which wait for half a second, would see silence.
    """
    program()
    with netns.entered(bed.netns("node")):
        limits = {"net/ipv4/icmp_ratelimit": 1000, "net/ipv6/icmp/ratelimit": 1000}
        before = {key: sysctl.read(key) for key in limits}
        sysctl.write(limits)
    try:
        for source in ("pod-1", "node", "client"):
            for version in (4, 6):
                assert {bed.probe(source, VIP[version], 80).what for _ in range(17)} == {"refused"}
                assert {bed.probe(source, VIP[version], 81).what for _ in range(17)} == {"refused"}
    finally:
        with netns.entered(bed.netns("node")):
            sysctl.write(before)


@dataclass(frozen=True)
class Attempt:
    """One connection of the load: when it began and ended (monotonic seconds), and what came of it."""

    began: float
    ended: float
    result: str


class Servers:
    """Every pod answers each connection with its name, in one thread."""

    def __init__(self, bed: Bed, port: int) -> None:
        self._sockets = {}
        for pod in PODS:
            with netns.entered(bed.netns(pod)):
                listener = socket.socket(socket.AF_INET6)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("::", port))
            listener.listen(512)
            listener.setblocking(False)
            self._sockets[pod] = listener
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Servers:
        self._thread.start()
        for pod, listener in self._sockets.items():
            asyncio.run_coroutine_threadsafe(self._accept(pod, listener), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            mine = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not mine]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for listener in self._sockets.values():
            listener.close()

    async def _accept(self, pod: str, listener: socket.socket) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            with connection:
                await self._loop.sock_sendall(connection, pod.encode())


class Load(threading.Thread):
    """Connections from one namespace at a steady rate; each waits for the server's name."""

    def __init__(self, where: str, destination: tuple[str, int], rate: int, most: int) -> None:
        super().__init__()
        self._where, self._destination, self._rate, self._most = where, destination, rate, most
        self._stop_asked = threading.Event()
        self.attempts: list[Attempt] = []

    def run(self) -> None:
        with netns.entered(self._where):
            start = time.monotonic()
            for number in range(self._most):
                if self._stop_asked.wait(max(0.0, start + number / self._rate - time.monotonic())):
                    return
                began = time.monotonic()
                result = self._connect()
                self.attempts.append(Attempt(began, time.monotonic(), result))

    def _connect(self) -> str:
        family = socket.AF_INET6 if ":" in self._destination[0] else socket.AF_INET
        with socket.socket(family) as connection:
            connection.settimeout(5)
            try:
                connection.connect(self._destination)
                return connection.recv(64).decode()
            except OSError as error:
                return errno.errorcode.get(error.errno or 0, str(error))

    def stop(self) -> list[Attempt]:
        self._stop_asked.set()
        self.join()
        return self.attempts


@pytest.mark.parametrize("version", [4, 6])
def test_scaling_under_load_loses_nobody(bed, version) -> None:
    """Endpoints 3, 5, 0, 2 under 200 connections a second: every one that could reach a living endpoint did.

    Connections are refused only while there is no endpoint; nothing times out, nothing is reset later, and nobody
    lands on a pod that had left the service before the connection began.
    """
    steps = [PODS[:3], PODS[:5], (), PODS[:2]]
    changes = [(0.0, 0.0, set(steps[0]))]  # (time before the commit, time after it, pods)
    with Servers(bed, SERVED):
        serve_from(bed, *steps[0])
        load = Load(bed.netns("client"), (VIP[version], 80), rate=200, most=4000)
        load.start()
        try:
            for pods in steps:
                before = time.monotonic()
                serve_from(bed, *pods)
                changes.append((before, time.monotonic(), set(pods)))
                time.sleep(0.7)
        finally:
            attempts = load.stop()
    assert len(attempts) > 200
    for attempt in attempts:
        possible = _possible(changes, attempt)
        assert attempt.result in possible, (attempt, possible)
    assert {attempt.result for attempt in attempts} >= {*PODS[:5], "ECONNREFUSED"}


def serve_from(bed: Bed, *pods: str) -> None:
    """Send the service to the :class:`Servers` of these pods."""
    ports = (("p80", SERVED, "TCP"),)
    slices = [slice_of("web", *(ADDRESSES[pod][0] for pod in pods), ports=ports)]
    slices.append(slice_of("web", *(ADDRESSES[pod][1] for pod in pods), ports=ports, kind="IPv6"))
    with Namespace(bed.netns("node")) as namespace:
        reconcile(namespace, compile_plan(plan([service("web", VIP[4], VIP[6])], slices, SETTINGS)))


def _possible(changes: list[tuple[float, float, set[str]]], attempt: Attempt) -> set[str]:
    """Who may have answered: the endpoints of every set that was in force at some moment of the attempt."""
    possible: set[str] = set()
    for index, (begun, _, pods) in enumerate(changes):
        replaced = changes[index + 1][1] if index + 1 < len(changes) else float("inf")
        if begun <= attempt.ended and attempt.began <= replaced:
            possible |= pods or {"ECONNREFUSED"}
    return possible
