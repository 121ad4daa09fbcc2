"""What a ruleset does to the first packet of a flow, without a kernel, as exact probabilities.

A packet goes in; every way it can end comes out with its probability as a fraction. It is deliberately small: it
knows the expressions that svcnat writes and raises on any other, so that a new expression is a decision. Conntrack
beyond the first packet, routing and other tools' tables are not its subject.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from ipaddress import ip_address, ip_network

from svcnat.ruleset.nouns import (
    Chain,
    Dnat,
    Goto,
    In,
    Jump,
    Key,
    Masquerade,
    Match,
    Reject,
    Return,
    Ruleset,
    Statement,
    Table,
    Verdict,
    Vmap,
)
from svcnat.ruleset.plan import Family

_NUMGEN = re.compile(r"numgen random mod (\d+)")


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow: addresses as canonical text; ``protocol`` is tcp, udp or sctp.

    ``local`` is True if this node sends it (hook output), False if it arrives (hook prerouting).
    """

    source: str
    destination: str
    protocol: str
    port: int
    source_port: int = 40000
    local: bool = False

    @property
    def family(self) -> Family:
        """The table that sees it."""
        return "ip6" if ":" in self.destination else "ip"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a packet ends: ``passed``, ``translated`` to destination and port, ``reset``, ``rejected`` or ``dropped``.

    ``masqueraded``: the endpoint sees an address of the node in place of the client's.
    """

    what: str
    destination: str = ""
    port: int = 0
    masqueraded: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    """A packet on its way: what it was (conntrack's original direction), what it is, what was decided."""

    original: Packet
    now: Packet
    end: Outcome | None = None
    masqueraded: bool = False


_Ways = Iterator[tuple[Fraction, _State, bool]]  # probability, state, and True if the walk through the hook is over


def outcomes(ruleset: Ruleset, packet: Packet) -> dict[Outcome, Fraction]:
    """Every way the packet can end, with its exact probability; they add up to 1.

    Raises:
        NotImplementedError: the ruleset holds an expression that this interpreter does not know.

    """
    table = ruleset.get(packet.family)
    totals: dict[Outcome, Fraction] = defaultdict(Fraction)
    if table is None:
        return {Outcome("passed"): Fraction(1)}
    start = _State(packet, packet)
    for share, state in _hook(table, "output" if packet.local else "prerouting", start):
        if state.end:
            totals[state.end] += share
            continue
        for rest, final in _hook(table, "postrouting", state):
            totals[_verdict_of(final)] += share * rest
    return dict(totals)


def _verdict_of(state: _State) -> Outcome:
    if state.now == state.original:
        return Outcome("passed", masqueraded=state.masqueraded)
    return Outcome("translated", state.now.destination, state.now.port, state.masqueraded)


def _hook(table: Table, hook: str, state: _State) -> Iterator[tuple[Fraction, _State]]:
    chains = [chain for chain in table.chains.values() if chain.hook and chain.hook.hook == hook]
    if len(chains) != 1:
        raise NotImplementedError(f"{len(chains)} base chains at {hook}")
    return ((share, end) for share, end, _ in _walk(table, chains[0], 0, state))


def _walk(table: Table, chain: Chain, index: int, state: _State) -> _Ways:
    """Run the chain from the rule at `index`."""
    if index == len(chain.rules):
        yield Fraction(1), state, False
        return
    rule = chain.rules[index]
    if not all(_matches(table, match, state) for match in rule.matches):
        yield from _walk(table, chain, index + 1, state)
        return
    for share, after, step in _execute(table, rule.statement, state):
        if step == "next":
            for rest, end, over in _walk(table, chain, index + 1, after):
                yield share * rest, end, over
        else:
            yield share, after, step == "over"


def _execute(table: Table, statement: Statement, state: _State) -> Iterator[tuple[Fraction, _State, str]]:
    """Run one statement: the step after it is ``next`` rule, ``return`` from the chain, or ``over`` for the hook."""
    match statement:
        case Return():
            yield Fraction(1), state, "return"
        case Reject(tcp_reset=reset):
            yield Fraction(1), replace(state, end=Outcome("reset" if reset else "rejected")), "over"
        case Masquerade():
            yield Fraction(1), replace(state, masqueraded=True), "over"
        case Jump(chain=name) | Goto(chain=name):
            for share, end, over in _walk(table, table.chains[name], 0, state):
                came_back = "next" if isinstance(statement, Jump) else "return"
                yield share, end, "over" if over else came_back
        case Vmap(fields=fields, map=name):
            for share, key in _keys(fields, state):
                yield from _scaled(share, _vmap(table, table.elements[name].get(key), state))
        case Dnat(fields=fields, map=name):
            for share, key in _keys(fields, state):
                data = table.elements[name].get(key)
                if data is None:
                    yield share, state, "next"
                else:
                    address, port = data
                    moved = replace(state.now, destination=str(address), port=int(port))
                    yield share, replace(state, now=moved), "over"
        case _:
            raise NotImplementedError(f"statement {statement!r}")


def _vmap(table: Table, data: object, state: _State) -> Iterator[tuple[Fraction, _State, str]]:
    match data:
        case None:
            yield Fraction(1), state, "next"
        case Verdict(action="goto", chain=name):
            yield from _execute(table, Goto(name), state)
        case Verdict(action="drop"):
            yield Fraction(1), replace(state, end=Outcome("dropped")), "over"
        case _:
            raise NotImplementedError(f"verdict {data!r}")


def _scaled(share: Fraction, ways: Iterator[tuple[Fraction, _State, str]]) -> Iterator[tuple[Fraction, _State, str]]:
    return ((share * rest, state, step) for rest, state, step in ways)


def _matches(table: Table, match: Match, state: _State) -> bool:
    if isinstance(match, In):
        return any(key in table.elements[match.set] for _, key in _keys(match.fields, state))
    if match.field == "ct status":
        if match.value != "dnat":
            raise NotImplementedError(f"ct status {match.value}")
        return state.now != state.original
    actual = _field(match.field, state)
    if "/" in match.value:
        return ip_address(str(actual)) in ip_network(match.value)
    return actual == match.value


def _keys(fields: tuple[str, ...], state: _State) -> Iterator[tuple[Fraction, Key]]:
    """The key that the fields make of a packet: one, or with numgen one a number, all equally probable."""
    number = next((found for name in fields if (found := _NUMGEN.fullmatch(name))), None)
    slots = int(number[1]) if number else 1
    for slot in range(slots):
        yield (
            Fraction(1, slots),
            tuple(slot if _NUMGEN.fullmatch(name) else _field(name, state) for name in fields),
        )


def _field(name: str, state: _State) -> str | int:
    family, now, original = state.now.family, state.now, state.original
    known: dict[str, str | int] = {
        f"{family} saddr": now.source,
        f"{family} daddr": now.destination,
        "meta l4proto": now.protocol,
        "th dport": now.port,
        f"{now.protocol} dport": now.port,
        f"ct original {family} daddr": original.destination,
        "ct original proto-dst": original.port,
    }
    if name not in known:
        raise NotImplementedError(f"field {name} on a packet of {now.protocol} over {family}")
    return known[name]
