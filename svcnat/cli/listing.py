"""Objects as tables: which columns, in what order, one block a kind. It prints nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from svcnat.cli.columns import COLUMNS, labels_text
from svcnat.cli.terminal import table
from svcnat.model.kinds import Kind
from svcnat.model.objects import Resource


@dataclass(frozen=True, slots=True)
class Style:
    """How tables look: the flags of ``get``."""

    wide: bool = False
    headers: bool = True
    show_labels: bool = False
    label_columns: tuple[str, ...] = ()
    all_namespaces: bool = False


def tables(blocks: Sequence[tuple[Kind, Sequence[Resource]]], style: Style, now: datetime) -> list[str]:
    """The lines of one table a kind, separated by blank lines; empty kinds have none.

    With several kinds, names carry theirs: ``service/back-end``.
    """
    lines: list[str] = []
    for kind, resources in blocks:
        if resources:
            lines += [""] * bool(lines)
            lines += table(_rows(kind, resources, style, now, prefixed=len(blocks) > 1))
    return lines


def _rows(kind: Kind, resources: Sequence[Resource], style: Style, now: datetime, *, prefixed: bool) -> list[list[str]]:
    columns = COLUMNS[kind.name]
    headers = columns.chosen(columns.headers + columns.wide, wide=style.wide)
    show_namespace = style.all_namespaces and kind.namespaced
    own = [key.rpartition("/")[2].upper() for key in style.label_columns]
    rows: list[list[str]] = []
    if style.headers:
        rows.append(["NAMESPACE"] * show_namespace + headers + own + ["LABELS"] * style.show_labels)
    for resource in resources:
        cells = columns.chosen(columns.cells(resource, now), wide=style.wide)
        if prefixed and "NAME" in headers:
            place = headers.index("NAME")
            cells[place] = f"{kind.qualified}/{cells[place]}"
        if show_namespace:
            cells.insert(0, resource.metadata.namespace)
        cells += [resource.metadata.labels.get(key, "") for key in style.label_columns]
        if style.show_labels:
            cells.append(labels_text(resource.metadata.labels))
        rows.append(cells)
    return rows
