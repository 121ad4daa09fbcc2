"""What a ruleset does to the first packet of a flow, without a kernel, as exact probabilities.

A packet goes in; every way it can end comes out with its probability as a fraction. It is deliberately small: it
knows the expressions that svcnat writes and raises on any other, so that a new expression is a decision. Conntrack
beyond the first packet, routing and other tools' tables are not its subject.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from ipaddress import ip_address, ip_network

from svcnat.ruleset.endpoints import Family, family_of
from svcnat.ruleset.nouns import (
    Chain,
    Data,
    Dnat,
    DnatToPair,
    Drop,
    Goto,
    In,
    Is,
    Jump,
    Key,
    Masquerade,
    Match,
    OverLimit,
    Reject,
    Return,
    Ruleset,
    Set,
    Statement,
    Table,
    Update,
    Verdict,
    Vmap,
)

# Which slot comes next is chance, or follows from packets before or a hash: each is as likely over many flows.
_DRAW = re.compile(r"(?:numgen (?:random|inc)|jhash .+) mod (\d+)(?: seed 0x[0-9a-f]+)?")


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow: addresses as canonical text; ``protocol`` is tcp, udp or sctp.

    ``local`` is True if this node sends it (hook output), False if it arrives (hook prerouting). ``devices`` are those
    that it comes in and goes out by.
    """

    source: str
    destination: str
    protocol: str
    port: int
    local: bool = False
    devices: tuple[str, str] = ("", "")

    @property
    def family(self) -> Family:
        """The table that sees it."""
        return family_of(self.destination)


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
    node: frozenset[str]
    end: Outcome | None = None
    masqueraded: bool = False


_Ways = Iterator[tuple[Fraction, _State, bool]]  # probability, state, and True if the walk through the hook is over
_Steps = Iterator[tuple[Fraction, _State, str]]  # probability, state, and where it goes on


def outcomes(ruleset: Ruleset, packet: Packet, node: frozenset[str] = frozenset()) -> dict[Outcome, Fraction]:
    """Every way the packet can end, with its exact probability; they add up to 1. `node` are this node's addresses.

    Elements of a dynamic map that the ruleset holds are what clients are taken to remember; no client is over a limit.

    Raises:
        NotImplementedError: the ruleset holds an expression that this interpreter does not know.

    """
    table = ruleset.get(packet.family)
    totals: dict[Outcome, Fraction] = defaultdict(Fraction)
    if table is None:
        return {Outcome("passed"): Fraction(1)}
    start = _State(packet, packet, node | {packet.source} if packet.local else node)
    for share, state in _hook(table, "output" if packet.local else "prerouting", start):
        if state.end:
            totals[state.end] += share
            continue
        # A node's packet to itself leaves, too, by its loopback device; one that arrives for the node does not.
        last = "postrouting" if packet.local or state.now.destination not in node else "input"
        for rest, final in _hook(table, last, state):
            totals[_verdict_of(final)] += share * rest
    return dict(totals)


def _verdict_of(state: _State) -> Outcome:
    if state.now == state.original:
        return Outcome("passed", masqueraded=state.masqueraded)
    return Outcome("translated", state.now.destination, state.now.port, state.masqueraded)


def _hook(table: Table, hook: str, state: _State) -> Iterator[tuple[Fraction, _State]]:
    """Run the base chains of a hook in the order of their priorities; one that ends a packet ends it for the rest."""
    hooked = sorted((chain.hook.priority, name) for name, chain in table.chains.items() if chain.hook)
    names = [name for _, name in hooked if table.chains[name].hook[0] == hook]  # type: ignore[index]
    ways = [(Fraction(1), state)]
    for name in names:
        ways = [
            (share * rest, after)
            for share, before in ways
            for rest, after in (
                [(Fraction(1), before)]
                if before.end
                else [(rest, after) for rest, after, _ in _walk(table, table.chains[name], 0, before)]
            )
        ]
    yield from ways


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


def _execute(table: Table, statement: Statement, state: _State) -> _Steps:
    """Run one statement: after it comes the ``next`` rule, ``return`` from the chain, or ``over`` for the hook."""
    match statement:
        case Return():
            yield Fraction(1), state, "return"
        case Update():
            yield Fraction(1), state, "next"
        case Drop():
            yield Fraction(1), replace(state, end=Outcome("dropped")), "over"
        case Reject(tcp_reset=reset):
            yield Fraction(1), replace(state, end=Outcome("reset" if reset else "rejected")), "over"
        case Masquerade():
            yield Fraction(1), replace(state, masqueraded=True), "over"
        case Jump(chain=name) | Goto(chain=name):
            for share, end, over in _walk(table, table.chains[name], 0, state):
                came_back = "next" if isinstance(statement, Jump) else "return"
                yield share, end, "over" if over else came_back
        case Vmap() | Dnat() | DnatToPair():
            yield from _look_up(table, statement, state)
        case _:
            raise NotImplementedError(f"statement {statement!r}")


def _look_up(table: Table, statement: Vmap | Dnat | DnatToPair, state: _State) -> _Steps:
    match statement:
        case Vmap(fields=fields, map=name):
            for share, key in _keys(fields, state):
                for rest, after, step in _vmap(table, _data(table, name, key), state):
                    yield share * rest, after, step
        case Dnat(fields=fields, map=name):
            for share, key in _keys(fields, state):
                yield share, *_translated(state, _data(table, name, key))
        case DnatToPair(field=field, addresses=addresses, ports=ports):  # pragma: no branch - the last there is
            key = (_field(field, state),)
            address, port = _data(table, addresses, key), _data(table, ports, key)
            yield Fraction(1), *_translated(state, (*address, *port) if address and port else None)


def _data(table: Table, name: str, key: Key) -> Data:
    return table.elements.get(name, {}).get(key)


def _vmap(table: Table, data: Data, state: _State) -> _Steps:
    match data:
        case None:
            yield Fraction(1), state, "next"
        case Verdict(action="goto", chain=name):
            yield from _execute(table, Goto(name), state)
        case Verdict(action="drop"):
            yield from _execute(table, Drop(), state)
        case _:
            raise NotImplementedError(f"verdict {data!r}")


def _translated(state: _State, endpoint: Data) -> tuple[_State, str]:
    """The state after a translation, or before the next rule if the map had no endpoint."""
    if endpoint is None:
        return state, "next"
    address, port = endpoint[:2]
    return replace(state, now=replace(state.now, destination=str(address), port=int(port))), "over"


def _matches(table: Table, match: Match, state: _State) -> bool:
    match match:
        case OverLimit():
            return False
        case In(fields=fields, set=name, negated=negated):
            held = table.elements.get(name, {})
            return any(_held(key, held, table.sets.get(name)) for _, key in _keys(fields, state)) != negated
        case Is(field="ct status", value="dnat"):
            return state.now != state.original
        case Is(field=field, value=value, negated=negated):  # pragma: no branch - the last there is
            actual = str(_field(field, state))
            return (ip_address(actual) in ip_network(value) if "/" in value else actual == value) != negated


def _held(key: Key, elements: Mapping[Key, Data], declared: Set | None) -> bool:
    """True if the key is an element; the last field of an interval set is a range."""
    if declared is None or "interval" not in declared.flags:
        return key in elements
    address = ip_address(str(key[-1]))
    return any(key[:-1] == each[:-1] and address in ip_network(str(each[-1])) for each in elements)


def _keys(fields: tuple[str, ...], state: _State) -> Iterator[tuple[Fraction, Key]]:
    """The key that the fields make of a packet: one, or with numgen one a number, all equally probable."""
    number = next((found for name in fields if (found := _DRAW.fullmatch(name))), None)
    slots = int(number[1]) if number else 1
    for slot in range(slots):
        yield (
            Fraction(1, slots),
            tuple(slot if _DRAW.fullmatch(name) else _field(name, state) for name in fields),
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
        "fib saddr type": "local" if now.source in state.node else "unicast",
        "meta iifname": now.devices[0],
        "meta oifname": now.devices[1],
    }
    if name not in known:
        raise NotImplementedError(f"field {name} on a packet of {now.protocol} over {family}")
    return known[name]
