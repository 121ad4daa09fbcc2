"""What a question is answered with, as a value.

How it looks on the wire is :mod:`svcnat.dns.wire`'s subject, what the answer is :mod:`svcnat.dns.records`'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Name = tuple[str, ...]
"""The labels of a name, the root's left out, in lower case where names are looked up."""
Type = Literal["A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "SOA", "NS"]
Outcome = Literal["NOERROR", "NXDOMAIN"]


@dataclass(frozen=True, slots=True)
class Srv:
    """The data of an SRV record (RFC 2782)."""

    weight: int
    port: int
    target: Name
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Soa:
    """The data of an SOA record; seconds (RFC 1035; ``minimum`` is how long a "no" may be kept: RFC 2308)."""

    server: Name
    mailbox: Name
    serial: int
    minimum: int
    refresh: int = 7200
    retry: int = 1800
    expire: int = 86400


Data = str | Name | Srv | Soa
"""An address or a text; a name; or what is more than one thing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN."""

    owner: Name
    type: Type
    ttl: int
    data: Data


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a question; `elsewhere` is the name, not one of ours, whose records complete it."""

    outcome: Outcome = "NOERROR"
    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    elsewhere: Name | None = None

    @property
    def turns(self) -> int:
        """In how many orders it can be given: whoever takes the first record shall not always get the same."""
        return max(1, sum(each.type != "CNAME" for each in self.records))

    def turned(self, turn: int) -> Answer:
        """The same with its records rotated, behind the CNAMEs that lead to them."""
        aliases = tuple(each for each in self.records if each.type == "CNAME")
        rest = self.records[len(aliases) :]
        if len(rest) < 2:
            return self
        turn %= len(rest)
        return replace(self, records=(*aliases, *rest[turn:], *rest[:turn]))
