"""What becomes of a packet in another program's chain: verdicts, calls, what is not known. It needs no kernel."""

from __future__ import annotations

import struct

import pytest

from svcnat.agent.doctor.paper import Ends, Packet, follow
from svcnat.kernel.foreign import Chain, Element
from svcnat.kernel.steps import Compare, Constant, Load, Lookup, Mask, Rule, Span, States, Step, Unknown, Untrack

NEW = 8  # NF_CT_STATE_BIT(IP_CT_NEW)
PACKET = Packet(
    {"iifname": b"eth0", "l4proto": b"\x06"},
    {("network", 12): b"\x0a\x00\x00\x01", ("transport", 2): b"\x1f\x90"},
    NEW,
    translated=True,
)
SURE = (States(NEW),)
MAYBE = (Unknown(),)
NEVER = (States(NEW, inverted=True),)
ACCEPT, DROP = Rule("accept"), Rule("drop")
ACCEPTED, DROPPED = Ends(accept=True, drop=False), Ends(accept=False, drop=True)
EITHER = Ends(accept=True, drop=True)


def chain(*rules: Rule, **others: tuple[Rule, ...]) -> Chain:
    return Chain("ip", "t", "c", "forward", 0, "drop", rules, others)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (chain(), DROPPED),
        (chain(ACCEPT), ACCEPTED),
        (chain(Rule("accept", SURE)), ACCEPTED),
        (chain(Rule("accept", NEVER)), DROPPED),
        (chain(Rule("accept", MAYBE)), EITHER),
        (chain(Rule("drop", MAYBE), ACCEPT), ACCEPTED),
        (chain(Rule("return"), ACCEPT), DROPPED),
        (chain(Rule("continue"), ACCEPT), ACCEPTED),
        (chain(Rule("return", MAYBE), ACCEPT), EITHER),
        (chain(Rule("jump", (), "x"), ACCEPT, x=(Rule("return"), DROP)), ACCEPTED),
        (chain(Rule("goto", (), "x"), ACCEPT, x=()), DROPPED),
        (chain(Rule("jump", MAYBE, "x"), x=(ACCEPT,)), EITHER),
        (chain(Rule("jump", MAYBE, "x"), ACCEPT, x=(DROP,)), ACCEPTED),
        (chain(Rule("jump", (), "x"), x=(Rule("accept", MAYBE), DROP)), EITHER),
        (chain(Rule("jump", (), "x"), ACCEPT, x=(Rule("jump", (), "x"),)), ACCEPTED),
        (chain(Rule("jump", (), "absent")), EITHER),
        (chain(Rule("translate", SURE)), Ends(accept=False, drop=False, translate=True)),
        (chain(Rule("translate", MAYBE)), Ends(accept=False, drop=True, translate=True)),
        (chain(Rule("continue", (Untrack(),), handle=3), ACCEPT), Ends(accept=True, drop=False, untracks=("c", 3))),
        (chain(Rule("continue", (*MAYBE, Untrack()), handle=3), ACCEPT), ACCEPTED),
        (
            chain(Rule("jump", MAYBE, "x"), ACCEPT, x=(Rule("continue", (Untrack(),), handle=3),)),
            ACCEPTED,
        ),
    ],
)
def test_the_ends_of_a_packet(case: Chain, expected: Ends) -> None:
    """Rules that surely match decide; one that may accept leaves both open, one that may drop counts for nothing."""
    assert follow(case, PACKET) == expected


def same(value: bytes) -> tuple[Span, ...]:
    return ((value, value),)


DEVICE = Load(0, 16, "iifname")
LONG = b"eth0".ljust(16, b"\0")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((DEVICE, Compare(0, same(LONG))), True),
        ((DEVICE, Compare(0, same(LONG), inverted=True)), False),
        ((DEVICE, Compare(0, same(b"eth"))), True),  # a wildcard
        ((Load(0, 16, "oifname"), Compare(0, same(LONG))), None),
        ((Load(0, 1, "network", 12), Compare(0, same(b"\x0a"))), True),
        ((Load(0, 4, "network", 16), Compare(0, same(b"\x0a\x00\x00\x01"))), None),
        ((Load(0, 4, "network", 12), Mask(0, 1, b"\xff\0\0\0", bytes(4)), Compare(1, same(b"\x0a\0\0\0"))), True),
        ((Load(0, 4, "mark"), Mask(0, 0, b"\xff\0\0\0", bytes(4)), Compare(0, same(bytes(4)))), None),
        ((Load(0, 2, "transport", 2), Compare(0, ((b"\x1f\x00", b"\x1f\xff"),))), True),
        ((Load(0, 2, "transport", 2), Compare(0, ((b"\x00\x00", b"\x03\xff"),))), False),
        ((Load(0, 4, "status"), Compare(0, same(struct.pack("=I", 1 << 5)))), True),
        ((Load(0, 4, "state"), Compare(0, same(struct.pack("=I", NEW)))), True),
        ((Constant(0, b"\x05"), Compare(0, same(b"\x05"))), True),
        ((States(0, translated=True),), True),
        ((States(2),), False),
        ((DEVICE, Unknown(), Compare(0, same(LONG))), None),
        ((Load(0, 2, "transport", 2), Lookup(0, "ports")), True),
        ((Load(0, 2, "transport", 2), Lookup(0, "ports", inverted=True)), False),
        ((Load(0, 2, "transport", 2), Lookup(0, "none")), False),
        ((Load(0, 2, "transport", 2), Lookup(0, "all")), True),
        ((Load(0, 2, "transport", 0), Lookup(0, "ports")), None),
        ((Load(0, 2, "transport", 2), Lookup(0, "long")), None),
        ((Load(0, 1, "l4proto"), Load(1, 2, "transport", 2), Lookup(0, "both")), True),
    ],
)
def test_what_a_rule_asks(steps: tuple[Step, ...], expected: bool | None) -> None:
    """Yes, no, or that cannot be known."""
    sets = {
        "ports": (Element(b"\x1f\x00", b"\x1f\xff"),),
        "none": (Element(b"\x00\x16", b"\x00\x16"),),
        "all": (Element(b"", b""),),
        "both": (Element(b"\x06\0\0\0\x1f\x90", b"\x06\0\0\0\x1f\x90"),),
    }
    asked = Chain("ip", "t", "c", "forward", 0, "drop", (Rule("accept", steps),), sets=sets)
    assert follow(asked, PACKET) == {True: ACCEPTED, False: DROPPED, None: EITHER}[expected]


@pytest.mark.parametrize(
    ("known", "elements", "expected"),
    [
        (True, (Element(LONG, LONG, "accept"),), ACCEPTED),
        (True, (Element(LONG, LONG, "goto", "x"),), DROPPED),
        (True, (Element(b"wan0".ljust(16, b"\0"), b"wan0".ljust(16, b"\0"), "accept"),), DROPPED),
        (True, (Element(b"wan0", b"wan0", "drop"), Element(b"", b"", "accept")), ACCEPTED),
        (False, (Element(LONG, LONG, "accept"),), EITHER),
        (True, None, EITHER),
    ],
)
def test_maps_of_verdicts_decide(known: bool, elements: tuple[Element, ...] | None, expected: Ends) -> None:
    """By the element that the packet finds; one that cannot be known leaves all of them open."""
    rule = Rule("continue", (DEVICE, Lookup(0, "m", decides=True)))
    sets = {} if elements is None else {"m": elements}
    asked = Chain("ip", "t", "c", "forward", 0, "drop", (rule,), {"x": (Rule("return"),)}, sets)
    assert follow(asked, PACKET if known else Packet(state=NEW)) == expected


def test_a_chain_too_long_to_be_read_is_taken_for_harmless() -> None:
    """And one whose chains call each other without end is followed to a bound."""
    assert follow(Chain("ip", "t", "c", "forward", 0, "drop", None), PACKET) == ACCEPTED
    many = {f"c{n}": (Rule("jump", (), f"c{n + 1}"),) * 8 for n in range(15)} | {"c15": (Rule("continue"),)}
    assert follow(Chain("ip", "t", "c", "forward", 0, "accept", many["c0"], many), PACKET).accept
