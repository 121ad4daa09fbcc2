"""Rules of other programs as values: the steps that a packet must pass, and the verdict on those that do.

Registers are numbered in units of four bytes. Nothing is read here, and no step is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["accept", "drop", "jump", "goto", "return", "continue", "translate"]
Span = tuple[bytes, bytes]  # the least and the greatest of a run of values

SLOT = 4  # bytes of a register


@dataclass(frozen=True, slots=True)
class Load:
    """Put a part of the packet into registers, from `slot` on: `what` names it, or the header that it is in."""

    slot: int
    size: int
    what: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Constant:
    """Put a value into registers."""

    slot: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Mask:
    """Keep the bits of a register that `mask` has, and turn round those of `turn`."""

    source: int
    slot: int
    mask: bytes
    turn: bytes


@dataclass(frozen=True, slots=True)
class Compare:
    """Go on if what is in registers is in one of the spans; `inverted`: if it is in none."""

    slot: int
    spans: tuple[Span, ...]
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """Go on if a set has what is in registers; of a map of verdicts, do what it says."""

    slot: int
    name: str
    inverted: bool = False
    decides: bool = False


@dataclass(frozen=True, slots=True)
class States:
    """Go on if the connection is in one of these states, or was translated if `translated` is asked for."""

    states: int
    translated: bool = False
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Go on, or not: that cannot be told; nor what is in the registers from here on."""


@dataclass(frozen=True, slots=True)
class Untrack:
    """Keep connection tracking from seeing the packet, and go on."""


Step = Load | Constant | Mask | Compare | Lookup | States | Unknown | Untrack


@dataclass(frozen=True, slots=True)
class Rule:
    """The steps that a packet must pass, and the verdict on those that do; ``target`` is the chain of a jump.

    ``handle`` is the kernel's number of the rule; of one of iptables-legacy, its place in the chain, from 1 on.
    """

    verdict: Verdict = "continue"
    steps: tuple[Step, ...] = ()
    target: str = ""
    handle: int = 0
