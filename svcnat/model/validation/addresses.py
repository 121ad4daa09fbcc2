"""What fields that hold addresses and ranges must keep, in Kubernetes' words."""

from __future__ import annotations

from collections.abc import Sequence

from svcnat.model.addresses import canonical, canonical_network, family, unusable
from svcnat.model.validation.names import ADDRESS_TEXT, CIDR_TEXT
from svcnat.model.validation.problems import Problem, invalid


def check_address(field: str, value: str) -> list[Problem]:
    """Return the problem of a text that is no IP address."""
    return [] if canonical(value) else [invalid(field, value, ADDRESS_TEXT)]


def check_endpoint(field: str, value: str) -> list[Problem]:
    """Return the problem of an address that cannot be reached from elsewhere: loopback, link-local and so on."""
    known = canonical(value)
    if known is None:
        return [invalid(field, value, ADDRESS_TEXT)]
    reason = unusable(known)
    return [invalid(field, value, reason)] if reason else []


def check_network(field: str, value: str) -> list[Problem]:
    """Return the problem of a text that is no CIDR; white space around it is ignored."""
    return [] if canonical_network(value.strip()) else [invalid(field, value, CIDR_TEXT)]


def check_pair(field: str, values: Sequence[str]) -> list[Problem]:
    """Return the problem of a list that holds more than one address (or range) of a family."""
    families = [family(value) for value in values]
    if len(families) == len(set(families)):
        return []
    return [invalid(field, ", ".join(values), "may specify no more than one IP for each IP family")]
