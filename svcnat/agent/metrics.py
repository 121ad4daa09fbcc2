"""What Prometheus reads: numbers about the agent's passes, and the connections that the kernel counted.

Metrics whose meaning is kube-proxy's have its names (its pkg/proxy/metrics/metrics.go), so that its dashboards show
them; the others begin with ``svcnat_``. Where kube-proxy distinguishes IP families, svcnat, which commits both at
once, distinguishes nodes. Nothing is served here (:mod:`svcnat.agent.web`), and nothing read from the kernel: the
caller passes in what does. prometheus_client, an optional extra, is imported when the first Metrics are made.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from svcnat import __version__
from svcnat.agent.connections import Reading, Totals, series_text, shown
from svcnat.agent.tally import POLICIES
from svcnat.errors import MissingError, SvcnatError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

_PASS_BUCKETS = tuple(0.001 * 2**step for step in range(15))  # kube-proxy's
_PROGRAMMING_BUCKETS = (
    # kube-proxy's begin at a quarter of a second; svcnat is done before, so it has more below.
    *(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128),
    *(0.25, 0.5),
    *(float(second) for second in range(1, 60)),
    *(float(second) for second in range(60, 120, 5)),
    *(float(second) for second in range(120, 301, 30)),
)
_KEEP_SECONDS = 1.0  # how old an answer may be: any number of scrapes costs no more than one a second

Kind = Literal["full", "partial"]

_logger = logging.getLogger(__name__)


class Metrics:
    """The agent's numbers, in a registry of their own; any thread may change and read them."""

    def __init__(
        self,
        connections: Callable[[], Iterable[Reading]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`connections` reads the kernel's counters; it is called in the thread that calls :meth:`text`.

        Raises:
            MissingError: prometheus_client is not installed.

        """
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector
        except ImportError as error:
            raise MissingError("metrics need the library prometheus_client: pip install '.[agent]'") from error
        self._registry = CollectorRegistry(auto_describe=False)
        self._connections, self._clock, self._now = connections, clock, now
        self._totals = Totals()
        self._rendering = threading.Lock()
        self._rendered: tuple[float, bytes] | None = None
        ProcessCollector(registry=self._registry)
        self._declare()

    def _declare(self) -> None:
        proxy, own = _Declarer(self._registry, "kubeproxy"), _Declarer(self._registry, "svcnat")
        node = ("node",)
        rules = "sync_proxy_rules"
        self._passes = proxy.histogram(f"{rules}_duration_seconds", "How long passes over a node's rules took", node)
        self._kinds = {
            "full": proxy.histogram("sync_full_proxy_rules_duration_seconds", "The same, of full passes", node),
            "partial": proxy.histogram(
                "sync_partial_proxy_rules_duration_seconds", "The same, of passes over what changed", node
            ),
        }
        self._last_passed = proxy.gauge(f"{rules}_last_timestamp_seconds", "When the rules were last made equal", node)
        self._last_requested = proxy.gauge(
            f"{rules}_last_queued_timestamp_seconds", "When a pass was last asked for", node
        )
        self._failed = proxy.counter(f"{rules}_nftables_sync_failures_total", "Passes that failed", node)
        self._far = proxy.gauge(
            f"{rules}_no_local_endpoints_total",
            "Services with a Local policy whose endpoints are all elsewhere",
            ("node", "traffic_policy"),
        )
        self._programming = proxy.histogram(
            "network_programming_duration_seconds",
            "How long commands that changed objects waited for the rules",
            node,
            _PROGRAMMING_BUCKETS,
        )
        self._checked = {
            "/healthz": proxy.counter("proxy_healthz_total", "Answers of /healthz", ("code",)),
            "/livez": proxy.counter("proxy_livez_total", "Answers of /livez", ("code",)),
        }
        self._written = own.counter("changes_total", "Elements that commits added or deleted", node)
        self._drifted = own.counter("drift_repaired_total", "Changes of others to svcnat's tables, repaired", node)
        self._refused = own.counter(
            "commits_refused_total", "Services whose rules could not be had, each time for a new reason", node
        )
        self._overruns = own.counter("event_overruns_total", "Times that events of the kernel were lost", ("source",))
        self._answered = own.counter("reconcile_requests_total", "Requests of commands", ("outcome",))
        self._in_sync = own.gauge("node_in_sync", "1 while the last pass ended well, and the objects can be read", node)
        self._services = own.gauge("services", "Services that have rules", node)
        self._endpoints = own.gauge("endpoints", "Endpoints that rules lead to", node)
        self._unread = own.counter("connection_reads_failed_total", "Scrapes that could not read the kernel's counters")
        # What begins at zero is seen to rise: of a series that begins at one, Prometheus cannot tell from what.
        for counter, values in (
            *((each, ("200", "503")) for each in self._checked.values()),
            (self._overruns, ("nftables", "rtnetlink")),
            (self._answered, ("done", "failed")),
        ):
            for value in values:
                counter.labels(value)
        own.gauge("build_info", "What runs: always 1", ("version",)).labels(__version__).set(1)

    def requested(self, node: str) -> None:
        """Something changed that asks for a pass over the node's rules; its counters begin, at zero, with the first."""
        node = shown(node)
        self._last_requested.labels(node).set(self._now())
        for counter in (self._failed, self._written, self._drifted, self._refused):
            counter.labels(node)

    def passed(self, node: str, kind: Kind, seconds: float, changes: int = 0) -> None:
        """A pass ended well, after so many seconds and so many elements."""
        node = shown(node)
        self._passes.labels(node).observe(seconds)
        self._kinds[kind].labels(node).observe(seconds)
        self._last_passed.labels(node).set(self._now())
        self._written.labels(node).inc(changes)

    def failed(self, node: str) -> None:
        """A pass failed, for whatever reason."""
        self._failed.labels(shown(node)).inc()

    def refused(self, node: str, count: int = 1) -> None:
        """The rules of so many Services cannot be had."""
        self._refused.labels(shown(node)).inc(count)

    def drifted(self, node: str) -> None:
        """A foreign change to svcnat's tables was repaired."""
        self._drifted.labels(shown(node)).inc()

    def programmed(self, node: str, seconds: float) -> None:
        """The rules follow what a command changed, so many seconds after it asked."""
        self._programming.labels(shown(node)).observe(max(0.0, seconds))  # clocks jump

    def holds(self, node: str, *, services: int, endpoints: int, far: Mapping[str, int]) -> None:
        """The node's rules serve so many Services, with so many endpoints; `far`: :class:`svcnat.agent.tally.Tally`."""
        node = shown(node)
        self._services.labels(node).set(services)
        self._endpoints.labels(node).set(endpoints)
        for policy in POLICIES:
            self._far.labels(node, policy).set(far.get(policy, 0))

    def in_sync(self, node: str, *, in_sync: bool) -> None:
        """The node's rules are what the objects ask for, or not."""
        self._in_sync.labels(shown(node)).set(in_sync)

    def overrun(self, source: Literal["nftables", "rtnetlink"]) -> None:
        """Events were lost, so everything was looked at."""
        self._overruns.labels(source).inc()

    def answered(self, outcome: Literal["done", "failed"]) -> None:
        """A command that asked for a pass got its answer."""
        self._answered.labels(outcome).inc()

    def checked(self, path: str, code: int) -> None:
        """/healthz or /livez answered."""
        self._checked[path].labels(str(code)).inc()

    def forget(self, node: str) -> None:
        """The node is no target any more: its series go."""
        for metric in (
            *(self._passes, *self._kinds.values(), self._last_passed, self._last_requested, self._failed),
            *(self._programming, self._written, self._drifted, self._refused),
            *(self._in_sync, self._services, self._endpoints),
        ):
            with contextlib.suppress(KeyError):
                metric.remove(shown(node))
        for policy in POLICIES:
            with contextlib.suppress(KeyError):
                self._far.remove(shown(node), policy)

    def text(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4; at most a second old."""
        from prometheus_client import generate_latest

        with self._rendering:
            if self._rendered is None or self._clock() - self._rendered[0] > _KEEP_SECONDS:
                counted = self._read()
                self._rendered = self._clock(), generate_latest(_Plain(self._registry)) + counted
            return self._rendered[1]

    def _read(self) -> bytes:
        """The connections; what the kernel does not tell is left out, for this is no reason to tell nothing."""
        if self._connections is None:
            return b""
        try:
            self._totals.update(self._connections())
        except SvcnatError as error:
            self._unread.inc()
            _logger.warning("the kernel's counters cannot be read: %s", error)
            return b""
        return series_text(self._totals).encode()


class _Declarer:
    """Makes the metrics of one prefix."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self._registry, self._prefix = registry, prefix

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        from prometheus_client import Counter

        return Counter(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        from prometheus_client import Gauge

        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = _PASS_BUCKETS
    ) -> Histogram:
        from prometheus_client import Histogram

        return Histogram(f"{self._prefix}_{name}", text, labels, registry=self._registry, buckets=buckets)


class _Plain:
    """A registry without the times at which series began, which the old text format has no place for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
