"""svcnat's tables in a real kernel: what is read back is what was sent, and nobody else's table changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svcnat.agent.reconcile import reconcile
from svcnat.errors import BusyError, KernelError, MissingError, StaleError
from svcnat.kernel import libnftables, lock, netns
from svcnat.kernel.nftables import Namespace
from svcnat.model.objects import ObjectMeta, Service, ServicePort, ServiceSpec
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.diff import diff, outline
from svcnat.ruleset.nftables import render, render_cleanup
from svcnat.ruleset.plan import Settings, plan
from tests.ruleset.build import service, slice_of

ALL_PORTS = ((80, "TCP"), (53, "UDP"), (9, "SCTP"))
SLICE_PORTS = (("p80", 8080, "TCP"), ("p53", 5353, "UDP"), ("p9", 9, "SCTP"))
STRANGER = """
table inet stranger {
    set seen { type ipv4_addr; flags dynamic; timeout 1h; }
    chain input { type filter hook input priority 0; policy accept; ip saddr 192.0.2.1 counter drop comment "mine"; }
}
table ip nat {
    chain prerouting { type nat hook prerouting priority -100; tcp dport 2222 redirect to :22; }
}
table ip6 svcnat-other {
    chain x { counter; }
}
"""


def rules_for(*addresses: str, name: str = "web", cidrs: tuple[str, ...] = ("10.244.0.0/16",)):
    dual = service(name, "10.96.0.10", "fd00::a:1", ports=ALL_PORTS)
    six = tuple(f"fd01::{n}" for n in range(1, len(addresses) + 1))
    slices = [
        slice_of(name, *addresses, ports=SLICE_PORTS),
        slice_of(name, *six, ports=SLICE_PORTS, kind="IPv6"),
        slice_of("tiny", "10.9.9.9"),
    ]
    return compile_plan(plan([dual, service("tiny", "10.96.0.11")], slices, Settings(cluster_cidrs=cidrs)))


def listing(where: str) -> str:
    """What a person sees of all tables but svcnat's, with nft(8)."""
    with netns.entered(where):
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        return "".join(
            subprocess.run(["nft", "-s", "list", *table.split()], capture_output=True, text=True, check=True).stdout
            for table in tables.splitlines()
            if table.split()[2] != "svcnat"
        )


@pytest.fixture
def kernel(empty_netns: str):
    with Namespace(empty_netns) as opened:
        yield opened


def test_what_is_read_back_is_what_was_sent(kernel) -> None:
    """Every field of every element, chain and set survives the round trip, in both families."""
    rules = rules_for("10.244.0.1", "10.244.0.2")
    kernel.commit(render(rules))
    seen = kernel.read(rules.values())
    assert seen == outline(rules)


class Interrupted(Namespace):
    """A namespace in which something else is committed while each of the first tables is read."""

    def __init__(self, where: str, *scripts: str) -> None:
        super().__init__(where)
        self.scripts = list(scripts)

    def _elements(self, family, declared, strange=None):
        found = super()._elements(family, declared, strange)
        if self.scripts:
            super().commit(self.scripts.pop(0))
        return found


def test_others_may_change_tables_of_their_own_while_ours_are_read(empty_netns, kernel) -> None:
    """However often they do, one reading is enough."""
    rules = rules_for("10.244.0.1", "10.244.0.2")
    kernel.commit(render(rules))
    sets = sum(len(table.sets) for table in rules.values())
    scripts = ["add table ip other", *["add chain ip other c", "delete chain ip other c"] * sets]
    with Interrupted(empty_netns, *scripts) as busy:
        assert busy.read(rules.values()) == outline(rules)
        assert len(scripts) - len(busy.scripts) <= sets


def test_who_changes_ours_while_they_are_read_is_seen(empty_netns, kernel) -> None:
    """What is read is of one moment, even if others change their own tables all the time."""
    rules = rules_for("10.244.0.1", "10.244.0.2")
    kernel.commit(render(rules))
    scripts = [
        "add table ip other",
        "add element ip svcnat cluster-ips { 8.8.8.8 }",
        "delete element ip svcnat backends-tcp { 10.96.0.10 . 80 . 0 }",
        "delete table ip other",
    ]
    with Interrupted(empty_netns, *scripts) as busy:
        seen = busy.read(rules.values())["ip"].elements
        assert ("8.8.8.8",) in seen["cluster-ips"]
        assert ("10.96.0.10", "80", "0") not in {tuple(map(str, key)) for key in seen["backends-tcp"]}
        assert seen == kernel.read(rules.values())["ip"].elements


def test_who_never_stops_changing_ours_is_told_of(empty_netns, kernel) -> None:
    """There is no moment of which the answer could be."""
    rules = rules_for("10.244.0.1")
    kernel.commit(render(rules))
    many = ["add element ip svcnat cluster-ips { 8.8.8.8 }", "delete element ip svcnat cluster-ips { 8.8.8.8 }"] * 1000
    with Interrupted(empty_netns, *many) as busy, pytest.raises(StaleError, match="keeps changing svcnat's tables"):
        busy.read(rules.values())


def test_the_rendered_script_loads_with_nft_itself_twice(empty_netns) -> None:
    """`svcnat render | nft -f -` makes the tables equal to the manifests, whatever was in them."""
    for addresses in (("10.244.0.1",), ("10.244.0.7", "10.244.0.8")):
        rules = rules_for(*addresses)
        with netns.entered(empty_netns):
            subprocess.run(["nft", "-f", "-"], input=render(rules), text=True, check=True, capture_output=True)
        with Namespace(empty_netns) as opened:
            assert diff(opened.read(rules.values()), rules) == {}


def test_a_second_sync_writes_nothing(kernel) -> None:
    """The nftables generation does not move when the kernel is equal already."""
    rules = rules_for("10.244.0.1", "10.244.0.2")
    first = reconcile(kernel, rules)
    assert first.counts["elements added"] > 0
    second = reconcile(kernel, rules)
    assert second.change == {}
    assert second.generation == first.generation == kernel.generation()


def test_one_change_is_one_transaction_of_its_own_elements(kernel) -> None:
    """The generation moves by one for what packets see, by one more when a selector chain is swept."""
    reconcile(kernel, rules_for("10.244.0.1", "10.244.0.2"))
    before = kernel.generation()
    report = reconcile(kernel, rules_for("10.244.0.1", "10.244.0.3"))
    assert report.generation == before + 1
    assert report.counts["elements added"] == 4  # a slot in each of three maps, and a hairpin
    reconcile(kernel, rules_for("10.244.0.1"))
    assert kernel.generation() == before + 3


def test_families_without_services_get_no_table(kernel) -> None:
    """Hooks cost every packet: a table comes with the first service of its family, and then stays."""
    settings_ = Settings()
    only4 = compile_plan(plan([service("web", "10.96.0.10")], [], settings_))
    reconcile(kernel, only4)
    assert kernel.families() == ["ip"]
    reconcile(kernel, compile_plan(plan([], [], settings_)))
    assert kernel.families() == ["ip"]


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table ip svcnat",
        "delete element ip svcnat hairpins { 10.244.0.1 . 10.244.0.1 }",
        "add element ip svcnat cluster-ips { 8.8.8.8 }",
        "delete element ip svcnat backends-tcp { 10.96.0.10 . 80 . 0 }; "
        "add element ip svcnat backends-tcp { 10.96.0.10 . 80 . 0 : 6.6.6.6 . 666 }",
        "add rule ip svcnat services accept",
        "insert rule ip6 svcnat services drop",
        "flush chain ip svcnat translated",
        "add chain ip svcnat stray; add rule ip svcnat stray drop; insert rule ip svcnat services jump stray",
        "add set ip svcnat stray { type ipv4_addr; }",
        "add chain ip svcnat evil { type filter hook input priority 0; policy drop; }",
        "add table ip svcnat { flags dormant; }",
        "flush chain ip svcnat nat-output; delete chain ip svcnat nat-output",
    ],
)
def test_foreign_changes_are_undone(kernel, damage) -> None:
    """Diff against what is really there: whatever was done to our tables, one pass repairs it."""
    rules = rules_for("10.244.0.1", "10.244.0.2")
    reconcile(kernel, rules)
    kernel.commit(damage)
    assert reconcile(kernel, rules).change
    assert kernel.read(rules.values()) == outline(rules)


def test_a_stranger_in_the_same_namespace_survives_everything(kernel, empty_netns) -> None:
    """Other tables are never touched, byte for byte: through first sync, changes, repair and cleanup."""
    with netns.entered(empty_netns):
        subprocess.run(["nft", "-f", "-"], input=STRANGER, text=True, check=True)
    before = listing(empty_netns)
    assert "mine" in before
    for addresses in (("10.244.0.1",), ("10.244.0.1", "10.244.0.2"), ()):
        reconcile(kernel, rules_for(*addresses))
        assert listing(empty_netns) == before
    kernel.commit(render_cleanup(kernel.families()))
    assert kernel.families() == []
    assert listing(empty_netns) == before


def test_a_refused_commit_leaves_the_old_rules_and_says_why(kernel) -> None:
    """All or nothing: a script with one bad line changes nothing."""
    rules = rules_for("10.244.0.1")
    generation = reconcile(kernel, rules).generation
    good = "add element ip svcnat cluster-ips { 10.96.0.99 }\n"
    for bad, kind in (
        ("add element ip svcnat hairpins { 10.244.0.1 . 10.244.0.1 : drop }", KernelError),
        ("delete element ip svcnat cluster-ips { 10.96.0.77 }", StaleError),
        ("add element ip svcnat frontends { 10.96.0.10 . tcp . 80 : drop }", StaleError),
        ("add chain ip svcnat x { type nat hook forward priority 0; }", KernelError),
        ("nonsense", KernelError),
    ):
        with pytest.raises(kind, match=r"^nftables: \S") as caught:
            kernel.commit(good + bad)
        assert "\n" not in str(caught.value)
    assert kernel.generation() == generation
    assert reconcile(kernel, rules).change == {}


def test_a_dry_run_asks_the_kernel_and_writes_nothing(kernel) -> None:
    """check() is the kernel's own opinion; the generation stays."""
    before = kernel.generation()
    report = reconcile(kernel, rules_for("10.244.0.1"), dry_run=True)
    assert report.counts["elements added"] > 0
    assert kernel.generation() == before
    assert kernel.families() == []


def test_counters_and_provenance_can_be_asked_for_one_by_one(kernel) -> None:
    """A description needs a few elements' counters, not the listing of the world."""
    rules = rules_for("10.244.0.1")
    reconcile(kernel, rules)
    backends = rules["ip"].sets["backends-tcp"]
    asked = [("10.96.0.10", 80, 0), ("10.96.0.10", 80, 9)]
    assert kernel.counters("ip", backends, asked) == {("10.96.0.10", 80, 0): (0, 0)}
    hairpin = ("10.244.0.1", "10.244.0.1")
    assert kernel.counters("ip", rules["ip"].sets["hairpins"], [hairpin]) == {hairpin: None}
    assert kernel.about("ip").startswith("svcnat layout 1, from manifests")


hostile = st.one_of(
    st.text(min_size=1, max_size=40),
    st.sampled_from(
        [
            '"',
            '";',
            "}",
            "a; flush ruleset",
            '" }; flush ruleset; #',
            "\n flush ruleset\n",
            "$(reboot)",
            "\\",
            "a\0b",
            "'",
        ]
    ),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(hostile, hostile, hostile)
def test_untrusted_text_cannot_become_syntax(kernel, name, namespace, port) -> None:
    """Names that no validation saw go through the real parser, which must find one harmless comment in them."""
    one = Service(
        metadata=ObjectMeta(name=name, namespace=namespace, annotations={name: port}, labels={port: name}),
        spec=ServiceSpec(cluster_ips=["10.96.0.10"], ports=[ServicePort(name=port, port=80, app_protocol=name)]),
    )
    rules = compile_plan(plan([one], [slice_of(name, "10.244.0.1")], Settings()), origin=name)
    reconcile(kernel, rules)
    assert reconcile(kernel, rules).change == {}


def test_a_namespace_that_does_not_exist_is_an_error() -> None:
    """A typo must not create anything."""
    with pytest.raises(MissingError, match="no-such-namespace"):
        Namespace("no-such-namespace")


def test_one_writer_at_a_time(make_netns) -> None:
    """The lock lives in the namespace: a second writer there is told who is first, one elsewhere is not held up."""
    here, there = make_netns(), make_netns()
    with (
        lock.writer(here, patience=0),
        lock.writer(there, patience=0),
        pytest.raises(BusyError, match=r"pid \d+"),
        lock.writer(here, patience=0),
    ):
        pass
    with lock.writer(here, patience=0):
        pass


def test_who_squats_on_the_lock_is_named(make_netns) -> None:
    """Anybody may bind the name: who cannot be svcnat is told from who can, and to be ended, not waited for."""
    if Path("/proc/self/uid_map").read_text().split()[2] == "1":
        pytest.skip("this user namespace has no second user to become")
    here = make_netns()
    program = (
        "import os, socket; os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); "
        "name = socket.socket(socket.AF_UNIX); name.bind('\\0svcnat/writer'); print(flush=True); input(); "
        "name.listen(); print(flush=True); input()"
    )
    with netns.entered(here):
        squatter = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with squatter:
        for message in ("`ss -xap`", f"pid {squatter.pid} of user 65534 .* cannot be svcnat"):
            squatter.stdout.readline()
            with pytest.raises(BusyError, match=message), lock.writer(here, patience=0):
                pass
            print(file=squatter.stdin, flush=True)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Error: Could not process rule: Operation not permitted\nadd table", "PrivilegeError"),
        ("netlink: Error: cache initialization failed: Operation not permitted", "PrivilegeError"),
        ("/dev/stdin:1:1-2: Error: Could not process rule: No such file or directory", "StaleError"),
        ("Error: Could not process rule: Operation not supported", "MissingError"),
        ("Error: Could not process rule: Device or resource busy", "KernelError"),
        ("", "KernelError"),
    ],
)
def test_messages_of_libnftables_are_classified_once(message, kind) -> None:
    """Callers ask for a class, never for words."""
    error = libnftables.classified(message)
    assert type(error).__name__ == kind
    assert "\n" not in str(error)


IN_A_USER_NAMESPACE = """
from svcnat.agent.reconcile import reconcile
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.plan import Settings, plan
from tests.ruleset.build import service, slice_of

def rules(count):
    many = [service(f"s{n}", f"10.96.{n // 250}.{n % 250 + 1}") for n in range(count)]
    slices = [slice_of(f"s{n}", *(f"10.{k}.{n // 250}.{n % 250 + 1}" for k in range(5))) for n in range(count)]
    return compile_plan(plan(many, slices, Settings()))

with Namespace() as kernel:
    said = [bool(reconcile(kernel, rules(3000), dry_run=True).warnings)]
    for count in (3000, 1000, 2000):
        report = reconcile(kernel, rules(count))
        assert report.change, count
        said.append(bool(report.warnings))
        assert not reconcile(kernel, rules(count)).change, count
print(*said)
"""


def test_what_may_not_be_sent_in_one_piece_is_sent_in_parts(empty_netns) -> None:
    """In a user namespace wmem_max caps a transaction: it is split, said so, and the rules are right in the end."""
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", IN_A_USER_NAMESPACE],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    # Newer libnftables send less at once, and may not need it.
    assert done.stdout in ("True True True True\n", "False False False False\n"), (done.stdout, done.stderr)
