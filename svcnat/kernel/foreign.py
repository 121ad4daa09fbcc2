"""The filter chains of other programs in a network namespace, as far as they decide about all translated packets.

Of each rule only that is read which a look at one packet needs: does it match every packet, every packet of a
translated flow, or some; and what becomes of those. nftables is read here, with what iptables-nft makes there; the
older iptables has a table of its own in the kernel (:mod:`svcnat.kernel.xtables`). It never writes. What the chains
mean for services is not decided here. Source: include/uapi/linux/netfilter/nf_tables.h, xt_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from svcnat.kernel import netns
from svcnat.kernel.netlink import NETFILTER, Attributes, Connection, attribute, attributes, text, walk
from svcnat.kernel.nfnetlink import GETCHAIN, GETRULE, GETTABLE

Matches = Literal["all", "translated", "some"]
Verdict = Literal["accept", "drop", "jump", "goto", "return", "continue"]

_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_NUMBERS = {name: number for number, name in _FAMILIES.items()}
_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}
_NFGENMSG = struct.Struct("=BBH")
_MOST_RULES = 10_000  # of one chain: whoever has more decides about single packets, not about all

_VERDICTS: dict[int, Verdict] = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}  # NF_*, NFT_*
_DORMANT = 1  # NFT_TABLE_F_DORMANT: a table whose chains see no packet
_SILENT = frozenset({"counter", "log", "last"})  # expressions that let every packet go on
_CT_STATUS, _DNAT = 2, 1 << 5  # NFT_CT_STATUS, IPS_DST_NAT
_NOT_EQUAL = 1  # NFT_CMP_NEQ

# struct xt_conntrack_mtinfo3: eight addresses of 16 bytes, two lifetimes, protocol, four ports, then these.
_CONNTRACK = struct.Struct("=146xHHH")  # match_flags, invert_flags, state_mask
_BY_STATE, _STATE_DNAT = 1, 1 << 7  # XT_CONNTRACK_STATE, XT_CONNTRACK_STATE_DNAT


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: which packets it ``matches``, and the verdict on them; ``target`` is the chain of a jump."""

    matches: Matches
    verdict: Verdict
    target: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A filter chain at a hook, with the chains that it calls.

    ``family``: ip, ip6, inet. ``hook``: input or forward. ``policy``: what becomes of packets that no rule decides
    about. ``called`` has the rules of the chains that this one, or one of them, sends all translated packets to.
    ``legacy``: it is one of iptables-legacy. Names are another program's, and may hold any character.
    """

    family: str
    table: str
    name: str
    hook: str
    priority: int
    policy: Verdict
    rules: tuple[Rule, ...] = ()
    called: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Foreign:
    """``tables``: every table of nftables as (family, name); ``chains``: the filter chains at input and forward.

    ``names``: every chain of any kind, as (family, table, chain), by which programs are known.
    """

    tables: frozenset[tuple[str, str]] = frozenset()
    chains: tuple[Chain, ...] = ()
    names: frozenset[tuple[str, str, str]] = frozenset()


def read(name_or_path: str | None = None) -> Foreign:
    """Read them in a network namespace (by name or path; None: the current one), in the order that packets meet them.

    Raises:
        MissingError: no such namespace, or a kernel without nftables.
        PrivilegeError: entering it, or asking there, is not allowed.
        StaleError: they keep changing.

    """
    with netns.entered(name_or_path):
        connection = Connection(NETFILTER, "nftables")
    try:
        return _read(connection)
    finally:
        connection.close()


def _read(connection: Connection) -> Foreign:
    listed = [(family, _name(found[1]), found) for family, found in _dump(connection, GETTABLE)]
    tables = frozenset((family, name) for family, name, _ in listed)
    asleep = {(family, name) for family, name, found in listed if int.from_bytes(found[2], "big") & _DORMANT}
    names, bases = set(), []
    for family, found in _dump(connection, GETCHAIN):
        names.add((family, _name(found[1]), _name(found[3])))
        if (family, _name(found[1])) not in asleep and 4 in found and 7 in found and _name(found[7]) == "filter":
            bases.append((family, found))
    chains = [chain for family, found in bases if (chain := _chain(connection, family, found))]
    return Foreign(tables, tuple(sorted(chains, key=lambda each: (each.hook, each.priority))), frozenset(names))


def _chain(connection: Connection, family: str, found: Attributes) -> Chain | None:
    place = attributes(found[4])
    hook = _HOOKS.get(int.from_bytes(place[1], "big"), "")
    if hook not in ("input", "forward"):
        return None
    table, name = _name(found[1]), _name(found[3])
    rules = _rules(connection, family, table, name)
    called: dict[str, tuple[Rule, ...]] = {}
    ahead = _targets(rules)
    while ahead:
        target = ahead.pop()
        if target not in called:
            called[target] = _rules(connection, family, table, target)
            ahead += _targets(called[target])
    return Chain(
        family,
        table,
        name,
        hook,
        int.from_bytes(place[2], "big", signed=True),
        "accept" if int.from_bytes(found[5], "big") else "drop",
        rules,
        called,
    )


def _targets(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.target for rule in rules if rule.target and rule.matches != "some"]


def _rules(connection: Connection, family: str, table: str, chain: str) -> tuple[Rule, ...]:
    wanted = attribute(1, text(table)) + attribute(2, text(chain))
    answers = islice(_dump(connection, GETRULE, family, wanted), _MOST_RULES)
    return tuple(_rule(found) for _, found in answers)


def _dump(
    connection: Connection, message: int, family: str = "", payload: bytes = b""
) -> Iterator[tuple[str, Attributes]]:
    for body in connection.dump_whole(message, _NFGENMSG.pack(_NUMBERS.get(family, 0), 0, 0) + payload):
        if body[0] in _FAMILIES:
            yield _FAMILIES[body[0]], attributes(body[_NFGENMSG.size :])


def _rule(found: Attributes) -> Rule:
    """What a rule is for every translated packet; expressions that are not known match some of them."""
    matches: Matches = "all"
    status = b""  # what a comparison with the state of the connection has shown so far
    for _, expression in walk(found[4]) if 4 in found else ():
        parts = attributes(expression)
        kind, data = _name(parts[1]), attributes(parts[2]) if 2 in parts else {}
        if kind in _SILENT:
            continue
        if kind == "immediate" and 2 in data and (verdict := attributes(data[2]).get(2)) is not None:
            return _verdict(matches, attributes(verdict))
        if kind == "reject" or (kind == "target" and _name(data[1]) == "REJECT"):
            return Rule(matches, "drop")
        step = _translated(kind, data, status)
        if step is None:
            matches = "some"
        elif step == b"matched":
            matches, status = "translated" if matches == "all" else matches, b""
        else:
            status = step
    return Rule(matches, "continue")


def _translated(kind: str, data: Attributes, status: bytes) -> bytes | None:
    """The next step of ``ct status dnat`` or ``-m conntrack --ctstate DNAT``; None if the rule asks something else."""
    if kind == "match":
        return b"matched" if _name(data[1]) == "conntrack" and asks_translated(bytes(data[3])) else None
    if kind == "ct" and int.from_bytes(data.get(2, b""), "big") == _CT_STATUS:
        return b"loaded"
    if kind == "bitwise" and status == b"loaded" and 4 in data:
        mask = bytes(attributes(data[4])[1])
        return b"masked" if mask == struct.pack("=I", _DNAT) else None
    if kind == "cmp" and status == b"masked" and int.from_bytes(data[2], "big") == _NOT_EQUAL:
        return b"matched" if not any(bytes(attributes(data[3])[1])) else None
    return None


def asks_translated(conntrack: bytes) -> bool:
    """True if this struct xt_conntrack_mtinfo3 matches every packet of a flow whose destination was translated."""
    if len(conntrack) < _CONNTRACK.size:
        return False
    flags, inverted, states = _CONNTRACK.unpack_from(conntrack)
    return bool(flags == _BY_STATE and not inverted and states & _STATE_DNAT)


def _verdict(matches: Matches, found: Attributes) -> Rule:
    code = int.from_bytes(found[1], "big", signed=True)
    target = _name(found[2]) if 2 in found else ""
    return Rule(matches, _VERDICTS.get(code, "continue"), target)


def _name(raw: memoryview) -> str:
    return bytes(raw).rstrip(b"\0").decode(errors="replace")
