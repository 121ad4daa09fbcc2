"""What the kernel can do is asked without a trace; what others keep from packets is read as it is."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat.errors import KernelError, MissingError, PrivilegeError
from svcnat.kernel import features, foreign, netns, reach, xtables
from svcnat.kernel.features import FEATURES, WHOLE
from svcnat.kernel.nftables import Namespace
from svcnat.kernel.steps import Compare, Load, Lookup, Mask, States, Unknown

AF = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}


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


STATUS = struct.pack("=I", 1 << 5)  # IPS_DST_NAT
TRANSLATED = (Load(0, 4, "status"), Mask(0, 0, STATUS, bytes(4)), Compare(0, ((bytes(4), bytes(4)),), inverted=True))


def test_chains_of_others_are_read_in_the_order_of_packets(empty_netns: str) -> None:
    """In nftables, iptables-nft's among them; what cannot be followed is a step of its own."""
    run(
        empty_netns,
        """
        nft add table inet f
        nft 'add chain inet f late { type filter hook forward priority 10; policy drop; }'
        nft 'add chain inet f early { type filter hook forward priority -10; }'
        nft 'add chain inet f in { type filter hook input priority 0; }'
        nft 'add chain inet f nat { type nat hook prerouting priority 0; }'
        nft 'add chain inet f out { type nat hook postrouting priority 0; }'
        nft add chain inet f sub
        nft add rule inet f early ct status dnat counter accept
        nft add rule inet f early limit rate 1/second accept
        nft add rule inet f early log prefix x counter jump sub
        nft add rule inet f early counter
        nft add rule inet f early reject
        nft add rule inet f sub ip saddr 192.0.2.1 drop
        nft add chain inet f deep
        nft add rule inet f sub 'iifname vmap { "eth0" : accept, "eth1" : goto deep }'
        nft add rule inet f sub tcp dport 80-90 return
        nft add rule inet f nat dnat ip to 192.0.2.1
        iptables-nft -N USER
        iptables-nft -A FORWARD -j USER
        iptables-nft -A USER -m conntrack --ctstate DNAT,RELATED -j ACCEPT
        iptables-nft -A FORWARD -m conntrack ! --ctstate NEW -j ACCEPT
        iptables-nft -A FORWARD -m recent --name x --rcheck -j ACCEPT
        iptables-nft -A FORWARD -j REJECT
        """,
    )
    found = foreign.read(empty_netns)
    assert found.tables == {("inet", "f"), ("ip", "filter")}
    assert {("inet", "f", "sub"), ("inet", "f", "out"), ("ip", "filter", "USER")} <= found.names
    assert found.devices["lo"] == 1
    early, iptables, late, _, nat = found.chains
    assert [each.name for each in found.chains] == ["early", "FORWARD", "late", "in", "nat"]
    assert [(each.verdict, each.steps, each.target) for each in early.rules or ()] == [
        ("accept", TRANSLATED, ""),
        ("accept", (Unknown(),), ""),
        ("jump", (), "sub"),
        ("continue", (), ""),
        ("drop", (), ""),
    ]
    family, lookup, port = early.called["sub"]
    assert family.steps[1:] == (
        Compare(0, ((b"\x02", b"\x02"),)),
        Load(0, 4, "network", 12),
        Compare(0, ((b"\xc0\x00\x02\x01",) * 2,)),
    ) or family.steps[1:] == (
        Compare(0, ((b"\x02", b"\x02"),)),
        Load(4, 4, "network", 12),
        Compare(4, ((b"\xc0\x00\x02\x01",) * 2,)),
    )
    (name, elements), *_ = early.sets.items()
    device, asked = lookup.steps
    assert (device, asked) == (Load(0, 16, "iifname"), Lookup(0, name, decides=True))
    assert {(each.low.rstrip(b"\0"), each.verdict, each.target) for each in elements} == {
        (b"eth0", "accept", ""),
        (b"eth1", "goto", "deep"),
    }
    assert "deep" in early.called
    assert port.verdict == "return"
    assert (late.policy, late.rules, nat.kind) == ("drop", (), "nat")
    assert nat.rules
    assert nat.rules[0].verdict == "translate"
    assert [(each.verdict, each.steps) for each in iptables.rules or ()] == [
        ("jump", ()),
        ("accept", (States(8, inverted=True),)),
        ("accept", (Unknown(),)),
        ("drop", ()),
    ]
    assert [each.steps for each in iptables.called["USER"]] == [(States(4, translated=True),)]


def test_long_chains_and_sets_are_not_read_to_their_end(empty_netns: str) -> None:
    """However many rules a machine has, what is read of them is bounded; that it is not all of them is told."""
    rules = [f"add rule ip f {chain} ip saddr 10.0.{n // 256}.{n % 256} drop\n" for chain in "ab" for n in range(4100)]
    some = [f"add element ip f s {{ 10.1.{n // 256}.{n % 256} }}\n" for n in range(2100)]
    with Namespace(empty_netns) as namespace:
        namespace.commit(
            "add table ip f\nadd chain ip f a { type filter hook forward priority 0; }\nadd chain ip f b\n"
            "add chain ip f c { type filter hook forward priority 1; }\n"
            "add chain ip f d { type filter hook forward priority 2; }\n"
            "add set ip f s { type ipv4_addr; }\nadd rule ip f c jump b\nadd rule ip f d ip saddr @s drop\n"
        )
        for lines in (rules, some):  # in parts that fit the send buffer of an ordinary user
            for start in range(0, len(lines), 300):
                namespace.commit("".join(lines[start : start + 300]))
    a, c, d = foreign.read(empty_netns).chains
    assert (a.rules, a.whole, c.whole, d.whole) == (None, False, False, False)
    assert (len(c.rules or ()), c.called, len(d.rules or ()), d.sets) == (1, {}, 1, {})


def test_ranges_of_sets_are_read(empty_netns: str) -> None:
    """Neighbours, single values, and ranges up to the greatest value."""
    with Namespace(empty_netns) as namespace:
        namespace.commit(
            "add table ip f\nadd chain ip f a { type filter hook forward priority 0; }\n"
            "add set ip f s { type inet_service; flags interval; elements = { 22, 80-90, 60000-65535 }; }\n"
            "add rule ip f a tcp dport @s accept\n"
        )
    (chain,) = foreign.read(empty_netns).chains
    found = [(int.from_bytes(each.low, "big"), int.from_bytes(each.high, "big")) for each in chain.sets["s"]]
    assert found == [(22, 22), (80, 90), (60000, 65535)]


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
    read = {each.hook: each for each in xtables.read(empty_netns)}
    assert set(read) == {"input", "forward", "output"}
    assert (read["input"].policy, read["input"].rules) == ("accept", ())
    forward, bits = read["forward"], 24 if family == "ip" else 64
    address, offset = socket.inet_pton(AF[family], net.partition("/")[0]), 12 if family == "ip" else 8
    mask = (b"\xff" * (bits // 8)).ljust(len(address), b"\0")
    eth0, six = b"eth0\0".ljust(16, b"\0"), bytes([6])
    tcp = (Load(4, 1, "l4proto"), Mask(4, 4, b"\xff", b"\0"), Compare(4, ((six, six),)))
    http = (Load(4, 2, "transport", 2), Compare(4, ((struct.pack("!H", 80),) * 2,)))
    assert (forward.family, forward.table, forward.name, forward.policy) == (family, "filter", "FORWARD", "drop")
    assert forward.legacy
    assert [(each.verdict, each.steps, each.target) for each in forward.rules or ()] == [
        ("jump", (), "USER"),
        (
            "accept",
            (
                Load(4, len(address), "network", offset),
                Mask(4, 4, mask, bytes(len(mask))),
                Compare(4, ((address, address),)),
            ),
            "",
        ),
        (
            "accept",
            (
                Load(4, 16, "iifname"),
                Mask(4, 4, (b"\xff" * 5).ljust(16, b"\0"), bytes(16)),
                Compare(4, ((eth0, eth0),)),
            ),
            "",
        ),
        ("accept", tcp, ""),
        ("accept", (*tcp, *http), ""),
        ("accept", (States(4, translated=True),), ""),
        ("accept", (States(0, translated=True), Unknown()), ""),
        ("drop", (), ""),
        ("goto", (), "USER"),
    ]
    assert [each.handle for each in forward.rules or ()] == [*range(1, 10)]
    user = [(each.verdict, each.steps) for each in forward.called["USER"]]
    assert user == [("accept", (States(0, translated=True),)), ("drop", ()), ("return", ())]


def test_addresses_without_a_way_are_named(make_netns: Callable[[], str]) -> None:
    """As connect(2) would say, and nothing is sent."""
    here = make_netns()
    addresses = ("10.96.0.1", "fd00::1")
    assert set(reach.unreachable(addresses, here)) == set(addresses)
    run(here, "ip link set lo up; ip route add 10.96.0.0/12 dev lo; ip -6 route add blackhole fd00::/64")
    assert list(reach.unreachable(addresses, here)) == ["fd00::1"]
