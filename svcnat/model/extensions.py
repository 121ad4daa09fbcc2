"""The annotations by which svcnat goes further than kube-proxy: ``svcnat.io/...``, their grammar and their meaning.

What they do to the rules is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from svcnat.model.addresses import canonical

PREFIX = "svcnat.io/"
SCHEDULER = "svcnat.io/scheduler"
WEIGHT = "svcnat.io/weight"
WEIGHTS = "svcnat.io/weights"
ON_REMOVAL = "svcnat.io/on-endpoint-removal"
MAX_CONNECTIONS = "svcnat.io/max-connections"
CONNECTION_RATE = "svcnat.io/connection-rate"

Scheduler = Literal["random", "round-robin", "source-hash", "maglev"]
SCHEDULERS: tuple[Scheduler, ...] = ("random", "round-robin", "source-hash", "maglev")

HEAVIEST = 1000
"""The largest weight; 0 drains an endpoint."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many new connections of one client in so many seconds."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What happens to an endpoint's connections when it goes: None keeps them, else they end after so many seconds."""

    terminate_after: int | None = None


def parse_scheduler(text: str) -> Scheduler:
    """Return how a Service chooses an endpoint.

    Raises:
        ValueError: `text` is none of the schedulers; the message says what they are (so for all ``parse_*`` here).

    """
    if text not in SCHEDULERS:
        raise ValueError(f"must be one of {', '.join(SCHEDULERS)}")
    return text


def parse_weight(text: str) -> int:
    """Return the weight of a Pod's endpoint, 0 to 1000."""
    if not _NUMBER.fullmatch(text) or int(text) > HEAVIEST:
        raise ValueError(f"must be a whole number between 0 and {HEAVIEST}, inclusive")
    return int(text)


def parse_weights(text: str) -> dict[str, int]:
    """Return the weights of an EndpointSlice's addresses, by canonical address."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError('must be JSON, addresses and weights: {"10.0.0.1": 3}') from error
    if not isinstance(given, dict):
        raise ValueError('must be a JSON object, addresses and weights: {"10.0.0.1": 3}')  # noqa: TRY004
    weights = {}
    for address, weight in given.items():
        known = canonical(address)
        if known is None:
            raise ValueError(f"{json.dumps(address[:60])} is no IP address")
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= HEAVIEST:
            raise ValueError(f"the weight of {known} must be a whole number between 0 and {HEAVIEST}, inclusive")
        weights[known] = weight
    return weights


def parse_removal(text: str) -> Removal:
    """Return what ``keep``, ``terminate`` or ``terminate=SECONDS`` means."""
    if text == "keep":
        return Removal()
    word, equals, seconds = text.partition("=")
    if word != "terminate" or (equals and not _NUMBER.fullmatch(seconds)):
        raise ValueError("must be keep, terminate or terminate=SECONDS")
    return Removal(int(seconds or "0"))


def parse_max_connections(text: str) -> int:
    """Return how many connections one client may have open, at least 1."""
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) < 2**32:
        raise ValueError("must be a whole number of at least 1")
    return int(text)


def parse_rate(text: str) -> Rate:
    """Return what ``COUNT/second`` (minute, hour, day) means."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError("must be COUNT/second, COUNT/minute, COUNT/hour or COUNT/day")
    return Rate(int(found[1]), _SECONDS[found[2]])
