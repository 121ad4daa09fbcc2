"""AGE as kubectl prints it. The time of day comes in as an argument; nothing here looks at a clock."""

from __future__ import annotations

from datetime import datetime, timedelta

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY

# Below `limit` seconds the age is told in `unit`, with the remainder in `minor` where one is given:
# HumanDuration of k8s.io/apimachinery/pkg/util/duration.
_STEPS: tuple[tuple[int, tuple[int, str], tuple[int, str] | None], ...] = (
    (2 * _MINUTE, (1, "s"), None),
    (10 * _MINUTE, (_MINUTE, "m"), (1, "s")),
    (3 * _HOUR, (_MINUTE, "m"), None),
    (8 * _HOUR, (_HOUR, "h"), (_MINUTE, "m")),
    (2 * _DAY, (_HOUR, "h"), None),
    (8 * _DAY, (_DAY, "d"), (_HOUR, "h")),
    (2 * _YEAR, (_DAY, "d"), None),
    (8 * _YEAR, (_YEAR, "y"), (_DAY, "d")),
)


def human_duration(elapsed: timedelta) -> str:
    """A duration in two or three significant figures: ``95s``, ``3m20s``, ``5h``, ``16d``, ``2y3d``.

    A clock may be a second behind; further in the future is ``<invalid>``.
    """
    seconds = int(elapsed.total_seconds())
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    for limit, (unit, suffix), minor in _STEPS:
        if seconds < limit:
            rest = (seconds % unit) // minor[0] if minor else 0
            return f"{seconds // unit}{suffix}" + (f"{rest}{minor[1]}" if minor and rest else "")
    return f"{seconds // _YEAR}y"


def age(created: str | None, now: datetime) -> str:
    """The time from an RFC 3339 timestamp to `now` (aware), or ``<unknown>`` when there is none."""
    if not created:
        return "<unknown>"
    try:
        return human_duration(now - datetime.fromisoformat(created))
    except (ValueError, TypeError):
        # A hand-written status may hold anything, a time without its zone among it.
        return "<invalid>"
