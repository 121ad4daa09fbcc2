"""The rows that descriptions of several kinds share: metadata, lists, groups, conditions, times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from svcnat.cli.columns import NONE, UNSET
from svcnat.controllers.merge import LAST_APPLIED
from svcnat.model.objects import Condition, Resource

Rows = list[list[str]]

_LONGEST = 140


def metadata_rows(resource: Resource, *between: list[str]) -> Rows:
    """Name, namespace, labels and annotations, with `between` after the namespace."""
    meta = resource.metadata
    annotations = [
        f"{key}: {value if len(value) <= _LONGEST else value[:_LONGEST] + '...'}"
        for key, value in sorted(meta.annotations.items())
        if key != LAST_APPLIED
    ]
    return [
        ["Name:", meta.name],
        *([["Namespace:", meta.namespace]] if meta.namespace else []),
        *between,
        *several("Labels:", [f"{key}={value}" for key, value in sorted(meta.labels.items())]),
        *several("Annotations:", annotations),
    ]


def several(label: str, values: Sequence[str], indent: str = "") -> Rows:
    """A label and its values, one a row."""
    first, *more = values or [NONE]
    return [[indent + label, first], *([indent, value] for value in more)]


def condition_rows(conditions: Sequence[Condition]) -> Rows:
    """The conditions of a status."""
    return group("Conditions:", [["  Type", "Status"], *([f"  {each.type}", each.status] for each in conditions)], 1)


def group(label: str, rows: Rows, headers: int = 0) -> Rows:
    """A label above its rows, of which the first `headers` say nothing by themselves."""
    return [[label], *rows] if len(rows) > headers else [[label, NONE]]


def date_text(timestamp: str | None) -> str:
    """A time as kubectl's descriptions have it: ``Sun, 17 May 2026 10:00:00 +0000``."""
    if not timestamp:
        return UNSET
    from email.utils import format_datetime  # in English whatever the locale is

    try:
        return format_datetime(datetime.fromisoformat(timestamp))
    except ValueError:
        return timestamp
