"""Sets that grow, in steps: whatever step a packet meets, what it asks holds what it should, before and after it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.ruleset import regrowth
from svcnat.ruleset.assembly import Assembly
from svcnat.ruleset.compile import compile_service
from svcnat.ruleset.diff import TableChange, apply, diff, outline
from svcnat.ruleset.nouns import Chain, Table
from svcnat.ruleset.plan import plan_service
from tests.ruleset.edits import NAMES, SETTINGS, objects


def done(table: Table, part: TableChange) -> Table:
    """What a transaction makes of a table; a set that is replaced loses what it held."""
    emptied = {name: {} if name in part.regrow else held for name, held in table.elements.items()}
    return apply({table.family: part}, {table.family: replace(table, elements=emptied)})[table.family]


def compiled(service, slices):
    return compile_service(plan_service(service, slices, SETTINGS))


@settings(max_examples=150)
@given(st.data())
def test_no_step_touches_a_set_that_a_packet_may_be_about_to_ask(data) -> None:
    """Nor one that its new rules ask: of a set that is replaced, no rule speaks before or after the transaction."""
    assembly = Assembly(SETTINGS)
    for name in NAMES:
        assembly.put(("default", name), compiled(*data.draw(objects(name))))
    before = assembly.ruleset()
    for name in data.draw(st.lists(st.sampled_from(NAMES), unique=True)):
        assembly.put(("default", name), compiled(*data.draw(objects(name))))
    want = assembly.ruleset()
    grown = data.draw(st.lists(st.sampled_from(["frontends", "nodeports", "hairpins", "backends-tcp", "backends-udp"])))
    have = {
        family: replace(
            each, sets={**each.sets, **{name: (each.sets[name][0], 0) for name in grown if name in each.sets}}
        )
        for family, each in outline(before).items()
    }
    change = diff(have, want)
    state = dict(before)
    for step in regrowth.steps(change, "1"):
        for family, part in step.items():
            was, now = state[family], done(state[family], part)
            for chain in (*was.chains.values(), *now.chains.values()):
                assert not chain.uses(part.regrow)
            state[family] = now
    for family, part in regrowth.twins(change, "1").items():
        table = state[family]
        assert not any(chain.uses(part.sweep_sets) for chain in table.chains.values())
        for name in part.sweep_sets:
            table.elements.pop(name)
        state[family] = done(table, part)
    ends = apply(change, before)
    for family in ends:
        assert state[family] == ends[family]


def test_a_change_in_which_no_set_grows_is_one_step() -> None:
    """Nothing is done twice that need not be."""
    change = {"ip": TableChange("ip", chains=(Chain("a"),), stale={"frontends": {("10.0.0.1",): None}})}
    assert list(regrowth.steps(change, "1")) == [change]
    assert regrowth.twins(change, "1") == {}
