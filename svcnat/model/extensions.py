"""The annotations by which svcnat goes further than kube-proxy: ``svcnat.io/...``, their grammar and their meaning.

What they do to the rules is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from svcnat.model import shape
from svcnat.model.addresses import canonical
from svcnat.model.defaults import probe_with_defaults
from svcnat.model.objects import Probe

PREFIX = "svcnat.io/"
SCHEDULER = "svcnat.io/scheduler"
WEIGHT = "svcnat.io/weight"
WEIGHTS = "svcnat.io/weights"
ON_REMOVAL = "svcnat.io/on-endpoint-removal"
MAX_CONNECTIONS = "svcnat.io/max-connections"
CONNECTION_RATE = "svcnat.io/connection-rate"
PROBE = "svcnat.io/probe"
PROBE_RESULTS = "svcnat.io/probe-results"

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
    weights = {}
    for known, weight in _by_address(text, 'addresses and weights: {"10.0.0.1": 3}'):
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= HEAVIEST:
            raise ValueError(f"the weight of {known} must be a whole number between 0 and {HEAVIEST}, inclusive")
        weights[known] = weight
    return weights


def parse_probe(text: str) -> Probe:
    """Return the probe of a Service's hand-written endpoints, with its defaults: a core/v1 Probe as JSON.

    What the values must keep is :mod:`svcnat.model.validation.probes`' subject.
    """
    form = 'must be a probe as JSON: {"tcpSocket": {}}'
    try:
        given = msgspec.json.decode(text)  # unlike json, it knows that half a surrogate pair is no text
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(form) from error
    if not isinstance(given, dict):
        raise ValueError(form)  # noqa: TRY004
    found = shape.check(given, Probe)
    wrong = [f"{path}: {reason}" for path, reason in found.wrong]
    wrong += [f"{each.path}: unknown field{each.hint}" for each in found.unknown]
    if wrong:
        raise ValueError("; ".join(wrong))
    return probe_with_defaults(msgspec.convert(found.pruned, Probe))


def parse_probe_results(text: str) -> dict[str, bool]:
    """Return what probes found out about the endpoints of an object, by canonical address: False is not ready."""
    results = {}
    for known, ready in _by_address(text, 'addresses and results: {"10.0.0.1": false}'):
        if not isinstance(ready, bool):
            raise ValueError(f"the result of {known} must be true or false")  # noqa: TRY004
        results[known] = ready
    return results


def _by_address(text: str, form: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a JSON object by canonical address."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be JSON, {form}") from error
    if not isinstance(given, dict):
        raise ValueError(f"must be a JSON object, {form}")  # noqa: TRY004
    for address, value in given.items():
        known = canonical(address)
        if known is None:
            raise ValueError(f"{json.dumps(address[:60])} is no IP address")
        yield known, value


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
