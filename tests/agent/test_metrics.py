"""What Prometheus reads: names, values, labels; every answer goes through Prometheus' own parser."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import svcnat
from svcnat.agent.connections import Reading, Totals, series_text
from svcnat.agent.metrics import Metrics
from svcnat.errors import KernelError

Sample = tuple[str, frozenset[tuple[str, str]]]


class World:
    """Metrics whose clocks and whose kernel the test turns."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 1000.0, 5000.0
        self.readings: Callable[[], Iterable[Reading]] = list
        self.metrics = Metrics(lambda: self.readings(), clock=lambda: self.monotonic, now=lambda: self.wall)

    def scrape(self) -> dict[Sample, float]:
        """All samples of an answer that is not from the last second."""
        self.monotonic += 2
        return parsed(self.metrics.text())


def parsed(text: bytes) -> dict[Sample, float]:
    found: dict[Sample, float] = {}
    families = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, "Prometheus refuses an answer with two samples of one name"
            found[key] = sample.value
    return found


def at(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def reading(count: int | None, element: object = "a", *, service: str = "web", endpoint: str = "") -> Reading:
    return Reading("n1", "default", service, "http", "tcp", endpoint, element, count)


def test_kube_proxys_names() -> None:
    """What means the same has kube-proxy's name, type and buckets, so that its dashboards show it."""
    world = World()
    metrics = world.metrics
    metrics.requested("n1")
    world.wall += 3
    metrics.passed("n1", "full", 0.5, 1000)
    metrics.passed("n1", "partial", 0.003, 2)
    metrics.failed("n1")
    metrics.programmed("n1", 0.02)
    metrics.programmed("n1", -5)  # a clock that was set back is no pass that took less than nothing
    for code in (200, 200, 503):
        metrics.checked("/healthz", code)
    metrics.checked("/livez", 200)
    found = world.scrape()
    assert found[at("kubeproxy_sync_proxy_rules_duration_seconds_count", node="n1")] == 2
    assert found[at("kubeproxy_sync_proxy_rules_duration_seconds_sum", node="n1")] == pytest.approx(0.503)
    assert found[at("kubeproxy_sync_full_proxy_rules_duration_seconds_bucket", node="n1", le="0.512")] == 1
    assert found[at("kubeproxy_sync_full_proxy_rules_duration_seconds_bucket", node="n1", le="0.256")] == 0
    assert found[at("kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket", node="n1", le="0.004")] == 1
    assert found[at("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", node="n1")] == 5000
    assert found[at("kubeproxy_sync_proxy_rules_last_timestamp_seconds", node="n1")] == 5003
    assert found[at("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", node="n1")] == 1
    assert found[at("kubeproxy_network_programming_duration_seconds_bucket", node="n1", le="0.032")] == 2
    assert found[at("kubeproxy_network_programming_duration_seconds_bucket", node="n1", le="0.25")] == 2
    assert found[at("kubeproxy_network_programming_duration_seconds_sum", node="n1")] == 0.02
    assert found[at("kubeproxy_proxy_healthz_total", code="200")] == 2
    assert found[at("kubeproxy_proxy_healthz_total", code="503")] == 1
    assert found[at("kubeproxy_proxy_livez_total", code="200")] == 1


def test_our_own() -> None:
    """Drift, refusals, overruns, answers, what is held; and what runs."""
    world = World()
    metrics = world.metrics
    metrics.passed("n1", "full", 0.5, 1000)
    metrics.drifted("n1")
    metrics.refused("n1")
    metrics.refused("n1", 2)
    metrics.overrun("nftables")
    metrics.answered("done")
    metrics.holds("n1", services=7, endpoints=21, far={"internal": 2})
    metrics.in_sync("n1", in_sync=True)
    found = world.scrape()
    assert found[at("svcnat_changes_total", node="n1")] == 1000
    assert found[at("svcnat_drift_repaired_total", node="n1")] == 1
    assert found[at("svcnat_commits_refused_total", node="n1")] == 3
    assert found[at("svcnat_event_overruns_total", source="nftables")] == 1
    assert found[at("svcnat_reconcile_requests_total", outcome="done")] == 1
    assert found[at("svcnat_services", node="n1")] == 7
    assert found[at("svcnat_endpoints", node="n1")] == 21
    for policy, count in (("internal", 2), ("external", 0)):
        name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
        assert found[at(name, node="n1", traffic_policy=policy)] == count
    assert found[at("svcnat_node_in_sync", node="n1")] == 1
    assert found[at("svcnat_build_info", version=svcnat.__version__)] == 1
    assert found[at("process_open_fds")] > 2
    assert not [name for name, _ in found if name.endswith("_created")]
    metrics.in_sync("n1", in_sync=False)
    assert world.scrape()[at("svcnat_node_in_sync", node="n1")] == 0


def test_counters_begin_at_zero() -> None:
    """Prometheus sees the first of anything as an increase, and an alert on it comes with the first, not the second."""
    world = World()
    world.metrics.requested("n1")
    found = world.scrape()
    for name in ("svcnat_changes", "svcnat_drift_repaired", "svcnat_commits_refused"):
        assert found[at(f"{name}_total", node="n1")] == 0
    assert found[at("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", node="n1")] == 0
    for name in ("healthz", "livez"):
        assert [found[at(f"kubeproxy_proxy_{name}_total", code=code)] for code in ("200", "503")] == [0, 0]
    for source in ("nftables", "rtnetlink"):
        assert found[at("svcnat_event_overruns_total", source=source)] == 0
    for outcome in ("done", "failed"):
        assert found[at("svcnat_reconcile_requests_total", outcome=outcome)] == 0


def test_documented() -> None:
    """docs/metrics.md names every metric there is, and no other."""
    world = World()
    world.readings = lambda: [reading(1), reading(1, endpoint="10.0.0.1:80")]
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(world.metrics.text().decode())
    }
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    table = text[text.index("| metric |") : text.index("Beside these")]
    assert set(re.findall(r"`((?:kubeproxy|svcnat)_\w+)`", table)) == {
        name for name in found if not name.startswith("process_")
    }


def test_nodes_that_go_leave() -> None:
    """A target that is none any more has no series; others keep theirs."""
    world = World()
    metrics = world.metrics
    for node in ("n1", "n2"):
        metrics.requested(node)
        metrics.passed(node, "full", 0.5)
        metrics.passed(node, "partial", 0.5)
        metrics.failed(node)
        metrics.drifted(node)
        metrics.refused(node)
        metrics.programmed(node, 1)
        metrics.holds(node, services=1, endpoints=1, far={})
        metrics.in_sync(node, in_sync=True)
    metrics.forget("n1")
    metrics.forget("n3")
    labels = {dict(labels).get("node") for _, labels in world.scrape()}
    assert labels == {None, "n2"}


def test_services_that_go_leave() -> None:
    """The series are those of the services that are there: no churn makes them more."""
    world = World()
    sizes = set()
    for number in range(50):
        world.readings = lambda number=number: [
            reading(1, service=f"web-{number}"),
            *(reading(1, service=f"web-{number}", endpoint=f"10.0.{number}.{each}:80") for each in range(3)),
        ]
        found = world.scrape()
        sizes.add(len(found))
        assert at(
            "svcnat_service_connections_total",
            node="n1",
            namespace="default",
            service=f"web-{number}",
            port="http",
            protocol="tcp",
        ) in set(found)
    assert len(sizes) == 1


def test_the_kernel_does_not_answer() -> None:
    """The rest is told all the same, that it failed is counted, and the sums go on where they were."""
    world = World()
    labels = {"node": "n1", "namespace": "default", "service": "web", "port": "http", "protocol": "tcp"}
    world.readings = lambda: [reading(5)]
    assert world.scrape()[at("svcnat_service_connections_total", **labels)] == 5

    def fail() -> Iterable[Reading]:
        yield reading(6)
        raise KernelError("network namespace vanished")

    world.readings = fail
    assert not [name for name, _ in world.scrape() if name == "svcnat_service_connections_total"]
    world.readings = lambda: [reading(7)]
    found = world.scrape()
    assert found[at("svcnat_service_connections_total", **labels)] == 7
    assert found[at("svcnat_connection_reads_failed_total")] == 1


def test_many_scrapes_cost_one() -> None:
    """Whoever asks within a second gets the same answer; many at once wait for one reading."""
    world = World()
    asked = []

    def count() -> Sequence[Reading]:
        asked.append(1)
        return []

    world.readings = count
    threads = [threading.Thread(target=world.metrics.text) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    world.monotonic += 1.5
    world.metrics.text()
    assert len(asked) == 2


def test_without_connections() -> None:
    """An agent that passes no reader has metrics without them."""
    assert b"connections_total" not in Metrics().text()


@settings(derandomize=True)
@given(st.text(), st.text(min_size=1))
def test_untrusted_labels(name: str, endpoint: str) -> None:
    """Any name makes one sample with that name, escaped; none breaks the answer or adds to it."""
    world = World()
    world.metrics.requested(name)
    world.metrics.passed(name, "full", 1)
    world.readings = lambda: [
        Reading(name, name, name, name, name, "", 1, 5),
        Reading(name, name, name, name, name, endpoint, 1, 5),
    ]
    found = world.scrape()
    for metric in ("svcnat_service_connections_total", "svcnat_endpoint_connections_total"):
        assert [value for (sample, _), value in found.items() if sample == metric] == [5]
    for sample, labels in found:
        for key, value in labels:
            assert sample.isprintable()
            assert key.isidentifier()
            assert value.isprintable()
            assert len(value) <= 4000


# --- sums of counters -----------------------------------------------------------------------------------------


def sums(totals: Totals) -> list[int]:
    return list(totals.sums.values())


def test_elements_come_and_go() -> None:
    """A sum never falls while its endpoint stays, whatever becomes of the elements that counted for it."""
    totals = Totals()
    totals.update([reading(10, "slot 0"), reading(20, "slot 1")])
    assert sums(totals) == [30]
    totals.update([reading(11, "slot 0")])  # slot 1 is another endpoint's now
    assert sums(totals) == [31]
    totals.update([reading(12, "slot 0"), reading(3, "slot 1")])
    assert sums(totals) == [35]
    totals.update([reading(2, "slot 0"), reading(3, "slot 1")])  # the table was made again
    assert sums(totals) == [37]
    totals.update([reading(None, "slot 0"), reading(None, "slot 1")])  # it is gone, and not there again yet
    assert sums(totals) == [37]
    totals.update([reading(2, "slot 0"), reading(None, "slot 1")])
    assert sums(totals) == [39]
    totals.update([])
    assert sums(totals) == []
    totals.update([reading(None, "slot 0")])  # nothing is known of it, not even that it has a counter
    assert sums(totals) == []
    totals.update([reading(4, "slot 0")])
    assert sums(totals) == [4]


@settings(derandomize=True)
@given(st.lists(st.dictionaries(st.integers(0, 4), st.none() | st.integers(0, 100), min_size=1)))
def test_sums_never_fall(rounds: list[dict[int, int | None]]) -> None:
    """Whatever the kernel says, as long as its Service has the endpoint: Prometheus sees no false restart."""
    totals, before = Totals(), 0
    totals.update([reading(0)])
    for counts in rounds:
        totals.update([reading(count, element) for element, count in counts.items()])
        (now,) = sums(totals)
        assert now >= before
        before = now


def test_series() -> None:
    """A Service's sum has its port; an endpoint's has the endpoint, too; families are declared once, even if empty."""
    totals = Totals()
    totals.update([reading(1), reading(2, endpoint="[fd00::1]:80"), reading(3, service="db")])
    text = series_text(totals)
    assert 'svcnat_service_connections_total{node="n1",namespace="default",service="web",port="http",' in text
    assert 'protocol="tcp",endpoint="[fd00::1]:80"} 2\n' in text
    assert len(parsed(text.encode())) == 3
    assert parsed(series_text(Totals()).encode()) == {}
