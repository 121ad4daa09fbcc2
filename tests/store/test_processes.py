"""Several processes at one file, and processes that die in the middle of writing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from svcnat.model.objects import EndpointSlice, Service
from svcnat.store.sqlite import Store
from tests.store.invariants import check

WORKER = """
import sys
from svcnat.errors import ConflictError
from svcnat.model.objects import Pod, PodStatus, ObjectMeta, Service, ServicePort, ServiceSpec
from svcnat.store.sqlite import Store

path, me = sys.argv[1:3]

def service(name):
    ports = [ServicePort(name="t", port=80), ServicePort(name="u", port=80, protocol="UDP")]
    policy = {"ip_family_policy": "PreferDualStack", "external_traffic_policy": "Local"}
    spec = ServiceSpec(type="LoadBalancer", ports=ports, selector={"app": name}, **policy)
    return Service(metadata=ObjectMeta(namespace="default", name=name), spec=spec)
"""

CREATE = (
    WORKER
    + """
won = 0
ranges = {"service_cidrs": ["10.0.0.0/24", "fd00::/120"], "node_ports": range(30000, 30320)}
with Store.open(path, load_balancer_pool=["192.0.2.0/24", "2001:db8::/120"], **ranges) as store:
    for turn in range(30):
        with store.transaction() as transaction:
            try:
                transaction.create(service(f"same-{turn}"))
                won += 1
            except ConflictError:
                pass
            transaction.create(service(f"own-{me}-{turn}"))
            if turn % 3 == 0:
                transaction.delete(Service, "default", f"own-{me}-{turn}")
print(won)
"""
)

WRITE_FOREVER = (
    WORKER
    + """
with Store.open(path, load_balancer_pool=["192.0.2.1-192.0.2.16"]) as store:
    turn = int(me)
    while True:
        with store.transaction() as transaction:
            for part in range(4):
                transaction.create(service(f"batch-{turn}-{part}"))
            if turn - 5 >= int(me):
                for part in range(4):
                    transaction.delete(Service, "default", f"batch-{turn - 5}-{part}")
        print(turn, flush=True)
        turn += 1
"""
)


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_nothing_is_given_twice_by_processes_at_once(path: Path) -> None:
    """Four processes make the file, race for the same names, and share small ranges; nobody fails."""
    workers = [start(CREATE, str(path), str(number)) for number in range(4)]
    results = [worker.communicate(timeout=120) for worker in workers]
    assert [errors for _, errors in results] == [""] * 4
    assert sum(int(output) for output, _ in results) == 30
    with Store.open(path) as store, store.read() as snapshot:
        services = snapshot.list(Service)
    assert len(services) == 1 + 30 + 4 * 20
    given = [address for each in services for address in each.spec.cluster_ips]
    assert len(given) == len(set(given)) == 1 + 2 * 110
    ports = [number for each in services for number in {port.node_port for port in each.spec.ports} if number]
    ports += [each.spec.health_check_node_port for each in services if each.spec.health_check_node_port]
    assert len(ports) == len(set(ports)) == 2 * 110
    balanced = [each.ip for one in services for each in one.status.load_balancer.ingress]
    assert len(balanced) == len(set(balanced)) == 2 * 110


def test_a_killed_process_leaves_the_old_state_or_the_new(path: Path) -> None:
    """SIGKILL at any moment: batches are whole or absent, and what was reported as done is there."""
    chance = random.Random(2)
    first, last = 0, -1
    for _ in range(8):
        worker = start(WRITE_FOREVER, str(path), str(first))
        assert worker.stdout
        assert worker.stdout.readline().strip() == str(first)
        time.sleep(chance.uniform(0, 0.15))
        worker.send_signal(signal.SIGKILL)
        output, errors = worker.communicate(timeout=60)
        assert errors == ""
        # The last line may be cut off.
        last = max([first, *(int(line) for line in output.split("\n")[:-1])])
        check(path)
        with Store.open(path) as store, store.read() as snapshot:
            batches: dict[int, int] = {}
            for each in snapshot.list(Service, "default"):
                if each.metadata.name.startswith("batch-"):
                    number = int(each.metadata.name.split("-")[1])
                    batches[number] = batches.get(number, 0) + 1
            assert set(batches.values()) == {4}
            balanced = sum(bool(each.status.load_balancer.ingress) for each in snapshot.list(Service))
            assert balanced == min(16, sum(batches.values()))
            newest = max(batches)
            assert newest in (last, last + 1)
            owners = {each.metadata.owner_references[0].name for each in snapshot.list(EndpointSlice)}
            assert owners == {each.metadata.name for each in snapshot.list(Service) if each.spec.selector}
        first = newest + 1
