"""Events as kubectl shows them: when and how often, and the table below a description.

Source: k8s.io/kubectl/pkg/describe DescribeEvents, and printEvent of pkg/printers/internalversion. Cells are raw text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from svcnat.cli.ages import age
from svcnat.model.objects import Event


@dataclass(frozen=True, slots=True)
class Seen:
    """How long ago it happened first and last, and how often."""

    first: str
    last: str
    count: int


def seen(event: Event, now: datetime) -> Seen:
    """Read the three from the fields of whichever API the Event was written for."""
    series = event.series
    first = event.first_timestamp or event.event_time
    last = (series.last_observed_time if series else None) or event.last_timestamp or first
    count = (series.count if series else None) or event.count or 1
    return Seen(age(first, now), age(last, now), count)


def source(event: Event) -> str:
    """``svcnat, node-a``: the program that reports, and the node that it runs on."""
    where = event.source.host if event.source.component else event.source.host or event.reporting_instance
    return ", ".join(filter(None, (event.source.component or event.reporting_component, where)))


def rows(events: Sequence[Event], now: datetime) -> list[list[str]]:
    """The end of a description; what happened last comes last."""
    if not events:
        return [["Events:", "<none>"]]
    lines = [
        ["Events:"],
        ["  Type", "Reason", "Age", "From", "Message"],
        ["  ----", "------", "----", "----", "-------"],
    ]
    for event in sorted(events, key=lambda each: each.last_timestamp or each.event_time or ""):
        when = seen(event, now)
        often = f"{when.last} (x{when.count} over {when.first})" if when.count > 1 else when.first
        reporter = event.source.component or event.reporting_component
        lines.append([f"  {event.type}", event.reason, often, reporter, event.message.strip()])
    return lines
