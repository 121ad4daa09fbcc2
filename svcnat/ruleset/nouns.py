"""The nouns of nftables that svcnat uses, as values: sets, chains, rules, tables.

A value prints itself as nft text and compares by content. Nothing here talks to a kernel (that is
:mod:`svcnat.kernel`) or knows what a Service is (:mod:`svcnat.ruleset.layout` does).
Syntax: nft(8), sections SETS, MAPS, CHAINS, STATEMENTS.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.strings import comment_text, digest

TABLE = "svcnat"


class Verdict(NamedTuple):
    """The data of a verdict map's element: ``goto CHAIN`` or ``drop``; the comment is for people."""

    action: str
    chain: str = ""
    comment: str = ""


Key = tuple[str | int, ...]  # in the declared order: addresses and protocols as text, ports and slots as numbers
Data = tuple[str | int, ...] | Verdict | None  # None: the element of a set
Elements = Mapping[str, Mapping[Key, Data]]  # by the name of the set or map


@dataclass(frozen=True)
class Set:
    """A named set, or a map if ``data`` is given.

    ``key`` and ``data`` are nft type names (``ipv4_addr . inet_service``), or the text after ``typeof``.
    ``fields`` and ``data_fields`` name the kernel's type of each part, for the element codec. ``size`` is the number
    of elements it can hold. With the flag ``dynamic`` packets add the elements, which then last `timeout` seconds (0:
    as long as the kernel wants them): they are the kernel's, and no part of a ruleset.
    """

    name: str
    key: str
    fields: tuple[str, ...]
    data: str = ""
    data_fields: tuple[str, ...] = ()
    typeof: bool = False
    counter: bool = False
    size: int = 0
    flags: tuple[str, ...] = ()
    timeout: int = 0

    @property
    def is_map(self) -> bool:
        """True if elements have data."""
        return bool(self.data)

    @property
    def dynamic(self) -> bool:
        """True if packets add its elements."""
        return "dynamic" in self.flags

    @cached_property
    def signature(self) -> str:
        """What the comment of this set in the kernel ends with; the size is compared apart, since it may grow."""
        return digest(f"{self._body}{self.counter}")

    @property
    def _body(self) -> str:
        flags = f" flags {','.join(self.flags)};" if self.flags else ""
        timeout = f" timeout {self.timeout}s;" if self.timeout else ""
        return (
            f"{'typeof' if self.typeof else 'type'} {self.key}{f' : {self.data}' if self.data else ''};{flags}{timeout}"
        )

    @property
    def declaration(self) -> str:
        """The text between the braces of ``add set`` or ``add map``."""
        counter = " counter;" if self.counter else ""
        return f'{self._body} size {self.size};{counter} comment "#{self.signature}";'


@dataclass(frozen=True, slots=True)
class Is:
    """``FIELD VALUE``, or ``FIELD != VALUE`` if `negated`; a value is an address, a CIDR or a name."""

    field: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.field} {'!= ' if self.negated else ''}{self.value}"


@dataclass(frozen=True, slots=True)
class In:
    """``FIELD . FIELD @SET``: the concatenation is an element of the set; ``!= @SET`` if `negated`."""

    fields: tuple[str, ...]
    set: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{' . '.join(self.fields)} {'!= ' if self.negated else ''}@{self.set}"


@dataclass(frozen=True, slots=True)
class Vmap:
    """``FIELD . FIELD vmap @MAP``: do what the map says; go on with the next rule if it says nothing."""

    fields: tuple[str, ...]
    map: str

    def __str__(self) -> str:
        return f"{' . '.join(self.fields)} vmap @{self.map}"


@dataclass(frozen=True, slots=True)
class Dnat:
    """``dnat FAMILY to FIELD . FIELD map @MAP``: translate; go on with the next rule if the map has no such key."""

    family: Family
    fields: tuple[str, ...]
    map: str

    def __str__(self) -> str:
        return f"dnat {self.family} to {' . '.join(self.fields)} map @{self.map}"


@dataclass(frozen=True, slots=True)
class DnatToPair:
    """``dnat FAMILY to FIELD map @ADDRESSES : FIELD map @PORTS``: as :class:`Dnat`, the port from a map of its own.

    nft 1.0.6 aborts on a dynamic map whose data is ``ipv6_addr . inet_service``, so IPv6 has two.
    """

    family: Family
    field: str
    addresses: str
    ports: str

    def __str__(self) -> str:
        return f"dnat {self.family} to {self.field} map @{self.addresses} : {self.field} map @{self.ports}"


@dataclass(frozen=True, slots=True)
class Update:
    """``update @MAP { FIELD timeout SECONDS : FIELD . FIELD }``: remember, or renew what is remembered."""

    map: str
    field: str
    seconds: int
    data: tuple[str, ...]

    def __str__(self) -> str:
        return f"update @{self.map} {{ {self.field} timeout {self.seconds}s : {' . '.join(self.data)} }}"


@dataclass(frozen=True, slots=True)
class OverLimit:
    """``add @SET { FIELD LIMIT }`` as a match: this client is over a limit of its own, which `limit` states."""

    verb: str
    set: str
    field: str
    limit: str

    def __str__(self) -> str:
        return f"{self.verb} @{self.set} {{ {self.field} {self.limit} }}"


@dataclass(frozen=True, slots=True)
class Drop:
    """``drop``: no answer."""

    def __str__(self) -> str:
        return "drop"


@dataclass(frozen=True, slots=True)
class Jump:
    """``jump CHAIN``: come back to the next rule."""

    chain: str

    def __str__(self) -> str:
        return f"jump {self.chain}"


@dataclass(frozen=True, slots=True)
class Goto:
    """``goto CHAIN``: do not come back."""

    chain: str

    def __str__(self) -> str:
        return f"goto {self.chain}"


@dataclass(frozen=True, slots=True)
class Masquerade:
    """``masquerade fully-random``: without it, two flows of one port race for the same new port and one is lost."""

    def __str__(self) -> str:
        return "masquerade fully-random"


@dataclass(frozen=True, slots=True)
class Reject:
    """``reject``: ICMP port unreachable, or a TCP reset."""

    tcp_reset: bool = False

    def __str__(self) -> str:
        return "reject with tcp reset" if self.tcp_reset else "reject"


@dataclass(frozen=True, slots=True)
class Return:
    """``return`` to the calling chain."""

    def __str__(self) -> str:
        return "return"


Match = Is | In | OverLimit
Statement = Vmap | Dnat | DnatToPair | Update | Jump | Goto | Masquerade | Reject | Drop | Return


@dataclass(frozen=True)
class Rule:
    """Matches, then one statement; the comment says why to whoever lists the ruleset."""

    matches: tuple[Match, ...]
    statement: Statement
    comment: str = ""

    @cached_property
    def text(self) -> str:
        """The rule as nft reads it, without its comment."""
        return " ".join(map(str, (*self.matches, self.statement)))

    @cached_property
    def signature(self) -> str:
        """The whole comment of this rule in the kernel."""
        return f"{comment_text(self.comment)} #{digest(self.text)}".lstrip()

    @cached_property
    def effect(self) -> str:
        """Which sets the rule asks and what it does, as the kernel names them.

        A comment survives when somebody replaces its rule, or renames the chain that it jumps to; this does not.
        """
        parts = []
        for part in (*self.matches, self.statement):
            match part:
                case In():
                    parts.append(f"lookup:{part.set}")
                case OverLimit():
                    parts.append(f"dynset:{part.set}")
                case Vmap():
                    parts.append(f"lookup:{part.map}")
                case Dnat():
                    parts += [f"lookup:{part.map}", "nat"]
                case DnatToPair():
                    parts += [f"lookup:{part.addresses}", f"lookup:{part.ports}", "nat"]
                case Update():
                    parts.append(f"dynset:{part.map}")
                case Jump() | Goto():
                    parts.append(f"{type(part).__name__.lower()}:{part.chain}")
                case Masquerade():
                    parts.append("masq")
                case Drop() | Reject() | Return():
                    parts.append(type(part).__name__.lower())
        return " ".join(parts)

    def __str__(self) -> str:
        return f'{self.text} comment "{self.signature}"'


class Hook(NamedTuple):
    """Where a base chain hangs: ``type TYPE hook HOOK priority PRIORITY``."""

    hook: str
    priority: int
    type: str = "nat"

    def __str__(self) -> str:
        return f"type {self.type} hook {self.hook} priority {self.priority};"


class ChainSignature(NamedTuple):
    """What can be compared with the kernel's: its hook, and of its rules, in order, the comment and the effect."""

    hook: Hook | None
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """A chain and all its rules."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None

    def uses(self, sets: Collection[str]) -> bool:
        """True if a rule looks one of these sets up, or adds to it."""
        return any(
            name in sets for rule in self.rules for noun in (*rule.matches, rule.statement) for name in _sets(noun)
        )

    def asking(self, others: Mapping[str, str]) -> Chain:
        """The same with other sets, by the names of those that it looks up."""
        return replace(self, rules=tuple(_asking(rule, others) for rule in self.rules)) if self.uses(others) else self

    @cached_property
    def signature(self) -> ChainSignature:
        """What can be compared with the kernel's."""
        return ChainSignature(self.hook, tuple(f"{rule.signature} {rule.effect}" for rule in self.rules))


def _asking(rule: Rule, others: Mapping[str, str]) -> Rule:
    """The rule with other sets; those that packets fill are never replaced."""
    matches = tuple(
        replace(each, set=others.get(each.set, each.set)) if isinstance(each, In) else each for each in rule.matches
    )
    statement = rule.statement
    if isinstance(statement, Vmap | Dnat):
        statement = replace(statement, map=others.get(statement.map, statement.map))
    return replace(rule, matches=matches, statement=statement)


def _sets(noun: Match | Statement) -> tuple[str, ...]:
    match noun:
        case In(set=name) | OverLimit(set=name) | Vmap(map=name) | Dnat(map=name) | Update(map=name):
            return (name,)
        case DnatToPair():
            return noun.addresses, noun.ports
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Learned:
    """Maps in which packets remember an endpoint for each client, and the endpoints that may be remembered.

    ``maps`` is one map (client : address . port), or two (client : address, client : port).
    """

    maps: tuple[str, ...]
    endpoints: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Table:
    """One family's table: structure (sets and chains, few) and elements (many), apart.

    The elements of dynamic sets are the kernel's; ``learned`` says which of them must not stay.
    """

    family: Family
    sets: Mapping[str, Set] = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)
    elements: Elements = field(default_factory=dict)
    learned: tuple[Learned, ...] = ()

    @property
    def limits(self) -> dict[str, str]:
        """What every client in a set has used up: the limit, by set."""
        return {
            match.set: match.limit
            for chain in self.chains.values()
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, OverLimit)
        }


Ruleset = Mapping[Family, Table]  # what a network namespace should have: one table a family
