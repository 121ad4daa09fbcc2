"""Elements written as bytes: exactly what nft would have written, all of it or nothing, and refusals that name them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svcnat.errors import KernelError, StaleError
from svcnat.kernel.nfnetlink import following
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.diff import TableChange
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nftables import render_change
from svcnat.ruleset.nouns import Chain, Data, Key, Verdict
from svcnat.ruleset.plan import FAMILIES
from tests.kernel.tables import change, dump, make, sets, targets

POOL: dict[Family, dict[str, list[str | int]]] = {
    "ip": {
        "ipv4_addr": ["10.96.0.10", "0.0.0.0", "255.255.255.255"],
        "ipv4_addr/prefix": ["10.0.0.0/8", "192.0.2.0/24", "192.0.3.4/32", "128.0.0.0/2"],
    },
    "ip6": {
        "ipv6_addr": ["fd00::a:1", "::", "::ffff:10.0.0.1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        "ipv6_addr/prefix": ["fd00::/8", "2001:db8::/33", "2001:db8:8000::1/128", "4000::/2"],
    },
}
COMMON: dict[str, list[str | int]] = {
    "inet_proto": ["tcp", "udp", "sctp"],
    "inet_service": [1, 80, 65535],
    "slot": [0, 1, 258, 65535],
    "ifname": ["br0", "a-name-of-15-ch"],
}


@pytest.fixture
def kernel(empty_netns: str) -> Iterator[Namespace]:
    with Namespace(empty_netns) as opened:
        yield opened


@pytest.fixture
def pair(make_netns) -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace(make_netns()) as one, Namespace(make_netns()) as other:
        yield one, other


def _tuples(family: Family, fields: tuple[str, ...]) -> st.SearchStrategy[tuple[str | int, ...]]:
    return st.tuples(*(st.sampled_from((POOL[family] | COMMON)[field]) for field in fields))


def contents(family: Family) -> st.SearchStrategy[dict[str, dict[Key, Data]]]:
    """What the sets of one family hold, in a few of them."""
    held = {}
    for name, declared in sets(family).items():
        if declared.dynamic:
            continue
        data: st.SearchStrategy[Data] = st.none()
        if declared.data_fields == ("verdict",):
            data = st.sampled_from(targets(name))
        elif declared.is_map:
            data = _tuples(family, declared.data_fields)
        held[name] = st.dictionaries(_tuples(family, declared.fields), data, max_size=6)
    return st.fixed_dictionaries(held)


def remembered(family: Family) -> st.SearchStrategy[dict[str, dict[Key, Data]]]:
    """What packets have learned."""
    return st.fixed_dictionaries(
        {
            name: st.dictionaries(_tuples(family, each.fields), _tuples(family, each.data_fields), max_size=3)
            for name, each in sets(family).items()
            if each.dynamic
        }
    )


def between(before: dict[str, dict[Key, Data]], after: dict[str, dict[Key, Data]]) -> dict[str, dict]:
    """The stale and fresh elements between two contents, as diff() has them."""
    stale = {n: {k: d for k, d in had.items() if after[n].get(k, "") != d} for n, had in before.items()}
    fresh = {n: {k: d for k, d in has.items() if before[n].get(k, "") != d} for n, has in after.items()}
    return {"stale": {n: e for n, e in stale.items() if e}, "fresh": {n: e for n, e in fresh.items() if e}}


@settings(max_examples=25, suppress_health_check=[*HealthCheck])
@given(st.data())
def test_the_kernel_cannot_tell_it_from_libnftables(pair, data) -> None:
    """For any change of any sets of both families, both ways leave the same bytes: comments, counters, timeouts."""
    mine, theirs = pair
    generation = make(mine)
    make(theirs)
    before = {family: {name: {} for name in sets(family)} for family in FAMILIES}
    for _ in range(2):
        step = {}
        for family in FAMILIES:
            after = data.draw(contents(family))
            had, learned = before[family], data.draw(remembered(family))
            entries = render_change(change(family, fresh={n: e for n, e in learned.items() if e}))
            for namespace in pair:
                namespace.commit(entries)
            # Some of what is to be forgotten has expired by itself.
            forgotten = {n: e for n, e in {**data.draw(remembered(family)), **learned}.items() if e}
            kinds = between({n: had[n] for n in after}, after)
            if forgotten or kinds["stale"] or kinds["fresh"]:
                step |= change(family, **kinds, forgotten=forgotten)
            before[family] = after | {name: {} for name in learned}
        generation = mine.generation()
        theirs.commit(render_change(step))
        written = mine.commit_elements(step, generation=generation)
        assert written == mine.generation() == (generation + 1 if step else generation)
        for family in FAMILIES:
            for name in sets(family):
                assert dump(mine, family, name) == dump(theirs, family, name), (family, name)


def test_two_families_change_at_one_moment(kernel) -> None:
    """One generation: no packet meets the new rules of one family and the old ones of the other."""
    generation = make(kernel)
    both = change("ip", fresh={"cluster-ips": {("10.96.0.1",): None}})
    both |= change("ip6", fresh={"cluster-ips": {("fd00::1",): None}})
    assert kernel.commit_elements(both, generation=generation) == generation + 1 == kernel.generation()
    assert [len(dump(kernel, family, "cluster-ips")) for family in FAMILIES] == [1, 1]


def test_a_stale_generation_changes_nothing(kernel) -> None:
    """Compare and swap: whoever computed a change from what somebody else has changed since must look again."""
    generation = make(kernel)
    kernel.commit("add table ip stranger")
    wanted = change(fresh={"cluster-ips": {("10.96.0.1",): None}})
    with pytest.raises(StaleError, match="another program"):
        kernel.commit_elements(wanted, generation=generation)
    assert kernel.generation() == generation + 1
    assert not dump(kernel, "ip", "cluster-ips")
    assert kernel.commit_elements(wanted, generation=generation + 1) == generation + 2


def test_every_commit_of_libnftables_moves_the_generation_by_one(kernel) -> None:
    """So whoever wrote structure knows from the generation alone that nobody else wrote meanwhile."""
    generation = make(kernel)
    for script in (
        "add element ip svcnat cluster-ips { 10.96.0.1, 10.96.0.2 }",
        "add chain ip svcnat a; add chain ip svcnat b; add rule ip svcnat a jump b; add set ip svcnat c "
        "{ type ipv4_addr; }",
        "flush chain ip svcnat a; delete chain ip svcnat a; delete set ip svcnat c",
        "delete table ip svcnat; delete table ip6 svcnat; add table ip svcnat",
    ):
        kernel.commit(script)
        generation += 1
        assert kernel.generation() == generation


def test_nothing_to_do_is_no_commit(kernel) -> None:
    """The generation stays, and is not even compared."""
    generation = make(kernel)
    assert kernel.commit_elements({}, generation=generation) == generation == kernel.generation()
    assert kernel.commit_elements(change(), generation=7) == 7


def test_structure_is_not_written_as_elements(kernel) -> None:
    """Half a change is worse than none: a caller that chose the wrong way has a bug."""
    for part in (
        TableChange("ip", remake=True),
        TableChange("ip", chains=(Chain("x"),)),
        TableChange("ip", sweep=("x",)),
    ):
        with pytest.raises(ValueError, match="structure"):
            kernel.commit_elements({"ip": part}, generation=1)


BACKEND = ("10.96.0.10", 80, 0)
MANY = {("10.96.0.10", port, 1): ("10.244.0.1", port) for port in range(1, 4000)}


@pytest.mark.parametrize(
    ("kinds", "kind", "words"),
    [
        (
            {"fresh": {"backends-tcp": {**MANY, BACKEND: ("10.244.0.2", 1)}}},
            StaleError,
            "ip svcnat backends-tcp { 10.96.0.10 . 80 . 0 }: File exists",
        ),
        (
            {"fresh": {"backends-tcp": MANY}, "stale": {"hairpins": {("10.0.0.1", "10.0.0.2"): None}}},
            StaleError,
            "ip svcnat hairpins { 10.0.0.1 . 10.0.0.2 }: No such file or directory",
        ),
        (
            {"fresh": {"frontends": {("10.96.0.10", "udp", 53): Verdict("goto", "nowhere", "x/y:53")}}},
            StaleError,
            "ip svcnat frontends { 10.96.0.10 . udp . 53 }: No such file or directory",
        ),
        (
            {"fresh": {"source-ranges": {("10.96.0.10", "tcp", 80, "10.0.0.0/7"): None}}},
            StaleError,
            "ip svcnat source-ranges { 10.96.0.10 . tcp . 80 . 10.0.0.0/7 }: File exists",
        ),
        (
            {"fresh": {"affinity-1f2e3e": {("10.0.0.1",): ("10.0.0.2", 80)}}},
            StaleError,
            "ip svcnat affinity-1f2e3e",
        ),
        (
            {"fresh": {"unchosen": {("10.96.0.10", "tcp", port): None for port in range(1, 4200)}}},
            KernelError,
            "ip svcnat unchosen { 10.96.0.10 . tcp . 4097 }: the set is full",
        ),
    ],
)
def test_refusals_name_the_set_and_the_element(kernel, kinds, kind, words) -> None:
    """Of thousands of elements, the one at fault; and nothing of the transaction happened."""
    make(kernel)
    held = {"backends-tcp": {BACKEND: ("10.244.0.1", 1)}}
    ranges = {"source-ranges": {("10.96.0.10", "tcp", 80, "10.0.0.0/8"): None}}
    kernel.commit(render_change(change(fresh=held | ranges)))
    generation = kernel.generation()
    with pytest.raises(kind) as caught:
        kernel.commit_elements(change(**kinds), generation=generation)
    assert str(caught.value).startswith(f"nftables: {words}")
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind
    assert kernel.generation() == generation
    assert len(dump(kernel, "ip", "backends-tcp")) == 1


def test_a_table_that_is_gone_is_stale_not_a_riddle(kernel) -> None:
    """Every message of a long batch is refused then: one line says why."""
    many = {(f"10.96.{n >> 8}.{n & 255}", 80, slot): ("10.0.0.1", 80) for n in range(4096) for slot in range(10)}
    with pytest.raises(StaleError, match=r"^nftables: ip svcnat backends-tcp: No such file or directory"):
        kernel.commit_elements(change(fresh={"backends-tcp": many}), generation=kernel.generation())


def test_a_table_that_another_program_owns(empty_netns) -> None:
    """EPERM where we may change other tables is not a lack of privilege."""
    with Namespace(empty_netns) as owner, Namespace(empty_netns) as kernel:
        owner.commit("add table ip svcnat { flags owner; }\nadd set ip svcnat cluster-ips { type ipv4_addr; }")
        wanted = change(fresh={"cluster-ips": {("10.96.0.1",): None}})
        with pytest.raises(KernelError, match="another program owns"):
            kernel.commit_elements(wanted, generation=kernel.generation())


def test_counters_of_what_does_not_change_go_on(kernel) -> None:
    """Only the elements of a change begin to count anew."""
    make(kernel)
    kernel.commit(
        "add element ip svcnat backends-tcp { 10.96.0.10 . 80 . 0 counter packets 5 bytes 7 : 10.244.0.1 . 80 }"
    )
    other = ("10.96.0.10", 80, 1)
    kernel.commit_elements(change(fresh={"backends-tcp": {other: ("10.244.0.2", 80)}}), generation=kernel.generation())
    backends = sets("ip")["backends-tcp"]
    assert kernel.counters("ip", backends, [BACKEND, other]) == {BACKEND: (5, 7), other: (0, 0)}
    moved = change(stale={"backends-tcp": {BACKEND: None}}, fresh={"backends-tcp": {BACKEND: ("10.244.0.3", 80)}})
    kernel.commit_elements(moved, generation=kernel.generation())
    assert kernel.counters("ip", backends, [BACKEND]) == {BACKEND: (0, 0)}


def test_what_was_learned_is_forgotten_even_of_a_full_map(kernel) -> None:
    """A client that has gone by itself does no harm; one that has learned anew meanwhile must be looked at again."""
    generation = make(kernel, families=("ip",))
    kernel.commit(
        "add map ip svcnat affinity-aaaaaa { type ipv4_addr : ipv4_addr . inet_service; flags dynamic,timeout; "
        "timeout 1d; size 2; }; add element ip svcnat affinity-aaaaaa "
        "{ 192.0.2.1 : 10.0.0.1 . 80, 192.0.2.2 : 10.0.0.2 . 80 }"
    )
    gone, anew = ("10.0.0.1", 80), ("10.0.0.9", 80)
    with pytest.raises(StaleError, match=r"affinity-aaaaaa \{ 192.0.2.2 \}: File exists"):
        kernel.commit_elements(
            change(forgotten={"affinity-aaaaaa": {("192.0.2.1",): gone, ("192.0.2.2",): anew}}),
            generation=generation + 1,
        )
    for _ in range(2):  # the second time it is not there any more
        kernel.commit_elements(
            change(forgotten={"affinity-aaaaaa": {("192.0.2.1",): gone}}), generation=kernel.generation()
        )
        assert len(dump(kernel, "ip", "affinity-aaaaaa")) == 1


TOO_LARGE = """
import sys
from svcnat.errors import TooLargeError
from svcnat.kernel.nftables import Namespace
from tests.kernel.tables import change, dump, make

def many(count):
    return {(f"10.{n >> 14}.{n >> 6 & 255}.1", 80, n & 63): ("10.244.0.1", 80) for n in range(count)}

with Namespace() as kernel:
    generation = make(kernel, size=1 << 20)
    for count in map(int, sys.argv[1:]):
        before = generation
        try:
            generation = kernel.commit_elements(change(fresh={"backends-tcp": many(count)}), generation=generation)
            kernel.commit("flush map ip svcnat backends-tcp")
            print("written", end=" ")
        except TooLargeError as error:
            assert str(error).startswith("nftables: ")
            assert not dump(kernel, "ip", "backends-tcp")
            print("refused", end=" ")
        else:
            assert generation == before + 1
            generation += 1
        assert kernel.generation() == generation
"""


@pytest.mark.parametrize(("ordinary", "answer"), [(False, "written written "), (True, "written refused ")])
def test_a_large_change_is_one_transaction_or_none(make_netns, ordinary, answer) -> None:
    """Whoever has CAP_NET_ADMIN of the machine sends it whole; in a user namespace wmem_max decides."""
    if not ordinary and Path("/proc/self/uid_map").read_text().split()[2] == "1":
        pytest.skip("this user namespace may not enlarge its buffers")
    allowed = 2 * int(Path("/proc/sys/net/core/wmem_max").read_text())  # the kernel doubles what it is asked for
    fits, too_many = allowed // 80, allowed // 40  # an element has 40 bytes here
    if too_many > 500_000:
        pytest.skip("net.core.wmem_max allows everything")
    command = ("unshare", "-rn") if ordinary else ("ip", "netns", "exec", make_netns())
    done = subprocess.run(
        [*command, sys.executable, "-c", TOO_LARGE, str(fits), str(too_many)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == answer, (done.stdout, done.stderr)


def test_generations_wrap_around_zero() -> None:
    """0 would mean any generation: the kernel leaves it out."""
    assert [following(1), following(2**32 - 2), following(2**32 - 1)] == [2, 2**32 - 1, 1]
