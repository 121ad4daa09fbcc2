"""The ruleset as a value that is edited: counted exactly, and its change always what a comparison of all would say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.ruleset.assembly import Assembly, Fragment
from svcnat.ruleset.compile import compile_plan, compile_service
from svcnat.ruleset.diff import Change, Outline, TableChange, apply, diff, forget, outline
from svcnat.ruleset.endpoints import Endpoints, Pool
from svcnat.ruleset.nouns import Ruleset
from svcnat.ruleset.plan import Frontend, Kind, Masquerade, Plan, Scope, ServicePortPlan, Settings, plan_service
from svcnat.ruleset.planner import Planner
from tests.ruleset.build import service, slice_of
from tests.ruleset.edits import NAMES, SETTINGS, objects


def fragments(name: str, *addresses: str, ips: tuple[str, ...] = ("10.96.0.1",), known: Settings = SETTINGS, **spec):
    """What a service with these endpoints is compiled to."""
    kinds = {True: "IPv6", False: "IPv4"}
    pieces = [slice_of(name, each, kind=kinds[":" in each], node="here") for each in addresses]
    return compile_service(plan_service(service(name, *ips, **spec), pieces, known))


def crowd(count: int, address: str = "10.96.0.1") -> tuple[Fragment, ...]:
    """What a service with so many endpoints is compiled to."""
    backends = tuple((f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(count))
    pool = Endpoints(cluster=Pool(backends, (1,) * count), anywhere=True)
    frontend = Frontend(Kind.CLUSTER_IP, address, 80, Scope.CLUSTER, Masquerade.OFF_CLUSTER)
    return compile_service([ServicePortPlan("default/a:x", "ip", "tcp", (frontend,), pool)])


CROWDS = {count: crowd(count) for count in (3000, 3100, 6200)}


def normal(change: Change) -> dict:
    """A change without the order of its nouns, which means nothing."""
    return {
        family: replace(
            part,
            **{each: tuple(sorted(getattr(part, each), key=lambda noun: noun.name)) for each in ("sets", "chains")},
            refill=tuple(sorted(part.refill, key=lambda chain: chain.name)),
            regrow=tuple(sorted(part.regrow)),
            sweep=tuple(sorted(part.sweep)),
            sweep_sets=tuple(sorted(part.sweep_sets)),
        )
        for family, part in change.items()
    }


def unswept(change: Change) -> Change:
    return {family: replace(part, sweep=(), sweep_sets=()) for family, part in change.items()}


def expected(kernel: Ruleset, want: Ruleset) -> Change:
    """What a full pass would do: a family that no service ever used needs no table."""
    have = outline(kernel)
    return diff(
        have, {family: table for family, table in want.items() if family in have or any(table.elements.values())}
    )


COMMITS = ("settle", "leave", "adopt", "adopt and leave")


def committed(assembly: Assembly, kernel: Ruleset, how: str) -> Ruleset:
    """What the kernel holds after the change, incremental or after a full pass, swept or not; the assembly is told."""
    change, have, swept = assembly.change(), outline(kernel), "leave" not in how
    kernel = apply(change if swept else unswept(change), kernel)
    if "adopt" in how:
        assembly.adopt(have, change, swept=swept)
    else:
        assembly.settle(swept=swept)
    return kernel


large = st.sampled_from([3000, 3100, 6200])


@settings(max_examples=40)
@given(st.lists(st.tuples(large, st.integers(0, 4), st.sampled_from(["None", "ClientIP"]), st.sampled_from(COMMITS))))
def test_its_change_is_right_when_sets_grow(steps) -> None:
    """The same law for sets that become tight, beside chains that come, go, stay behind and have sets of their own."""
    assembly = Assembly(SETTINGS)
    kernel: Ruleset = {}
    for count, endpoints, affinity, how in steps:
        assembly.put(("default", "crowd"), CROWDS[count])
        addresses = (f"10.0.0.{number}" for number in range(1, endpoints + 1))
        assembly.put(("default", "a"), fragments("a", *addresses, ips=("10.97.0.1",), session_affinity=affinity))
        assert normal(assembly.change()) == normal(expected(kernel, assembly.ruleset()))
        kernel = committed(assembly, kernel, how)


hosts = st.builds(
    lambda addresses, bridges: replace(SETTINGS, node_port_addresses=tuple(addresses), bridges=tuple(bridges)),
    st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]), unique=True),
    st.lists(st.sampled_from(["br0", "br1"]), unique=True),
)


@settings(max_examples=80)
@given(st.data())
def test_its_change_is_what_a_full_comparison_says(data) -> None:
    """For any edits, commits, leftovers and refusals: same elements, chains, sets and sweeps, none forgotten."""
    planner, assembly = Planner(SETTINGS), Assembly(SETTINGS)
    kernel: Ruleset = {}
    settled: dict = {}
    current: dict = {}
    present: dict = {}
    known, retuned = SETTINGS, False
    for _ in range(data.draw(st.integers(1, 10))):
        name = data.draw(st.sampled_from(NAMES))
        identity = ("default", name)
        match data.draw(st.sampled_from(["put", "put", "put", "remove", "undo", "retune"])):
            case "put":
                present[name] = data.draw(objects(name))
                planner.put(*present[name])
            case "remove":
                present.pop(name, None)
                planner.remove(identity)
            case "undo":
                assembly.undo()
                current = dict(settled)
                assert retuned or all(part.sweeps_only for part in assembly.change().values())
            case "retune":
                known, retuned = data.draw(hosts), True
                assert assembly.retune(known)
                planner.retune(known)
                for each in present.values():
                    planner.put(*each)
        for identity, ports in planner.take().items():
            current[identity] = compile_service(ports)
            if ports:
                assembly.put(identity, current[identity])
            else:
                assembly.drop(identity)
        fresh = Assembly(known)
        for identity, parts in sorted(current.items(), key=repr):
            fresh.put(identity, parts)
        assert assembly.ruleset() == fresh.ruleset()
        change = assembly.change()
        assert normal(change) == normal(expected(kernel, assembly.ruleset()))
        if (how := data.draw(st.sampled_from(("wait", *COMMITS)))) != "wait":
            kernel = committed(assembly, kernel, how)
            settled, retuned = dict(current), False
    assert compile_plan(planner.plan()).keys() == assembly.ruleset().keys()


@pytest.mark.parametrize(
    "more",
    [
        {"cluster_cidrs": ("10.0.0.0/8",)},
        {"masquerade_all": True},
        {"drop_cidrs": ("10.96.0.0/12",)},
        {"localhost_node_ports": True},
        {"endpoint_counters": False},
    ],
)
def test_settings_that_chains_follow_from_are_another_assembly(more) -> None:
    """They are not taken, and nothing has changed."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assembly.settle()
    assert not assembly.retune(replace(SETTINGS, node_port_addresses=("192.0.2.9",), **more))
    assert assembly.change() == {}


def test_deleting_a_service_keeps_what_others_share() -> None:
    """The hairpin of an endpoint and the selector chain of a shape go with their last user, not before."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assembly.put(("default", "b"), fragments("b", "10.0.0.1", "10.0.0.2", ips=("10.96.0.2",)))
    assembly.drop(("default", "b"))
    table = assembly.ruleset()["ip"]
    assert set(table.elements["hairpins"]) == {("10.0.0.1", "10.0.0.1")}
    assert "tcp-random-1" in table.chains
    assert "tcp-random-2" not in table.chains
    assembly.drop(("default", "a"))
    assert not any(assembly.ruleset()["ip"].elements.values())


def test_the_first_service_of_a_family_brings_its_table_and_the_last_leaves_it_empty() -> None:
    """Node addresses and bridges are served only while a service is; removing the table would end living flows."""
    assembly = Assembly(SETTINGS)
    assert assembly.change() == {}
    assembly.settle()
    assembly.put(("default", "a"), fragments("a", "fd01::1", ips=("fd00::a",)))
    change = assembly.change()
    assert list(change) == ["ip6"]
    assert change["ip6"].remake
    assert change["ip6"].fresh["nodeport-ips"] == {("2001:db8::1",): None}
    assert change["ip6"].fresh["bridge-hairpins"] == {("br0", "br0"): None}
    assembly.settle()
    assembly.drop(("default", "a"))
    change = assembly.change()
    assert change["ip6"].stale["nodeport-ips"] == {("2001:db8::1",): None}
    assert change["ip6"].sweep == ("tcp-random-1",)
    assert not change["ip6"].remake
    assembly.settle()
    assert assembly.change() == {}


@pytest.mark.parametrize(("before", "after"), [(49_999, 50_001), (50_001, 49_999)])
def test_crossing_the_number_that_is_counted_replaces_their_maps(before, after) -> None:
    """Endpoints have counters up to 50,000 slots: a map cannot gain or lose them in place."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), crowd(before))
    assembly.settle()
    kernel = outline(assembly.ruleset())
    assembly.put(("default", "a"), crowd(after))
    assert not assembly.change()["ip"].remake
    assert all("backends-" in name for name in assembly.change()["ip"].regrow if name != "hairpins")
    assert normal(assembly.change()) == normal(diff({"ip": kernel["ip"]}, {"ip": assembly.ruleset()["ip"]}))
    assembly.settle()
    assert assembly.change() == {}


def test_what_a_full_pass_found_decides_when_a_set_grows() -> None:
    """The kernel's sets may be larger than the ruleset asks for, or smaller and not tight yet."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), crowd(100))
    have = outline({"ip": assembly.ruleset()["ip"]})
    for size, grows in ((8192, False), (4096, True)):
        sets = {name: (signature, size) for name, (signature, _) in have["ip"].sets.items()}
        assembly.adopt({"ip": replace(have["ip"], sets=sets)}, {})
        assembly.put(("default", "b"), crowd(3100, "10.96.0.2"))
        assert ("hairpins" in assembly.change()["ip"].regrow) == grows
        assembly.undo()


def test_a_chain_that_could_not_be_swept_is_used_or_refilled() -> None:
    """Leftovers are there: adding such a chain again would double its rules, such a set would be of unknown type."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assembly.settle()
    assembly.put(("default", "a"), fragments("a", "10.0.0.1", "10.0.0.2"))
    assembly.settle(swept=False)
    assert assembly.change() == {"ip": TableChange("ip", sweep=("tcp-random-1",))}
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assert not assembly.change()["ip"].chains
    assert assembly.change()["ip"].sweep == ("tcp-random-2",)
    assembly.settle()
    have = outline({"ip": assembly.ruleset()["ip"]})
    stray = TableChange("ip", sweep=("tcp-random-3",), sweep_sets=("connections-x",))
    assembly.adopt(have, {"ip": stray}, swept=False)
    assert assembly.change() == {"ip": stray}
    assembly.put(("default", "a"), fragments("a", "10.0.0.1", "10.0.0.2", "10.0.0.3"))
    change = assembly.change()["ip"]
    assert [chain.name for chain in change.refill] == ["tcp-random-3"]
    assert not change.chains


def test_a_set_of_unknown_type_that_is_needed_again_remakes_the_table() -> None:
    """What a stranger's chain kept from being swept may be anything."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    have = outline({"ip": assembly.ruleset()["ip"]})
    affine = fragments("a", "10.0.0.1", session_affinity="ClientIP")
    (memory,) = affine[0].learned[0].maps
    assembly.adopt(have, {"ip": TableChange("ip", sweep_sets=(memory,))}, swept=False)
    assembly.put(("default", "a"), affine)
    assert assembly.change()["ip"].remake


def test_a_full_pass_that_makes_the_table_anew_leaves_nothing_over() -> None:
    """What was there went with the old table, sizes too."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    change = assembly.change()
    assembly.adopt({"ip": Outline(readable=False)}, change, swept=False)
    assert assembly.change() == {}
    assembly.put(("default", "a"), fragments("a", "10.0.0.1", "10.0.0.2"))
    assert [chain.name for chain in assembly.change()["ip"].chains] == ["tcp-random-2"]


def test_a_table_that_is_gone_is_made_when_it_is_needed() -> None:
    """After a full pass that found no table and needed none."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assembly.settle()
    assembly.drop(("default", "a"))
    assembly.adopt({}, {})
    assert assembly.change() == {}
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assert assembly.change()["ip"].remake


def test_only_memories_that_may_hold_a_lost_endpoint_are_looked_through() -> None:
    """Cost follows the change: not the maps of other services, nor of one that only gained an endpoint."""
    assembly = Assembly(SETTINGS)
    both = {"ips": ("10.96.0.1",), "session_affinity": "ClientIP"}
    assembly.put(("default", "a"), fragments("a", "10.0.0.1", **both))
    assembly.put(("default", "b"), fragments("b", "10.0.0.1", **{**both, "ips": ("10.96.0.2",)}))
    assert assembly.learned() == {}  # there are no maps yet
    assembly.settle()
    assembly.put(("default", "a"), fragments("a", "10.0.0.1", "10.0.0.2", **both))
    assert assembly.learned() == {}
    assembly.settle()
    assembly.put(("default", "a"), fragments("a", "10.0.0.2", **both))
    found = assembly.learned()
    (memory,) = found["ip"].sets
    kept, lost = ("10.0.0.2", 8080), ("10.0.0.1", 8080)
    late = forget({memory: {("192.0.2.1",): kept, ("192.0.2.2",): lost}}, found["ip"])
    assert late == TableChange("ip", forgotten={memory: {("192.0.2.2",): lost}})
    assembly.put(("default", "a"), fragments("a", "10.0.0.2", ips=("10.96.0.1",)))
    assert assembly.learned() == {}  # the map goes
    assembly.settle(swept=False)
    assembly.put(("default", "a"), fragments("a", "10.0.0.3", **both))
    assert list(assembly.learned()["ip"].sets) == [memory]  # it is still there, with what it held


@pytest.mark.parametrize("gone", ["", "a", "b", "c", "ab", "ba", "bc", "cb", "ac", "ca"])
def test_holders_that_disagree_are_settled_alike_in_any_order(gone) -> None:
    """While a frontend changes hands, several Services have it for a moment: who came first must not decide the end."""
    claims = {name: fragments(name, f"10.0.0.{number}") for number, name in enumerate("abc", 1)}
    left = Assembly(SETTINGS)  # all of them claim 10.96.0.1
    for name in "abc":
        if name not in gone:
            left.put(("default", name), claims[name])
    for order in itertools.permutations("abc"):
        assembly = Assembly(SETTINGS)
        for name in order:
            assembly.put(("default", name), claims[name])
        for name in gone:
            assembly.drop(("default", name))
        assert assembly.ruleset() == left.ruleset()


def test_what_each_service_has_can_be_asked() -> None:
    """Whoever looks for the Service that the kernel refuses tries them one by one."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    assembly.put(("default", "b"), fragments("b", "10.0.0.1", ips=("10.96.0.2",)))
    assembly.drop(("default", "b"))
    assert dict(assembly.fragments) == {("default", "a"): fragments("a", "10.0.0.1")}


def test_a_set_that_grows_leaves_the_rest_of_the_table_alone() -> None:
    """Only the chains that use it let go of it, those to be swept too: affinity and other counters survive."""
    assembly = Assembly(SETTINGS)
    affine = {"session_affinity": "ClientIP", "ips": ("10.96.0.9",)}
    assembly.put(("default", "a"), crowd(2000))
    assembly.put(("default", "b"), fragments("b", "10.0.0.1", **affine))
    assembly.settle()
    assembly.put(("default", "a"), crowd(6200))
    assembly.put(("default", "b"), fragments("b", "10.0.0.2", **affine))
    change = assembly.change()["ip"]
    assert not change.remake
    assert {declared.name: declared.size for declared in change.sets} == {"hairpins": 16384, "backends-tcp": 16384}
    assert sorted(change.regrow) == ["backends-tcp", "hairpins"]
    refilled = {chain.name: len(chain.rules) for chain in change.refill}
    assert refilled.keys() == {"masquerade-off-cluster", "masquerade-node", "tcp-random-1", "tcp-random-2000"}
    assert not refilled["tcp-random-2000"]  # it is swept
    assert len(change.kept["backends-tcp"]) == 2000
    assert len(change.fresh["backends-tcp"]) == 4201
    assert list(assembly.learned()) == ["ip"]
    assembly.settle(swept=False)
    assert assembly.change() == {"ip": TableChange("ip", sweep=("tcp-random-2000",))}
    assembly.put(("default", "a"), crowd(2000))
    # It was emptied: it needs its rules again.
    assert [(chain.name, len(chain.rules)) for chain in assembly.change()["ip"].refill] == [("tcp-random-2000", 2)]


def test_a_ruleset_is_a_value_of_its_own() -> None:
    """Whoever compares with it later does not see later edits."""
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "a"), fragments("a", "10.0.0.1"))
    rules = assembly.ruleset()
    assembly.drop(("default", "a"))
    assert rules == compile_plan(
        Plan(
            SETTINGS, {("default", "a"): plan_service(service("a", "10.96.0.1"), [slice_of("a", "10.0.0.1")], SETTINGS)}
        )
    )
