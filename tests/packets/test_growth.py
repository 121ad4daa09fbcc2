"""Sets that must grow, or turn their counters on or off, while packets come: nobody notices, nothing is forgotten."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from svcnat.agent.reconcile import reconcile
from svcnat.agent.report import Report
from svcnat.kernel.nftables import Namespace
from svcnat.model.addresses import canonical
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.endpoints import Endpoints, Pool
from svcnat.ruleset.nftables import render_cleanup
from svcnat.ruleset.plan import Frontend, Kind, Masquerade, Plan, Scope, ServicePortPlan, Settings, plan
from tests.bed import ADDRESSES, PATIENCE, PODS, Bed, temporary_bed
from tests.ruleset.build import service, slice_of

pytestmark = pytest.mark.packets

PLAIN, STICKY = ("10.96.0.10", "fd00:10:96::a"), ("10.96.0.11", "fd00:10:96::b")
SETTINGS = Settings(cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"))
TURNS = 20


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        for version in (4, 6):
            made.listen("TCP", 8080, version)
        yield made


@pytest.fixture
def kernel(bed: Bed) -> Iterator[Namespace]:
    with Namespace(bed.netns("node")) as namespace:
        yield namespace


def crowd(frontends: int = 1, endpoints: int = 1) -> dict[tuple[str, str], tuple[ServicePortPlan, ...]]:
    """A service of each family with so many frontends that are refused, and one frontend with so many endpoints."""
    ports = []
    for family, prefix, address in (("ip", "10.100.{}.{}", "10.97.0.1"), ("ip6", "fd00:100::{}:{}", "fd00:97::1")):
        backends = tuple((str(canonical(prefix.format(n // 250, n % 250 + 1))), 80) for n in range(endpoints))
        pool = Endpoints(cluster=Pool(backends, (1,) * endpoints), anywhere=True)
        first, *rest = (
            Frontend(Kind.CLUSTER_IP, address, 1 + n, Scope.CLUSTER, Masquerade.OFF_CLUSTER)
            for n in range(frontends + 1)
        )
        ports.append(ServicePortPlan("default/crowd:a", family, "tcp", (first,), pool))
        ports.append(ServicePortPlan("default/crowd:b", family, "tcp", tuple(rest), Endpoints()))
    return {("default", "crowd"): tuple(ports)}


def rules(known: Settings = SETTINGS, **numbers: int):
    """A plain service and one with affinity, for three pods, beside the crowd."""
    objects, slices = [], []
    for name, addresses, spec in (("plain", PLAIN, {}), ("sticky", STICKY, {"session_affinity": "ClientIP"})):
        objects.append(service(name, *addresses, **spec))
        for six, kind in enumerate(("IPv4", "IPv6")):
            slices.append(slice_of(name, *(ADDRESSES[pod][six] for pod in PODS[:3]), kind=kind))
    return compile_plan(Plan(known, {**plan(objects, slices, known).services, **crowd(**numbers)}))


def during(bed: Bed, change) -> tuple[list[Report], set[str]]:
    """Make a change, and connections to the plain service as long as it takes: how the connections ended."""
    reports: list[Report] = []
    worker = threading.Thread(target=lambda: reports.extend(change()))
    worker.start()
    seen = set()
    while worker.is_alive():
        for version in (0, 1):
            seen.add(bed.probe("pod-5", PLAIN[version], 80, patience=PATIENCE).what)
    worker.join()
    return reports, seen


@pytest.mark.parametrize(("what", "sets"), [("frontends", {"frontends"}), ("endpoints", {"hairpins", "backends-tcp"})])
def test_a_set_that_outgrows_its_size_is_replaced_under_load(bed, kernel, what, sets) -> None:
    """Clients stay where they were, counters of other sets go on, no connection fails; the table is not made anew."""
    kernel.commit(render_cleanup(["ip", "ip6"]))  # sets do not shrink
    small = rules(**{what: 1500})
    reconcile(kernel, small)
    stays = {
        (source, address): bed.probe(source, address, 80, patience=PATIENCE).pod
        for source in ("pod-5", "pod-6", "client", "node")
        for address in STICKY
    }
    large = rules(**{what: 3100})
    before = {family: kernel.remembered(table) for family, table in small.items()}
    (report,), seen = during(bed, lambda: [reconcile(kernel, large)])
    assert {family: set(part.regrow) for family, part in report.change.items()} == dict.fromkeys(("ip", "ip6"), sets)
    assert not any(part.remake for part in report.change.values())
    # A user namespace may not send so much at once: the report says that packets may meet half of it.
    assert seen == {"reached"} or report.warnings
    assert before == {family: kernel.remembered(table) for family, table in large.items()}
    again = {(source, address): bed.probe(source, address, 80, patience=PATIENCE).pod for source, address in stays}
    assert again == stays
    assert not reconcile(kernel, large).change
    outlines = kernel.read(large.values())
    assert {outline.sets[name][1] for outline in outlines.values() for name in sets} == {8192}


def test_counters_of_endpoints_come_and_go_under_load(bed, kernel) -> None:
    """Their maps are replaced, each time in one transaction, with every chain that uses them: nobody notices."""
    ways = [rules(replace(SETTINGS, endpoint_counters=on)) for on in (True, False)]
    reconcile(kernel, ways[0])
    reports, seen = during(bed, lambda: [reconcile(kernel, ways[turn % 2]) for turn in range(1, TURNS + 1)])
    assert seen == {"reached"}
    for report in reports:
        for part in report.change.values():
            assert not part.remake
            assert set(part.regrow) == {name for name in ways[0]["ip"].sets if "backends-" in name}
    assert not reconcile(kernel, ways[0]).change
