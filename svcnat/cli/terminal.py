"""What reaches the terminal: text made harmless, tables, and the lines on standard error.

It decides nothing about content: columns and messages come from the callers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby

from svcnat.errors import ManifestError, SvcnatError


def visible(text: str, keep: str = "") -> str:
    r"""Make text safe to show: characters that do not print become ``\uXXXX``, except those in `keep`.

    A name or an annotation could otherwise move the cursor, hide other lines or retitle the window. The escapes
    are JSON's, so that a JSON document means the same before and after.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[index : index + 4]}" for index in range(0, len(units), 4))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows as kubectl does: three spaces between columns, none narrower than six, the last one ragged.

    Every row becomes one line.
    """
    return aligned(rows, padding=3, narrowest=6)


def aligned(rows: Sequence[Sequence[str]], *, padding: int = 2, narrowest: int = 0) -> list[str]:
    """Align rows of any length as Go's tabwriter does: a column is a run of rows with a cell to its right."""
    lines = [""] * len(rows)
    safe = [[visible(cell) for cell in row] for row in rows]
    for column in range(max(map(len, safe), default=0)):
        for _, run in groupby(range(len(safe)), key=lambda index: len(safe[index]) - column > 1):
            indices = [index for index in run if len(safe[index]) > column]
            width = max((len(safe[index][column]) for index in indices), default=0) + padding
            for index in indices:
                last = len(safe[index]) == column + 1
                lines[index] += safe[index][column].ljust(0 if last else max(width, narrowest))
    return lines


def counted(count: int, noun: str) -> str:
    """``1 pod``, ``2 pods``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def say(*lines: str) -> None:
    """Print to standard error, each argument on a line of its own."""
    for line in lines:
        print(visible(line), file=sys.stderr)


def say_error(error: SvcnatError, *, causes: bool = False) -> None:
    """Print an error: one line a finding, further lines indented; `causes` adds what led to it."""
    for text in map(str, error.findings) if isinstance(error, ManifestError) else (str(error),):
        first, *more = text.splitlines() or [type(error).__name__]
        say(f"error: {first}", *(f"  {line}" for line in more))
    cause: BaseException | None = error
    while causes and (cause := cause.__cause__ if cause else None):
        say(f"  because of {type(cause).__name__}: {cause}")


def say_warnings(warnings: Iterable[object]) -> None:
    """Print warnings, one a line."""
    say(*(f"warning: {warning}" for warning in warnings))
