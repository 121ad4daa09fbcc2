"""What the kernel can do is asked without a trace; what others keep from packets is read as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat.errors import KernelError, MissingError, PrivilegeError
from svcnat.kernel import features, foreign, netns, reach, xtables
from svcnat.kernel.features import FEATURES, WHOLE
from svcnat.kernel.foreign import Chain, Rule
from svcnat.kernel.nftables import Namespace


def test_this_kernel_has_everything(empty_netns: str) -> None:
    """The kernel that the other tests run on can do what the rules need, the constant rules as a whole included."""
    assert features.missing() == ()


@pytest.mark.parametrize("feature", FEATURES[1:], ids=lambda each: each.name)
def test_a_kernel_without_a_feature_is_told_from_one_that_has_it(feature: features.Feature) -> None:
    """Simulated at the kernel boundary: who refuses one expression lacks one feature, or those that are made of it."""
    expression = features.script(feature, "ip6").splitlines()[-1]

    def check(script: str) -> None:
        if expression in script:
            raise MissingError("nftables: Operation not supported")

    missing = features.missing(check)
    assert missing == (features.Missing(feature, "ip6", "nftables: Operation not supported"),)


def test_what_nobody_thought_of_shows_in_the_rules_as_a_whole() -> None:
    """If every feature is there and the rules are refused all the same, that is said once a family."""

    def check(script: str) -> None:
        if "svcnat" in script:
            raise KernelError("nftables: no")

    assert [(each.feature, each.family) for each in features.missing(check)] == [(WHOLE, "ip"), (WHOLE, "ip6")]


def test_want_of_privilege_is_no_missing_feature() -> None:
    """Else an ordinary user's kernel could do nothing."""

    def check(script: str) -> None:
        raise PrivilegeError("no")

    with pytest.raises(PrivilegeError):
        features.missing(check)


def test_asking_leaves_nothing(empty_netns: str) -> None:
    """No table where the caller is, no file descriptor, and the caller stays where it is."""
    home = netns.identity()
    with netns.entered(empty_netns), Namespace() as namespace:
        before, descriptors = namespace.generation(), len([*Path("/proc/self/fd").iterdir()])
        features.missing()
        assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
        assert namespace.generation() == before
    assert netns.identity() == home


def test_a_namespace_of_no_name_is_empty_and_ends(empty_netns: str) -> None:
    """What the function sees is no namespace that anybody else has."""
    inside = netns.call_apart(lambda: (netns.identity(), Path("/proc/thread-self/net/dev").read_text()))
    assert inside[0] not in {netns.identity(), netns.identity(empty_netns)}
    assert [line.split(":")[0].strip() for line in inside[1].splitlines()[2:]] in (["lo"], sorted(["lo"]), [])


def test_who_may_not_make_a_namespace_is_told(empty_netns: str) -> None:
    """One line, not a traceback of unshare(2)."""
    program = (
        "from svcnat.kernel import features\nfrom svcnat.errors import PrivilegeError\n"
        "try: features.missing()\nexcept PrivilegeError as error: print(error)"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.startswith("cannot create a network namespace: Operation not permitted"), done.stderr


def run(name: str, script: str) -> None:
    with netns.entered(name):
        done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


TRANSLATED, ALL_DROP = Rule("translated", "accept"), Rule("all", "drop")


def test_chains_of_others_are_read_in_the_order_of_packets(empty_netns: str) -> None:
    """In nftables, iptables-nft's among them; what only some translated packets match is told apart."""
    run(
        empty_netns,
        """
        nft add table inet f
        nft 'add chain inet f late { type filter hook forward priority 10; policy drop; }'
        nft 'add chain inet f early { type filter hook forward priority -10; }'
        nft 'add chain inet f in { type filter hook input priority 0; }'
        nft 'add chain inet f nat { type nat hook prerouting priority 0; }'
        nft add chain inet f sub
        nft add rule inet f early ct state established,related accept
        nft add rule inet f early ct status dnat counter accept
        nft add rule inet f early ct status snat accept
        nft add rule inet f early ct status dnat limit rate 1/second accept
        nft add rule inet f early log prefix x counter jump sub
        nft add rule inet f early counter
        nft add rule inet f early reject
        nft add rule inet f sub ip saddr 192.0.2.1 drop
        nft add rule inet f sub return
        iptables-nft -N USER
        iptables-nft -A FORWARD -j USER
        iptables-nft -A USER -m conntrack --ctstate DNAT -j ACCEPT
        iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
        iptables-nft -A FORWARD -m conntrack ! --ctstate DNAT -j ACCEPT
        iptables-nft -A FORWARD -j REJECT
        """,
    )
    found = foreign.read(empty_netns)
    assert found.tables == {("inet", "f"), ("ip", "filter")}
    assert {("inet", "f", "sub"), ("inet", "f", "nat"), ("ip", "filter", "USER")} <= found.names
    early, iptables, late, into = found.chains
    assert (early.name, iptables.name, late.name, into.name) == ("early", "FORWARD", "late", "in")
    assert early == Chain(
        "inet", "f", "early", "forward", -10, "accept",
        (
            Rule("some", "accept"), TRANSLATED, Rule("some", "accept"), Rule("some", "accept"),
            Rule("all", "jump", "sub"), Rule("all", "continue"), ALL_DROP,
        ),
        {"sub": (Rule("some", "drop"), Rule("all", "return"))},
    )  # fmt: skip
    assert late == Chain("inet", "f", "late", "forward", 10, "drop")
    some = Rule("some", "accept")
    assert iptables.rules == (Rule("all", "jump", "USER"), some, some, ALL_DROP)
    assert iptables.called == {"USER": (TRANSLATED,)}


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_the_older_iptables_is_read_too(empty_netns: str, family: str) -> None:
    """Policies, rules, chains that are called; and without a table, none is made."""
    assert xtables.read(empty_netns) == ()
    tool, net = ("iptables-legacy", "192.0.2.0/24") if family == "ip" else ("ip6tables-legacy", "2001:db8::/64")
    try:
        run(empty_netns, f"{tool} -P FORWARD DROP")
    except AssertionError:
        pytest.skip("this kernel has no iptables-legacy")
    run(
        empty_netns,
        f"""
        {tool} -N USER
        {tool} -A FORWARD -j USER
        {tool} -A FORWARD -s {net} -j ACCEPT
        {tool} -A FORWARD -i eth0 -j ACCEPT
        {tool} -A FORWARD -p tcp -j ACCEPT
        {tool} -A FORWARD -p tcp --dport 80 -j ACCEPT
        {tool} -A FORWARD -m conntrack --ctstate DNAT,RELATED -j ACCEPT
        {tool} -A FORWARD -m conntrack --ctstate DNAT -m limit -j ACCEPT
        {tool} -A FORWARD -j REJECT
        {tool} -A FORWARD -g USER
        {tool} -A USER -m conntrack --ctstate DNAT -j ACCEPT
        {tool} -A USER -j DROP
        {tool} -N OTHER
        {tool} -A OTHER -j DROP
        """,
    )
    into, forward = xtables.read(empty_netns)
    assert (into.hook, into.policy, into.rules) == ("input", "accept", ())
    some = Rule("some", "accept")
    assert forward == Chain(
        family, "filter", "FORWARD", "forward", 0, "drop",
        (
            Rule("all", "jump", "USER"), some, some, some, some, TRANSLATED, some, ALL_DROP,
            Rule("all", "goto", "USER"),
        ),
        {"USER": (TRANSLATED, ALL_DROP, Rule("all", "return"))},
        legacy=True,
    )  # fmt: skip


def test_addresses_without_a_way_are_named(make_netns: Callable[[], str]) -> None:
    """As connect(2) would say, and nothing is sent."""
    here = make_netns()
    addresses = ("10.96.0.1", "fd00::1")
    assert set(reach.unreachable(addresses, here)) == set(addresses)
    run(here, "ip link set lo up; ip route add 10.96.0.0/12 dev lo; ip -6 route add blackhole fd00::/64")
    assert list(reach.unreachable(addresses, here)) == ["fd00::1"]
