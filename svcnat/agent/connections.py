"""The kernel's counters of new connections, added up to what each Service and each endpoint got.

A counter lives as long as its element. Elements come and go while their endpoint stays: each counter is followed by
itself, and what it counted stays counted, so the sums never fall. Connections between the last reading and the end of
an element are lost. Pure: who reads the kernel is the caller.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

from svcnat.model.quoting import printable

_LONGEST = 300  # characters of a label: more than any name of an object has


class Reading(NamedTuple):
    """One counter of the kernel. ``endpoint`` is ``ADDRESS:PORT``; "" for one that counts a Service's frontend.

    ``element``: whatever tells this counter from the others of its Service and endpoint, as long as it lives.
    ``connections``: None while the element is not there, as between a flush and its repair.
    """

    node: str
    namespace: str
    service: str
    port: str
    protocol: str
    endpoint: str
    element: Hashable
    connections: int | None


Series = tuple[str, str, str, str, str, str]  # a Reading without its element and connections


class Totals:
    """The sums of all readings so far, of those that were in the last one."""

    def __init__(self) -> None:
        self._last: dict[Series, dict[Hashable, int]] = {}
        self._sums: dict[Series, int] = {}

    @property
    def sums(self) -> dict[Series, int]:
        """How many connections each series had."""
        return self._sums

    def update(self, readings: Iterable[Reading]) -> None:
        """Add what was counted since the last update; series that are not among the readings are forgotten.

        One whose elements are all not there keeps its sum, but none begins so: its counters may be switched off.
        """
        found: dict[Series, dict[Hashable, int]] = {}
        for reading in readings:
            series = reading[:6]
            if reading.connections is not None:
                counts = found.setdefault(series, {})
                counts[reading.element] = counts.get(reading.element, 0) + reading.connections
            elif series in self._sums:
                found.setdefault(series, {})
        sums = {}
        for series, counts in found.items():
            before = self._last.get(series, {})
            total = self._sums.get(series, 0)
            for element, count in counts.items():
                last = before.get(element, 0)
                total += count - last if count >= last else count  # it began anew
            sums[series] = total
        self._last, self._sums = found, sums


_SERVICES = "svcnat_service_connections_total"
_ENDPOINTS = "svcnat_endpoint_connections_total"


def series_text(totals: Totals) -> str:
    """The sums in Prometheus' text format: by hand, since prometheus_client takes ten times as long."""
    services = [f"# HELP {_SERVICES} Connections of each port of a Service\n# TYPE {_SERVICES} counter\n"]
    endpoints = [f"# HELP {_ENDPOINTS} Connections of each endpoint of a Service\n# TYPE {_ENDPOINTS} counter\n"]
    for (node, namespace, service, port, protocol, endpoint), count in totals.sums.items():
        labels = (
            f'node="{_label(node)}",namespace="{_label(namespace)}",service="{_label(service)}",'
            f'port="{_label(port)}",protocol="{_label(protocol)}"'
        )
        if endpoint:
            endpoints.append(f'{_ENDPOINTS}{{{labels},endpoint="{_label(endpoint)}"}} {count}\n')
        else:
            services.append(f"{_SERVICES}{{{labels}}} {count}\n")
    return "".join(services + endpoints)


def shown(text: str) -> str:
    """Text that may be a label's value: whatever it holds, it is encodable, one line, and of a bounded length."""
    return printable(text[:_LONGEST])


def _label(text: str) -> str:
    return shown(text).replace("\\", "\\\\").replace('"', '\\"')
