"""The difference of two rulesets, and of what a kernel holds and a ruleset, as a value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.diff import Outline, TableChange, apply, diff, forget, outline
from svcnat.ruleset.nftables import render_change, render_cleanup, render_parts, render_sweep, render_sweep_singly
from svcnat.ruleset.nouns import ChainSignature, Hook
from svcnat.ruleset.plan import Settings, plan
from tests.ruleset.build import service, slice_of


def wanted(*addresses: str):
    return compile_plan(plan([service("a", "10.96.0.1")], [slice_of("a", *addresses)], Settings()))


def observed(ruleset, **changed) -> dict[str, Outline]:
    """What a kernel that holds the ruleset shows, with the IPv4 outline changed."""
    outlines = outline(ruleset)
    return {**outlines, "ip": replace(outlines["ip"], **changed)}


def test_nothing_to_do_is_empty() -> None:
    """diff(a, a) is empty, and so is its text."""
    rules = wanted("10.0.0.1")
    assert diff(outline(rules), rules) == {}
    assert render_change({}) == ""


def test_one_more_endpoint_changes_elements_and_adds_a_shape() -> None:
    """Cost follows the change: the frontend's verdict, one slot, one hairpin; the old shape is swept later."""
    change = diff(outline(wanted("10.0.0.1")), wanted("10.0.0.1", "10.0.0.2"))
    assert render_change(change).splitlines()[0] == "add chain ip svcnat tcp-random-2"
    assert change["ip"].counts() == {
        "elements added": 3,
        "elements deleted": 1,
        "chains added": 1,
        "chains deleted": 1,
        "sets added": 0,
        "sets deleted": 0,
        "objects deleted": 0,
    }
    assert render_change(change).splitlines()[-4:] == [
        "delete element ip svcnat frontends { 10.96.0.1 . tcp . 80 }",
        'add element ip svcnat frontends { 10.96.0.1 . tcp . 80 comment "default/a:p80" : goto tcp-random-2 }',
        "add element ip svcnat hairpins { 10.0.0.2 . 10.0.0.2 }",
        "add element ip svcnat backends-tcp { 10.96.0.1 . 80 . 1 : 10.0.0.2 . 8080 }",
    ]
    assert render_sweep(change) == "flush chain ip svcnat tcp-random-1\ndelete chain ip svcnat tcp-random-1\n"


def test_a_strangers_chain_is_only_swept() -> None:
    """A chain that nothing of ours reaches changes no packet: no main transaction, only the sweep."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains, "stray": ChainSignature(None, ())}
    change = diff(observed(rules, chains=chains), rules)
    assert render_change(change) == ""
    assert change["ip"].sweep == ("stray",)


def test_a_strangers_base_chain_goes_at_once() -> None:
    """Packets meet it: it does not wait for the sweep, and does not go with it."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains, "stray": ChainSignature(Hook("forward", 0, "filter"), ("drop",))}
    change = diff(observed(rules, chains=chains), rules)
    assert render_change(change) == "flush chain ip svcnat stray\ndelete chain ip svcnat stray\n"
    assert change["ip"].sweep == ()
    assert change["ip"].counts()["chains deleted"] == 1
    assert list(render_sweep_singly(change)) == []


@pytest.mark.parametrize("name", ["9", "a b", "a;flush ruleset", "a\nb", "\u2028", "", "a\\b", "counter", "ip"])
def test_a_strangers_name_that_nft_cannot_say_remakes_the_table(name: str) -> None:
    """The kernel takes any name; none of them becomes text, nor do words of nft's own."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains, name: ChainSignature(None, ())}
    assert diff(observed(rules, chains=chains), rules)["ip"].remake


def test_a_strangers_objects_go_with_the_sweep() -> None:
    """After the chains and sets that may use them; one that not every nft can name goes with the table."""
    rules = wanted("10.0.0.1")
    sets = {**outline(rules)["ip"].sets, "stray": ("", 4096)}
    change = diff(observed(rules, sets=sets, objects=(("ct helper", "a"), ("flowtable", "b"))), rules)
    assert render_change(change) == ""
    assert render_sweep(change).splitlines() == [
        "delete set ip svcnat stray",
        "delete ct helper ip svcnat a",
        "delete flowtable ip svcnat b",
    ]
    assert change["ip"].counts()["objects deleted"] == 2
    for kind, name in (("5", "a"), ("counter", "a;flush ruleset")):
        assert diff(observed(rules, objects=((kind, name),)), rules)["ip"].remake


def test_elements_that_text_cannot_say_go_as_they_came() -> None:
    """Packets may meet them, so they do not wait for the sweep."""
    rules = wanted("10.0.0.1")
    change = diff(observed(rules, strange={"frontends": (b"*",)}), rules)
    assert not change["ip"].sweeps_only
    assert render_change(change) == ""
    assert change["ip"].strange == {"frontends": (b"*",)}
    assert change["ip"].counts()["elements deleted"] == 1


def test_a_rule_that_only_looks_like_ours_is_not() -> None:
    """Its comment may be ours; the sets that it asks and what it does are compared, too."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains}
    (jump,) = chains["nat-output"].rules
    chains["nat-output"] = chains["nat-output"]._replace(rules=(jump.replace("jump:services", "jump:serv2"),))
    change = diff(observed(rules, chains=chains), rules)
    assert [chain.name for chain in change["ip"].refill] == ["nat-output"]


def test_a_sweep_can_be_taken_statement_by_statement() -> None:
    """Where the kernel refuses one of them, the others are to be done."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains, "stray": ChainSignature(None, ())}
    assert list(render_sweep_singly(diff(observed(rules, chains=chains), rules))) == [
        "flush chain ip svcnat stray\n",
        "delete chain ip svcnat stray\n",
    ]


def test_a_changed_rule_refills_its_chain() -> None:
    """An added, deleted or altered rule: the chain is emptied and filled in one transaction."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains, "refuse": ChainSignature(None, ("accept",))}
    text = render_change(diff(observed(rules, chains=chains), rules))
    assert text.splitlines()[0] == "flush chain ip svcnat refuse"
    assert len(text.splitlines()) == 3


def test_a_base_chain_at_another_hook_remakes_the_table() -> None:
    """nf_tables cannot move a base chain."""
    rules = wanted("10.0.0.1")
    chains = {**outline(rules)["ip"].chains}
    chains["nat-output"] = chains["nat-output"]._replace(hook=Hook("output", 0))
    assert diff(observed(rules, chains=chains), rules)["ip"].remake


def test_sets_come_and_go_like_chains() -> None:
    """A missing set is added; a stranger's goes in the sweep, after the chains that may use it."""
    rules = wanted("10.0.0.1")
    good = outline(rules)["ip"].sets
    fewer = {name: held for name, held in good.items() if name != "hairpins"}
    elements = {name: held for name, held in outline(rules)["ip"].elements.items() if name != "hairpins"}
    change = diff(observed(rules, sets=fewer, elements=elements), rules)
    assert [declared.name for declared in change["ip"].sets] == ["hairpins"]
    assert change["ip"].fresh == {"hairpins": {("10.0.0.1", "10.0.0.1"): None}}
    change = diff(observed(rules, sets={**good, "stray": ("", 4096)}), rules)
    assert render_change(change) == ""
    assert render_sweep(change) == "delete set ip svcnat stray\n"


def test_a_set_of_another_type_remakes_the_table() -> None:
    """A set cannot change its type in place, nor a dormant table wake up: it is made anew in one transaction."""
    rules = wanted("10.0.0.1")
    sets = {**outline(rules)["ip"].sets, "hairpins": ("00000000", 4096)}
    change = diff(observed(rules, sets=sets), rules)
    assert change["ip"].remake
    assert render_change(change).startswith("add table ip svcnat\ndelete table ip svcnat\nadd table")
    assert diff({"ip6": outline(rules)["ip6"], "ip": Outline(readable=False)}, rules)["ip"].remake


def test_what_clients_remember_of_an_endpoint_goes_with_it() -> None:
    """Learned entries are the kernel's: only those of endpoints that may not be chosen any more are deleted."""
    affine = service("a", "10.96.0.1", "fd00::a", session_affinity="ClientIP")
    pieces = [slice_of("a", "10.0.0.1"), slice_of("a", "fd01::1", kind="IPv6")]
    rules = compile_plan(plan([affine], pieces, Settings()))
    (memory,), pair = rules["ip"].learned[0].maps, rules["ip6"].learned[0].maps
    four = {("192.0.2.1",): ("10.0.0.1", 8080), ("192.0.2.2",): ("10.0.0.9", 8080)}
    six = (
        {("fd02::1",): ("fd01::1",), ("fd02::2",): ("fd01::1",), ("fd02::3",): ("fd01::1",)},
        {("fd02::1",): (8080,), ("fd02::2",): (9090,)},
    )
    have = outline(rules)
    have["ip"] = replace(have["ip"], elements={**have["ip"].elements, memory: four})
    have["ip6"] = replace(have["ip6"], elements={**have["ip6"].elements, **dict(zip(pair, six, strict=True))})
    change = diff(have, rules)
    assert change["ip"].forgotten == {memory: {("192.0.2.2",): ("10.0.0.9", 8080)}}
    assert change["ip6"].forgotten == {
        pair[0]: {("fd02::2",): ("fd01::1",), ("fd02::3",): ("fd01::1",)},
        pair[1]: {("fd02::2",): (9090,)},
    }
    assert apply(change, rules) == rules
    assert change["ip"].counts()["elements deleted"] == 1
    # What expires in between would fail the transaction: it is added before it is deleted.
    assert render_change({"ip": change["ip"]}).splitlines() == [
        f"add element ip svcnat {memory} {{ 192.0.2.2 : 10.0.0.9 . 8080 }}",
        f"delete element ip svcnat {memory} {{ 192.0.2.2 }}",
    ]


def test_a_set_is_remade_only_when_it_gets_tight() -> None:
    """A larger set is as good; a smaller one serves until three quarters are in use."""
    rules = wanted(*(f"10.1.{n // 250}.{n % 250 + 1}" for n in range(2500)))
    good = outline(rules)["ip"].sets
    assert good["hairpins"][1] == 8192
    for size, remade in ((16384, False), (4096, False), (3000, True)):
        sets = {**good, "hairpins": (good["hairpins"][0], size)}
        change = diff(observed(rules, sets=sets), rules)
        assert bool(change) == remade


def test_a_set_that_grows_is_replaced_in_one_transaction() -> None:
    """Chains let go of it, it is deleted, made larger and filled; then they are filled again: nothing else moves."""
    rules = wanted("10.0.0.1")
    good = outline(rules)["ip"]
    sets = {**good.sets, "cluster-ips": (good.sets["cluster-ips"][0], 1)}
    chains = {**good.chains, "stray": ChainSignature(None, ())}
    elements = {**good.elements, "cluster-ips": {("10.96.0.1",): None, ("10.96.0.2",): None}}
    change = diff(observed(rules, sets=sets, chains=chains, elements=elements), rules)
    where = "ip svcnat"
    declared = rules["ip"].sets["cluster-ips"].declaration
    services = [f"add rule {where} services {rule}" for rule in rules["ip"].chains["services"].rules]
    structure = [
        f"flush chain {where} services",
        f"flush chain {where} stray",  # it may use the set, and is swept later
        f"delete set {where} cluster-ips",
        f"add set {where} cluster-ips {{ {declared} }}",
        *services,
    ]
    filled = f"add element {where} cluster-ips {{ 10.96.0.1 }}"
    assert render_change(change).splitlines() == [*structure, filled]
    assert [part.splitlines() for part in render_parts(change)] == [structure, [filled]]
    assert change["ip"].counts()["elements deleted"] == 1  # the one that was too much


def test_maps_whose_counters_turn_are_replaced() -> None:
    """A map cannot gain or lose them in place; the elements of the old one are not even looked at."""
    without, with_counters = (
        compile_plan(
            plan([service("a", "10.96.0.1")], [slice_of("a", "10.0.0.1")], Settings(endpoint_counters=counted))
        )
        for counted in (False, True)
    )
    change = diff(observed(without, elements={**outline(without)["ip"].elements, "backends-tcp": {}}), with_counters)
    assert not change["ip"].remake
    assert set(change["ip"].regrow) == {name for name in with_counters["ip"].sets if "backends-" in name}
    assert change["ip"].fresh == {"backends-tcp": {("10.96.0.1", 80, 0): ("10.0.0.1", 8080)}}
    assert apply(change, without)["ip"] == with_counters["ip"]


def test_a_family_that_is_not_wanted_is_left_alone() -> None:
    """The caller decides which tables there should be; apply keeps the others."""
    rules = wanted("10.0.0.1")
    assert diff({}, {}) == {}
    only = {"ip": rules["ip"]}
    assert apply(diff(outline({"ip6": rules["ip6"]}), only), {"ip6": rules["ip6"]}) == {
        "ip6": rules["ip6"],
        "ip": rules["ip"],
    }


def test_cleanup_names_the_families() -> None:
    """Adding before deleting makes the deletion safe when there is no table."""
    assert render_cleanup(["ip"]) == "add table ip svcnat\ndelete table ip svcnat\n"
    assert TableChange("ip").sweeps_only


def test_a_second_look_finds_only_memories() -> None:
    """After a commit: what was learned in between, and nothing else; nothing if nothing was."""
    affine = service("a", "10.96.0.1", session_affinity="ClientIP")
    table = compile_plan(plan([affine], [slice_of("a", "10.0.0.1")], Settings()))["ip"]
    memory = table.learned[0].maps[0]
    late = forget({memory: {("192.0.2.1",): ("10.0.0.9", 8080)}}, table)
    assert late == TableChange("ip", forgotten={memory: {("192.0.2.1",): ("10.0.0.9", 8080)}})
    assert forget({memory: {("192.0.2.1",): ("10.0.0.1", 8080)}}, table) is None


def test_parts_are_structure_then_elements_then_dispatch() -> None:
    """Where one transaction is too large: nothing points at what is not there yet, and no part is large."""
    many = tuple(f"10.{n >> 8 & 255}.{n & 255}.1" for n in range(2500))
    parts = list(render_parts(diff(outline(wanted("10.0.0.1")), wanted(*many))))
    assert parts[0].startswith("add chain ip svcnat tcp-random-2500")
    assert "element" not in parts[0]
    assert "element ip svcnat frontends" in parts[-1]
    assert all("element ip svcnat frontends" not in part for part in parts[:-1])
    assert max(part.count(" . 80 . ") for part in parts) <= 2000  # a changed slot is deleted and added
    assert sum(part.count(" : 10.") for part in parts) == 2499  # slot 0 has the same endpoint
    assert list(render_parts({"ip": TableChange("ip", sweep=("x",))})) == []
    clients = {(f"192.0.{n >> 8}.{n & 255}",): ("10.0.0.9", 8080) for n in range(1200)}
    _, *parts = render_parts({"ip": TableChange("ip", forgotten={"affinity-x": clients})})
    assert [part.count("192.0.") for part in parts] == [1000, 1000, 400]  # each is added and deleted
