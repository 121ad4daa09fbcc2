"""Following one packet through another program's chain, on paper.

Pure. Of the packet only so much is known as its fields say: where a rule asks for more, both ways are followed, and the
answer is every end that the packet may come to. Marks, limits and whatever else a chain could ask are such unknowns.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from svcnat.kernel.foreign import Chain, Element
from svcnat.kernel.steps import (
    SLOT,
    Compare,
    Constant,
    Load,
    Lookup,
    Mask,
    Rule,
    Span,
    States,
    Step,
    Unknown,
    Untrack,
)

_DEPTH = 16  # the kernel's own limit of chains that call chains (NFT_JUMP_STACK_SIZE)
_MOST_STEPS = 50_000  # rules that one packet meets; chains that call each other many times are followed no further
_DNAT = 1 << 5  # IPS_DST_NAT


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet: fields by name, headers by name and offset; what is missing is not known.

    ``state`` is the connection's (NF_CT_STATE_BIT; 0: not known), ``translated`` whether its destination has been.
    """

    fields: Mapping[str, bytes] = field(default_factory=dict)
    headers: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    state: int = 0
    translated: bool = False

    def part(self, what: str, offset: int, size: int) -> bytes | None:
        """So many bytes of a field, or of a header from an offset on; None if they are not known."""
        if what == "state":
            return struct.pack("=I", self.state) if self.state else None
        if what == "status":
            return struct.pack("=I", _DNAT if self.translated else 0)
        if what in self.fields:
            return self.fields[what][:size].ljust(size, b"\0")
        for (header, start), value in self.headers.items():
            if header == what and start <= offset and offset + size <= start + len(value):
                return value[offset - start :][:size]
        return None


@dataclass(frozen=True, slots=True)
class Ends:
    """What may become of a packet in a chain.

    ``untracks``: the chain and the handle of the rule that surely keeps connection tracking from it, or None.
    """

    accept: bool
    drop: bool
    translate: bool = False
    untracks: tuple[str, int] | None = None


def follow(chain: Chain, packet: Packet) -> Ends:
    """Follow a packet through a chain at a hook.

    A drop that depends on something unknown does not count: to drop some packets is what firewalls are for, and says
    nothing of services. An accept that does counts, beside what becomes of the others.
    """
    if chain.rules is None:  # too long to be read
        return Ends(accept=True, drop=False)
    walk = _Walk(chain, packet)
    ends = walk.through(chain.name, chain.rules, 0, sure=True)
    if ends & {"continue", "return"}:
        ends |= {chain.policy}
    return Ends("accept" in ends, "drop" in ends, "translate" in ends, walk.untracks)


class _Walk:
    """One packet's way through one chain."""

    def __init__(self, chain: Chain, packet: Packet) -> None:
        self._chain, self._packet = chain, packet
        self.untracks: tuple[str, int] | None = None
        self._left = _MOST_STEPS

    def through(self, name: str, rules: tuple[Rule, ...], depth: int, *, sure: bool) -> set[str]:
        """What may become of the packet in a chain's rules: verdicts, ``continue`` for going on behind them."""
        found: set[str] = set()
        for rule in rules:
            self._left -= 1
            if self._left < 0:
                return found | {"accept"}
            matched, verdicts = self._match(rule)
            if matched is False:
                continue
            if matched and sure and self.untracks is None and any(isinstance(each, Untrack) for each in rule.steps):
                self.untracks = (name, rule.handle)
            ends = set[str]()
            for verdict, target in verdicts:
                ends |= self._do(verdict, target, depth, sure=sure and matched is True and len(verdicts) == 1)
            if matched is None:
                ends = ends - {"drop"} | {"continue"}
            found |= ends - {"continue"}
            if "continue" not in ends:
                return found
        return found | {"continue"}

    def _do(self, verdict: str, target: str, depth: int, *, sure: bool) -> set[str]:
        if verdict not in ("jump", "goto"):
            return {verdict}
        if depth >= _DEPTH:
            return {"continue"}
        if target not in self._chain.called:
            return {"accept", "continue"}  # too long to be read
        ends = self.through(target, self._chain.called[target], depth + 1, sure=sure)
        back = "return" if verdict == "goto" else "continue"
        return ends - {"continue", "return"} | ({back} if ends & {"continue", "return"} else set())

    def _match(self, rule: Rule) -> tuple[bool | None, list[tuple[str, str]]]:
        """Tell whether the packet meets a rule (None: it may), and which verdicts that may have."""
        registers = _Registers()
        answer: bool | None = True
        verdicts = [(str(rule.verdict), rule.target)]
        for step in rule.steps:
            if isinstance(step, Lookup) and step.decides:
                passed, verdicts = self._decided(registers, step)
            else:
                passed = self._passes(registers, step)
            if passed is False:
                return False, verdicts
            if passed is None:
                answer = None
        return answer, verdicts

    def _passes(self, registers: _Registers, step: Step) -> bool | None:
        match step:
            case Load():
                registers.put(step.slot, self._packet.part(step.what, step.offset, step.size), step.size)
            case Constant():
                registers.put(step.slot, step.value, len(step.value))
            case Mask():
                registers.put(step.slot, _masked(registers.get(step.source, len(step.mask)), step), len(step.mask))
            case Compare():
                value = registers.get(step.slot, len(step.spans[0][0])) if step.spans else b""
                return None if value is None else _within(value, step.spans) != step.inverted
            case Lookup():
                found = _find(self._chain.sets.get(step.name), registers, step.slot)
                return None if found is None else bool(found) != step.inverted
            case States():
                if not self._packet.state:
                    return None
                asked = bool(step.states & self._packet.state) or (step.translated and self._packet.translated)
                return asked != step.inverted
            case Unknown():
                registers.forget()
                return None
        return True

    def _decided(self, registers: _Registers, step: Lookup) -> tuple[bool | None, list[tuple[str, str]]]:
        elements = self._chain.sets.get(step.name)
        found = _find(elements, registers, step.slot)
        if found is None:
            return None, [(each.verdict, each.target) for each in elements or ()] or [("accept", "")]
        return bool(found), [(each.verdict, each.target) for each in found]


class _Registers:
    """What rules load values into, four bytes each; what was never loaded, or is not known, is None."""

    def __init__(self) -> None:
        self._slots: dict[int, bytes | None] = {}

    def put(self, slot: int, value: bytes | None, size: int) -> None:
        padded = value.ljust(-(-size // SLOT) * SLOT, b"\0") if value is not None else None
        for place in range(-(-size // SLOT)):
            self._slots[slot + place] = padded[place * SLOT :][:SLOT] if padded is not None else None

    def get(self, slot: int, size: int) -> bytes | None:
        parts = [self._slots.get(slot + place) for place in range(-(-size // SLOT))]
        return None if None in parts else b"".join(part for part in parts if part is not None)[:size]

    def forget(self) -> None:
        self._slots.clear()


def _masked(value: bytes | None, step: Mask) -> bytes | None:
    if value is None:
        return None
    return bytes((one & mask) ^ turn for one, mask, turn in zip(value, step.mask, step.turn, strict=True))


def _within(value: bytes, spans: tuple[Span, ...]) -> bool:
    return any(low <= value <= high for low, high in spans)


def _find(elements: tuple[Element, ...] | None, registers: _Registers, slot: int) -> list[Element] | None:
    """The element of a set that a packet finds, in a list that is empty if it finds none; None if that is not known."""
    if elements is None:
        return None
    for each in elements:
        if not each.low:
            return [each]
        value = registers.get(slot, len(each.low))
        if value is None:
            return None
        if each.low <= value <= each.high:
            return [each]
    return []
