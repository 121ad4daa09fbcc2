"""How bad the link of a node or a client is: latency and loss, as a topology declares them.

Pure. Loss is the router's work (:mod:`svcnat.lab.fabric`), latency that of :mod:`svcnat.lab.latency`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from svcnat.model.validation.problems import Problem, invalid

_LONGEST_LATENCY = 10.0
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(us|ms|s)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)%")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Link:
    """How bad a link is, in each direction: seconds that every packet takes, and the share that is lost."""

    latency: float = 0.0
    loss: float = 0.0


PERFECT = Link()


def parse(path: str, latency: Any, loss: Any) -> tuple[Link, list[Problem]]:
    """Read what is declared at `path`: a time as ``20ms``, a share as ``1%``, each None if it is left out."""
    problems = []
    seconds, share = _latency(latency), _loss(loss)
    if seconds is None:
        problems.append(
            invalid(f"{path}.latency", latency, f"must be a time of at most {_LONGEST_LATENCY:g}s, as 20ms or 1.5s")
        )
    if share is None:
        problems.append(invalid(f"{path}.loss", loss, "must be a share of at most 100%, as 1% or 0.5%"))
    return Link(seconds or 0.0, share or 0.0), problems


def _latency(declared: Any) -> float | None:
    if declared is None:
        return 0.0
    found = _TIME.fullmatch(declared) if isinstance(declared, str) else None
    seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
    return seconds if 0 <= seconds <= _LONGEST_LATENCY else None


def _loss(declared: Any) -> float | None:
    if declared is None:
        return 0.0
    found = _SHARE.fullmatch(declared) if isinstance(declared, str) else None
    share = float(found[1]) / 100 if found else -1.0
    return share if 0 <= share <= 1 else None
