"""Frontends of UDP that go: they refuse until their flows have ended, and whoever looks meanwhile sees that they go."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.ruleset import farewell
from svcnat.ruleset.assembly import Assembly
from svcnat.ruleset.diff import Outline, TableChange, apply, diff, outline
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Data, Key, Ruleset, Set, Table, Verdict
from tests.ruleset.edits import NAMES, SETTINGS, objects
from tests.ruleset.test_regrowth import compiled

MAPS = ("frontends", "nodeports")


def dispatched(ruleset: Ruleset) -> dict[tuple[Family, str, Key], Data]:
    """Where each frontend leads."""
    return {
        (family, name, key): data
        for family, table in ruleset.items()
        for name in MAPS
        for key, data in table.elements.get(name, {}).items()
    }


def verdicts(count: int) -> dict[Key, Data]:
    return {("10.0.0.1", "udp", port): Verdict("goto", "udp-random-1", "a") for port in range(1, count + 1)}


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_they_are_refused_and_then_they_are_gone(data, remade: bool) -> None:
    """Nothing else is different in between; a pass that looks then leaves them as they are, and takes them away."""
    assembly = Assembly(SETTINGS)
    for name in NAMES:
        assembly.put(("default", name), compiled(*data.draw(objects(name))))
    before = assembly.ruleset()
    for name in NAMES:
        assembly.put(("default", name), compiled(*data.draw(objects(name))))
    want = assembly.ruleset()
    have = outline(before)
    if remade:
        have = {family: replace(each, sets={**each.sets, "hairpins": ("strange", 1)}) for family, each in have.items()}
    first, second = farewell.in_two(diff(have, want), have, want)
    between = apply(first, before)
    left = {
        each: data._replace(action="goto", chain="refuse")
        for each, data in dispatched(before).items()
        if each[2][-2] == "udp" and each not in dispatched(want) and isinstance(data, Verdict)
    }
    left |= {
        (family, "frontends", (*address, *port)): Verdict("goto", "refuse")
        for family, table in before.items()
        for address in table.elements["nodeport-ips"].keys() - want[family].elements["nodeport-ips"].keys()
        for port in (*table.elements["nodeports"], *want[family].elements["nodeports"])
        if port[0] == "udp"
    }
    assert dispatched(between) == {**dispatched(want), **left}
    assert {
        (family, name, key): held
        for family, part in second.items()
        for name, elements in part.stale.items()
        for key, held in elements.items()
    } == left
    assert apply(second, between) == apply(diff(have, want), before)
    # Whoever compares now has nothing to write before those flows have ended.
    again, then = farewell.in_two(diff(outline(between), want), outline(between), want)
    assert all(part.sweeps_only for part in again.values())
    assert then == second


def test_node_ports_are_refused_at_addresses_that_answer_them_no_more() -> None:
    """Until their flows have ended; not where a Service answers at that address and port by itself."""

    def table(*addresses: str) -> Ruleset:
        elements: dict[str, dict[Key, Data]] = {
            "frontends": {("192.0.2.1", "udp", 53): Verdict("goto", "udp-random-1")},
            "nodeports": {("udp", port): Verdict("goto", "nodeport-udp-random-1") for port in (53, 30053)},
            "nodeport-ips": {(address,): None for address in addresses},
        }
        return {"ip": Table("ip", {name: Set(name, "", (), size=4096) for name in elements}, elements=elements)}

    have, want = table("192.0.2.1", "192.0.2.2"), table("192.0.2.3", "192.0.2.2")
    first, second = farewell.in_two(diff(outline(have), want), outline(have), want)
    refused = {("192.0.2.1", "udp", 30053): Verdict("goto", "refuse")}
    assert first["ip"].fresh == {"nodeport-ips": {("192.0.2.3",): None}, "frontends": refused}
    assert second == {"ip": TableChange("ip", stale={"frontends": refused})}
    # Whoever was to take them away died, and the address is back: it answers from the next commit on.
    left = apply(first, have)
    first, _ = farewell.in_two(diff(outline(left), have), outline(left), have)
    refusing = {key[-1][0] for key, data in dispatched(apply(first, left)).items() if data == Verdict("goto", "refuse")}
    assert refusing == {"192.0.2.3"}


def test_a_map_that_has_no_room_for_more_takes_them_away_at_once() -> None:
    """Or is replaced anyway: what is there in between would come on top of what is wanted."""
    for count, parts in ((1024, True), (1025, False)):
        _, second = farewell.in_two({"ip": TableChange("ip", stale={"frontends": verdicts(count)})})
        assert bool(second) is parts
    grown = TableChange("ip", regrow=("frontends",), stale={"frontends": verdicts(2)})
    assert farewell.in_two({"ip": grown}) == ({"ip": grown}, {})


def test_a_table_of_which_nothing_is_known_is_made_anew_without_them() -> None:
    """Nobody can tell what went."""
    made = TableChange("ip", remake=True, fresh={"frontends": verdicts(1)})
    assert farewell.in_two({"ip": made}) == ({"ip": made}, {})
    assert farewell.in_two({"ip": made}, {"ip6": Outline()}) == ({"ip": made}, {})
