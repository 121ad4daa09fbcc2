"""What an update strategy allows: how many Pods more, how many fewer, of which ordinals.

Strategies are kept as they were written; here is how they are read, once validation has passed them. Source: apps/v1
DeploymentStrategy, StatefulSetUpdateStrategy and DaemonSetUpdateStrategy, ``ResolveFenceposts`` of
kube-controller-manager and ``GetScaledValueFromIntOrPercent`` of apimachinery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROLLING = "RollingUpdate"
RECREATE = "Recreate"
ON_DELETE = "OnDelete"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many Pods there may be beyond those wanted, and how many of those wanted may be unavailable."""

    surge: int
    unavailable: int


def kind_of_update(strategy: Any) -> str:
    """Return the type of a strategy: RollingUpdate unless it says otherwise."""
    return str((strategy or {}).get("type") or ROLLING)


def deployment_allowance(strategy: Any, wanted: int) -> Allowance:
    """Return what a Deployment of `wanted` Pods may do: surge rounds up, unavailable down, and both are never 0."""
    fields = _rolling(strategy)
    surge = scaled(fields.get("maxSurge", "25%"), wanted, up=True)
    unavailable = scaled(fields.get("maxUnavailable", "25%"), wanted, up=False)
    # Percentages may both come out as nothing, and then nothing could ever happen.
    return Allowance(surge, min(unavailable, wanted) if surge or unavailable else 1)


def daemon_allowance(strategy: Any, wanted: int) -> Allowance:
    """Return what a DaemonSet on `wanted` nodes may do: both round up, and both are never 0."""
    fields = _rolling(strategy)
    surge = scaled(fields.get("maxSurge", 0), wanted, up=True)
    unavailable = scaled(fields.get("maxUnavailable", 1), wanted, up=True)
    return Allowance(surge, unavailable if surge or unavailable else 1)


def partition(strategy: Any) -> int:
    """Return the ordinal from which on a StatefulSet's Pods are updated."""
    return int(_rolling(strategy).get("partition") or 0)


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """Return a number as it is, or a percentage of `total`, rounded `up` or down.

    >>> scaled("25%", 3, up=True), scaled("25%", 3, up=False), scaled(2, 3, up=True)
    (1, 0, 2)
    """
    if isinstance(value, int):
        return value
    hundredths = int(value.removesuffix("%")) * total
    return -(-hundredths // 100) if up else hundredths // 100


def _rolling(strategy: Any) -> dict[str, Any]:
    found = (strategy or {}).get("rollingUpdate")
    return {key: value for key, value in found.items() if value is not None} if isinstance(found, dict) else {}
