"""The chains of other programs in a network namespace, as far as they decide about packets of services.

nftables is read here, with what iptables-nft makes there; the older iptables has a table of its own in the kernel
(:mod:`svcnat.kernel.xtables`). It never writes, and a ruleset of any size takes bounded time: of very long chains and
sets it only tells that they are long. What the chains mean for services is not decided here. Source:
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from svcnat.errors import MissingError, StaleError
from svcnat.kernel import netns
from svcnat.kernel.expressions import name_of, parse_rule, parse_verdict
from svcnat.kernel.netlink import NETFILTER, Attributes, Connection, attribute, attributes, text, walk
from svcnat.kernel.nfnetlink import GETCHAIN, GETRULE, GETSET, GETSETELEM, GETTABLE
from svcnat.kernel.steps import Lookup, Rule, Verdict
from svcnat.ruleset.nouns import TABLE

_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_NUMBERS = {name: number for number, name in _FAMILIES.items()}
_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}
_READ = {"filter": frozenset(_HOOKS.values()), "nat": frozenset({"prerouting", "output"})}  # what decides, by type
_NFGENMSG = struct.Struct("=BBH")
_MOST_RULES = 4_000  # of a chain and all that it calls: whoever has more decides about single packets, not about all
_MOST_ELEMENTS = 2_000  # of a set
_READS = 20  # chains that change at every look are a fault of their own
_DORMANT = 1  # NFT_TABLE_F_DORMANT: a table whose chains see no packet
_INTERVAL = 4  # NFT_SET_INTERVAL
_END, _CATCHALL = 1, 2  # NFT_SET_ELEM_INTERVAL_END, _CATCHALL


@dataclass(frozen=True, slots=True)
class Element:
    """What a set has from `low` to `high`, and of a map of verdicts the verdict; no `low` stands for all the rest."""

    low: bytes
    high: bytes
    verdict: Verdict = "continue"
    target: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain at a hook, with the chains and the sets that it uses.

    ``family``: ip, ip6, inet. ``kind``: filter or nat. ``policy``: what becomes of packets that no rule decides about.
    ``called`` has the rules of the chains that this one, or one of them, may send packets to; ``sets`` the elements of
    the sets that they ask. Those that are too long are missing; then it is not ``whole``. ``legacy``: it is one of
    iptables-legacy. Names are another program's, and may hold any character.
    """

    family: str
    table: str
    name: str
    hook: str
    priority: int
    policy: Verdict
    rules: tuple[Rule, ...] | None = ()
    called: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    sets: Mapping[str, tuple[Element, ...]] = field(default_factory=dict)
    legacy: bool = False
    kind: str = "filter"
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Foreign:
    """``tables``: every table of nftables as (family, name), and ``chains``: the chains at hooks that decide.

    ``names``: every chain of any kind, as (family, table, chain), by which programs are known. ``devices``: the index
    of each.
    """

    tables: frozenset[tuple[str, str]] = frozenset()
    chains: tuple[Chain, ...] = ()
    names: frozenset[tuple[str, str, str]] = frozenset()
    devices: Mapping[str, int] = field(default_factory=dict)


def read(name_or_path: str | None = None) -> Foreign:
    """Read them in a network namespace (by name or path; None: the current one), in the order that packets meet them.

    Raises:
        MissingError: no such namespace, or a kernel without nftables.
        PrivilegeError: entering it, or asking there, is not allowed.
        StaleError: they keep changing.

    """
    with netns.entered(name_or_path):
        devices = {name: index for index, name in socket.if_nameindex()}
        return _read(lambda: Connection(NETFILTER, "nftables"), devices)


def _read(connect: Callable[[], Connection], devices: dict[str, int]) -> Foreign:
    ask = _Asking(connect)
    listed = [(family, name_of(found[1]), found) for family, found in ask.all(GETTABLE)]
    tables = frozenset((family, name) for family, name, _ in listed)
    asleep = {(family, name) for family, name, found in listed if int.from_bytes(found[2], "big") & _DORMANT}
    names, bases = set(), []
    for family, found in ask.all(GETCHAIN):
        table = name_of(found[1])
        names.add((family, table, name_of(found[3])))
        if (family, table) not in asleep and table != TABLE and 4 in found and 7 in found:
            bases.append((family, found))
    chains = [chain for family, found in bases if (chain := _chain(ask, family, found))]
    return Foreign(
        tables, tuple(sorted(chains, key=lambda each: (each.hook, each.priority))), frozenset(names), devices
    )


def _chain(ask: _Asking, family: str, found: Attributes) -> Chain | None:
    place, kind = attributes(found[4]), name_of(found[7])
    hook = _HOOKS.get(int.from_bytes(place[1], "big"), "")
    if hook not in _READ.get(kind, ()):
        return None
    table, name = name_of(found[1]), name_of(found[3])
    called: dict[str, tuple[Rule, ...]] = {}
    sets: dict[str, tuple[Element, ...]] = {}
    left, ahead, seen, whole = _MOST_RULES, [name], set(), True
    while ahead:
        chain = ahead.pop()
        if chain in seen:
            continue
        seen.add(chain)
        rules = ask.rules(family, table, chain, left)
        if rules is None:
            whole = False
            continue
        called[chain] = rules
        left -= len(rules)
        ahead += [rule.target for rule in rules if rule.target]
        for step in (step for rule in rules for step in rule.steps if isinstance(step, Lookup)):
            if step.name in sets:
                continue
            elements = ask.elements(family, table, step.name)
            if elements is None:
                whole = False
                continue
            sets[step.name] = elements
            ahead += [element.target for element in elements if element.target]
    policy: Verdict = "accept" if int.from_bytes(found[5], "big") else "drop"
    priority = int.from_bytes(place[2], "big", signed=True)
    return Chain(
        family, table, name, hook, priority, policy, called.pop(name, None), called, sets, kind=kind, whole=whole
    )


class _Asking:
    """Questions, each over a connection of its own: who closes one need not hear the end of a long answer."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect

    def all(
        self, message: int, most: int = 1 << 30, family: str = "", payload: bytes = b""
    ) -> list[tuple[str, Attributes]]:
        """At most so many objects of a kind, and their families."""
        for _ in range(_READS):
            connection = self._connect()
            try:
                return list(islice(_answers(connection, message, family, payload), most))
            except StaleError:
                continue
            finally:
                connection.close()
        raise StaleError("nftables: they keep changing in this network namespace")

    def rules(self, family: str, table: str, chain: str, most: int) -> tuple[Rule, ...] | None:
        """The rules of a chain; None if there are more."""
        wanted = attribute(1, text(table)) + attribute(2, text(chain))
        found = self.all(GETRULE, most + 1, family, wanted)
        return None if len(found) > most else tuple(parse_rule(each) for _, each in found)

    def elements(self, family: str, table: str, name: str) -> tuple[Element, ...] | None:
        """The elements of a set; None if there are too many, or they are such as are not understood here."""
        wanted = attribute(1, text(table)) + attribute(2, text(name))
        connection = self._connect()
        try:
            answer = connection.get(GETSET, _NFGENMSG.pack(_NUMBERS[family], 0, 0) + wanted)
        finally:
            connection.close()
        if answer is None:
            return None
        flags = attributes(answer[_NFGENMSG.size :]).get(3)
        found: list[Attributes] = []
        try:
            for _, each in self.all(GETSETELEM, _MOST_ELEMENTS, family, wanted):
                found += [attributes(element) for _, element in walk(each[3])] if 3 in each else ()
                if len(found) > _MOST_ELEMENTS:
                    return None
        except MissingError:
            return None  # it has gone
        return _elements(found, ranges=bool(flags and int.from_bytes(flags, "big") & _INTERVAL))


def _elements(found: list[Attributes], *, ranges: bool) -> tuple[Element, ...] | None:
    known: list[Element] = []
    edges: list[tuple[bytes, bool, Attributes]] = []
    for each in found:
        flags = int.from_bytes(each[3], "big") if 3 in each else 0
        if flags & _CATCHALL:
            known.append(_element(b"", b"", each))
            continue
        key = bytes(attributes(each[1])[1])
        last = bytes(attributes(each[10])[1]) if 10 in each else key
        if 10 in each or not ranges:
            if last != key and len(key) > 4:
                return None  # several fields, each with a range of its own
            known.append(_element(key, last, each))
        else:
            edges.append((key, not flags & _END, each))
    edges.sort(key=lambda edge: edge[:2])
    for place, (key, begins, each) in enumerate(edges):
        if begins:
            later = (
                int.from_bytes(edges[place + 1][0], "big") - 1 if place + 1 < len(edges) else (1 << 8 * len(key)) - 1
            )
            known.append(_element(key, later.to_bytes(len(key), "big"), each))
    return tuple(sorted(known, key=lambda element: not element.low))


def _element(low: bytes, high: bytes, found: Attributes) -> Element:
    data = attributes(found[2]) if 2 in found else {}
    return Element(low, high, *parse_verdict(attributes(data[2]))) if 2 in data else Element(low, high)


def _answers(connection: Connection, message: int, family: str, payload: bytes) -> Iterator[tuple[str, Attributes]]:
    for body in connection.dump(message, _NFGENMSG.pack(_NUMBERS.get(family, 0), 0, 0) + payload):
        if body[0] in _FAMILIES:
            yield _FAMILIES[body[0]], attributes(body[_NFGENMSG.size :])
