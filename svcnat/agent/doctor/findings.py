"""What a check found, and what findings have in common.

Nothing is printed here, and names in findings are as other programs chose them: whoever prints them must make them
harmless. In a fix, they are quoted for a shell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from svcnat.agent.doctor.facts import Unknown

Severity = Literal["error", "warning", "unknown", "ok"]
ORDER: tuple[Severity, ...] = ("error", "warning", "unknown", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. ``severity``: error (services do not work), warning (they may not), unknown (not looked at), ok.

    ``fix`` is a command for a shell, or a sentence; "" if there is nothing to do. ``node``: where, "" for everywhere.
    """

    severity: Severity
    subject: str
    message: str
    fix: str = ""
    node: str = ""


def not_known(subject: str, what: str, unknown: Unknown) -> Finding:
    """The finding about what could not be looked at."""
    return Finding("unknown", subject, f"{what} could not be looked at: {unknown.reason}")


def some(names: list[str] | tuple[str, ...], most: int = 3) -> str:
    """The first few of many names: ``a, b, c and 4 more``."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
