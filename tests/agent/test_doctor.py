"""The doctor's judgement: facts in, findings out; no privilege, and no kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from svcnat.agent.doctor.examine import examine, hindrances
from svcnat.agent.doctor.facts import Agent, Facts, Machine, Place, Spot, State, Tool, Unknown, Wanted
from svcnat.agent.doctor.findings import ORDER, Finding
from svcnat.agent.doctor.machine import numbers
from svcnat.kernel.bridgeports import Port
from svcnat.kernel.features import FEATURES, Missing
from svcnat.kernel.foreign import Chain, Foreign
from svcnat.kernel.host import Address, Route
from svcnat.kernel.listeners import Listener
from svcnat.kernel.steps import Compare, Load, Rule, States, Step, Untrack
from svcnat.kernel.steps import Unknown as Unsure
from svcnat.model.configuration import Configuration

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MACHINE = Machine("6.1.0", NOW, (Tool("/usr/sbin/nft", "1.0.6"),))
ENDPOINT = Spot("ip", "tcp", "10.244.0.1", 8080)
FRONTENDS = (Spot("ip", "tcp", "10.96.0.10", 80), Spot("ip", "tcp", "", 30080))
WANTED = Wanted(1, ("10.96.0.10",), frozenset({"10.244.0.1"}), (), NOW, FRONTENDS, (ENDPOINT,))
STATE = State("/s.db", present=True, identity="a-b", wanted=WANTED)
SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "0",
    "net/netfilter/nf_conntrack_count": "10",
    "net/netfilter/nf_conntrack_max": "262144",
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    "net/netfilter/nf_conntrack_tcp_loose": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/eth0/rp_filter": "1",
    "net/ipv4/conf/eth0/forwarding": "1",
}
ADDRESSES = (Address("ip", "eth0", "192.0.2.1", 24, "global", frozenset()),)
DEFAULT = Route("ip", "0.0.0.0/0", "eth0", None, 0, usable=True)
PODS = Route("ip", "10.244.0.0/24", "cni0", None, 0, usable=True)
PLACE = Place(
    settings=SETTINGS, addresses=ADDRESSES, routes=(DEFAULT,), families=("ip",), origin="state a-b", enter="in "
)
FACTS = Facts(MACHINE, STATE, agent=Agent(alive=True, detail="pid 7"), places=(PLACE,))
TRANSLATED = Rule("accept", (States(0, translated=True),))
TO_PODS: tuple[Step, ...] = (Load(0, 16, "oifname"), Compare(0, ((b"cni0".ljust(16, b"\0"),) * 2,)))
NAT = Chain("ip", "nat", "PREROUTING", "prerouting", -100, "accept", kind="nat")
DROP = Chain("ip", "filter", "FORWARD", "forward", 0, "drop")


def machine(**changes: Any) -> Facts:
    return replace(FACTS, machine=replace(MACHINE, **changes))


def state(**changes: Any) -> Facts:
    return replace(FACTS, state=replace(STATE, **changes))


def wanted(**changes: Any) -> Facts:
    return state(wanted=replace(WANTED, **changes))


def place(**changes: Any) -> Facts:
    return replace(FACTS, places=(replace(PLACE, **changes),))


def settings(**changes: str) -> Facts:
    """Settings by the last part of their keys; a device's after its name and a slash."""
    known = {key.rpartition("conf/")[2].rpartition("nf_conntrack_")[2]: key for key in SETTINGS}
    return place(settings=SETTINGS | {known.get(name, name): value for name, value in changes.items()})


def config(**changes: Any) -> Facts:
    return replace(FACTS, config=Configuration(**changes))


def troubles(facts: Facts) -> list[Finding]:
    return [each for each in examine(facts) if each.severity != "ok"]


def test_a_sound_host_has_no_finding_but_what_is_in_order() -> None:
    """No permanent warning: whoever sees one has something to do."""
    assert troubles(FACTS) == []
    assert {each.subject for each in examine(FACTS)} >= {"kernel", "nft", "forwarding", "rules", "agent", "clock"}


def test_what_no_agent_can_repair_is_a_hindrance() -> None:
    """The kernel, nft, settings, other programs; not how the agent and its objects fare, and no advice."""
    off = {"net/ipv4/ip_forward": "0", "net/ipv4/conf/eth0/forwarding": "0"}
    lacking = machine(missing=(Missing(FIB, "ip", "no"),), tools=(Tool("/x", "0.9.8"),), now=NOW.replace(year=1970))
    for facts, subjects in (
        (replace(lacking, agent=Agent(alive=False)), {"kernel", "nft"}),
        (place(settings=SETTINGS | off, origin="state other"), {"forwarding"}),
        (place(foreign=Foreign(chains=(DROP,))), {"other rules"}),
        (settings(tcp_be_liberal="0"), set()),
        (FACTS, set()),
    ):
        assert {each.subject for each in hindrances(facts)} == subjects
        assert all(each.fix for each in hindrances(facts))


FIB, HASH = (next(each for each in FEATURES if each.name == name) for name in ("looking up routes", "hashes"))

CASES: dict[str, tuple[Facts, str, str, str, str]] = {
    "a feature that all rules need": (
        machine(missing=(Missing(FIB, "ip", "no such expression"), Missing(FIB, "ip6", "no"))),
        "error", "kernel", "ip and ip6: looking up routes (no such expression)", "NFT_FIB_IPV4",
    ),
    "a feature that some rules need": (
        machine(missing=(Missing(HASH, "ip", "no"),)), "warning", "kernel", "which the schedulers", "NFT_HASH",
    ),
    "features that could not be asked for": (
        machine(missing=Unknown("needs root")), "unknown", "kernel", "could not be looked at: needs root", "",
    ),
    "a feature for a family that no service has": (
        machine(missing=(Missing(FIB, "ip6", "no"),)), "warning", "kernel", "for ip6", "NFT_FIB",
    ),
    "no nftables for Python": (
        machine(library="not installed"), "error", "libnftables", "not installed", "apt install python3-nftables",
    ),
    "no nft": (machine(tools=()), "warning", "nft", "no nft command", "apt install nftables"),
    "an nft that tells no version": (machine(tools=(Tool("/x", ""),)), "warning", "nft", "no nft command", "apt"),
    "an nft that crashes": (machine(tools=(Tool("/x", "0.9.8"),)), "error", "nft", "0.9.8 is too old", "upgrade"),
    "an untested nft": (machine(tools=(Tool("/x", "1.0.2"),)), "warning", "nft", "older than 1.0.6", "upgrade"),
    "two forms of sets": (
        machine(tools=(Tool("/new", "1.1.3"), Tool("/old", "1.0.6"))),
        "warning", "nft", "/old (1.0.6) crashes when it lists sets that /new (1.1.3)", "one version",
    ),
    "a clock that is behind its objects": (
        machine(now=NOW - timedelta(days=1)), "warning", "clock", "2026-05-31", "timedatectl",
    ),
    "a clock that was never set": (
        replace(wanted(newest=None), machine=replace(MACHINE, now=datetime(1970, 1, 1, tzinfo=UTC))),
        "warning", "clock", "1970-01-01", "timedatectl",
    ),
    "a wrong configuration": (
        replace(FACTS, trouble=("c.yaml:3: no",)), "error", "configuration", "c.yaml:3: no", "correct it",
    ),
    "a state file that cannot be used": (state(trouble="/s.db: damaged"), "error", "state file", "damaged", "backup"),
    "a state file that may not be read": (
        state(present=None, trouble="may not read", wanted=Unknown("may not read")),
        "unknown", "state file", "may not read", "",
    ),
    "objects that were not read": (state(wanted=Unknown("older")), "unknown", "state file", "objects", ""),
    "a state file that others may read": (
        state(path="/a b", mode=0o640), "warning", "state file", "secrets", "chmod go= '/a b'",
    ),
    "a state file on a network": (state(file_system="nfs4"), "error", "state file", "(nfs4)", "local disk"),
    "a full disk": (state(free=3 << 20), "warning", "state file", "3 MiB", "room"),
    "no agent": (replace(FACTS, agent=Agent(False), begin="svcnat run"), "warning", "agent", "none runs", "svcnat run"),
    "an agent that cannot be asked": (replace(FACTS, agent=Agent()), "unknown", "agent", "could not be asked", ""),
    "no forwarding": (
        settings(**{"net/ipv4/ip_forward": "0", "eth0/forwarding": "0"}),
        "error", "forwarding", "IPv4 is not", "in sysctl -w net/ipv4/ip_forward=1",
    ),
    "no forwarding of IPv6": (
        wanted(addresses=("10.96.0.10", "fd00:10:96::1")),
        "error", "forwarding", "IPv6 is not", "in sysctl -w net/ipv6/conf/all/forwarding=1",
    ),
    "no forwarding, and nothing known": (
        replace(
            settings(**{"net/ipv4/ip_forward": "0", "eth0/forwarding": "0"}), state=replace(STATE, wanted=Wanted())
        ),
        "warning", "forwarding", "IPv4", "ip_forward=1",
    ),
    "forwarding, but not from everywhere": (
        settings(**{"eth0/forwarding": "0"}),
        "warning", "forwarding", "comes in by eth0", "in sysctl -w net/ipv4/conf/eth0/forwarding=1",
    ),
    "a strict reverse path with two ways": (
        place(routes=(DEFAULT, replace(DEFAULT, device="wg0", metric=5))),
        "warning", "rp_filter", "eth0, wg0", "in sysctl -w net/ipv4/conf/all/rp_filter=2",
    ),
    "an unreachable range behind two": (
        place(
            routes=(DEFAULT, replace(DEFAULT, device="wg0", metric=5), replace(DEFAULT, device="", usable=False)),
        ),
        "warning", "rp_filter", "eth0, wg0", "rp_filter=2",
    ),
    "forwarding of IPv6 that would take the default route away": (
        replace(
            place(
                settings=SETTINGS | {"net/ipv6/conf/eth0/accept_ra": "1", "net/ipv6/conf/eth1/accept_ra": "1"},
                routes=(DEFAULT, Route("ip6", "::/0", "eth0", None, 0, usable=True)),
            ),
            state=replace(STATE, wanted=replace(WANTED, addresses=("10.96.0.10", "fd00:10:96::1"))),
        ),
        "error", "forwarding", "IPv6 is not",
        "in sysctl -w net/ipv6/conf/eth0/accept_ra=2 net/ipv6/conf/all/forwarding=1",
    ),
    "a default route that forwarding has taken away": (
        replace(
            place(
                settings=SETTINGS | {"net/ipv6/conf/eth0/accept_ra": "1", "net/ipv6/conf/all/forwarding": "1"},
                addresses=(*ADDRESSES, Address("ip6", "eth0", "2001:db8::7", 64, "global", frozenset())),
            ),
            state=replace(STATE, wanted=replace(WANTED, addresses=("10.96.0.10", "fd00:10:96::1"))),
        ),
        "warning", "forwarding", "IPv6 has no default route", "in sysctl -w net/ipv6/conf/eth0/accept_ra=2",
    ),
    "forwarding, but not from two devices": (
        place(
            settings=SETTINGS | {"net/ipv4/conf/eth0/forwarding": "0", "net/ipv4/conf/a b/forwarding": "0"},
            routes=(DEFAULT, replace(PODS, device="a b")),
        ),
        "warning", "forwarding", "a b", "'net/ipv4/conf/a b/forwarding=1'",
    ),
    "few buckets": (
        settings(**{"net/netfilter/nf_conntrack_buckets": "16384"}),
        "warning", "conntrack", "16384 buckets", "sysctl -w net/netfilter/nf_conntrack_buckets=65536",
    ),
    "a full table with few buckets": (
        settings(count="250000", **{"net/netfilter/nf_conntrack_buckets": "16384"}),
        "error", "conntrack", "250000", "nf_conntrack_max=524288 net/netfilter/nf_conntrack_buckets=131072",
    ),
    "a program on a node port": (
        place(listeners=frozenset({Listener("tcp", "::", 30080), Listener("udp", "0.0.0.0", 30080)})),
        "warning", "node ports", "listens on 30080/tcp", "another port",
    ),
    "ports for everybody": (
        settings(
            **{"net/ipv4/ip_local_port_range": "1024 31000", "net/ipv4/ip_local_reserved_ports": "8080,30500-40000"}
        ),
        "warning", "node ports", "30000 to 31000",
        "in sysctl -w net/ipv4/ip_local_reserved_ports=8080,30500-40000,30000-31000",
    ),
    "a full table of connections": (
        settings(count="250000"), "error", "conntrack", "250000 of at most 262144", "conntrack_max=524288",
    ),
    "a table that fills": (settings(count="190000"), "warning", "conntrack", "190000", "conntrack_max=524288"),
    "a small table": (settings(max="8192"), "warning", "conntrack", "few", "conntrack_max=131072"),
    "strict windows": (
        settings(tcp_be_liberal="0"), "warning", "tcp_be_liberal", "window", "conntrack_tcp_be_liberal=1",
    ),
    "clients that would hang": (
        replace(settings(tcp_loose="0"), state=replace(STATE, wanted=replace(WANTED, ending=("default/db",)))),
        "warning", "tcp_loose", "default/db", "conntrack_tcp_loose=1",
    ),
    "settings that cannot be read": (place(settings=Unknown("no")), "unknown", "sysctl", "no", ""),
    "a range inside the pods' range": (
        config(cluster_cidr="10.96.0.0/16"), "error", "serviceCIDR", "10.96.0.0/12 overlaps 10.96.0.0/16", "range",
    ),
    "a host inside the range": (
        place(addresses=(replace(ADDRESSES[0], address="10.100.0.1"),)),
        "error", "serviceCIDR", "10.100.0.1 of eth0", "set serviceCIDR",
    ),
    "a network inside the range": (
        place(routes=(DEFAULT, Route("ip", "10.97.0.0/16", "eth1", None, 0, usable=True))),
        "warning", "serviceCIDR", "10.97.0.0/16 by eth1", "set serviceCIDR",
    ),
    "a network where a service is": (
        place(routes=(DEFAULT, Route("ip", "10.96.0.0/24", "eth1", None, 0, usable=True))),
        "error", "serviceCIDR", "now 10.96.0.10", "set serviceCIDR",
    ),
    "a network around the range": (
        place(routes=(DEFAULT, Route("ip", "10.0.0.0/8", "tun0", None, 0, usable=True))),
        "warning", "serviceCIDR", "10.0.0.0/8 by tun0", "set serviceCIDR",
    ),
    "no way to a service": (
        place(unreachable={"10.96.0.10": "Network is unreachable"}),
        "error", "routes", "10.96.0.10 (Network is unreachable)", "in ip -4 route add 10.96.0.0/12 dev eth0",
    ),
    "no way, and no address": (
        place(unreachable={"2001:db8::1": "Network is unreachable"}),
        "error", "routes", "2001:db8::1", "give this host an IPv6 address, and a route to 2001:db8::1",
    ),
    "a bridge that is not seen": (
        replace(place(unseen={"ip": ("br0",), "ip6": ("br0",)}), config=Configuration(bridge_masquerade="off")),
        "warning", "bridges", "what br0 forwards", "bridge-nf-call-iptables=1",
    ),
    "an endpoint that cannot reach itself": (
        place(routes=(DEFAULT, PODS), ports=(Port("cni0", "a;b", hairpin=False, isolated=False),)),
        "warning", "bridges", "a;b", "for port in 'a;b'; do in bridge link set dev",
    ),
    "endpoints that are kept apart": (
        place(routes=(DEFAULT, PODS), ports=(Port("cni0", "v1", hairpin=True, isolated=True),)),
        "warning", "bridges", "isolated port (v1)", "isolated off",
    ),
    "another's rules": (place(origin="state c-d"), "error", "rules", "another state file", "svcnat cleanup"),
    "no rules": (
        replace(place(families=(), origin=""), begin="svcnat run"),
        "warning", "rules", "no rules are here", "svcnat run --once",
    ),
    "rules that may not be read": (place(families=Unknown("root")), "unknown", "rules", "root", ""),
    "a policy that drops": (
        place(foreign=Foreign(chains=(DROP,))),
        "error", "other rules", "chain ip filter FORWARD drops", "in iptables-nft -I FORWARD -m conntrack",
    ),
    "a policy of iptables-legacy": (
        place(legacy=(replace(DROP, legacy=True),)),
        "error", "other rules", "iptables-legacy ip filter FORWARD", "in iptables-legacy -I FORWARD",
    ),
    "a chain of nft": (
        place(foreign=Foreign(chains=(replace(DROP, family="inet", table="mine", name="fw"),))),
        "error", "other rules", "inet mine fw", "in nft insert rule inet mine fw ct status dnat accept",
    ),
    "a chain whose name no command may hold": (
        place(foreign=Foreign(chains=(replace(DROP, table="a;reboot", name="b"),))),
        "error", "other rules", "a;reboot", "put the rule `ct status dnat accept` at the top",
    ),
    "a chain with exceptions": (
        place(foreign=Foreign(chains=(replace(DROP, rules=(Rule("accept", (Unsure(),)),)),))),
        "warning", "other rules", "unless one of its rules", "iptables-nft -I FORWARD",
    ),
    "Docker's policy": (
        place(foreign=Foreign(chains=(DROP,), names=frozenset({("ip", "filter", "DOCKER-USER")}))),
        "error", "Docker", "drops", "in iptables-nft -I DOCKER-USER",
    ),
    "Docker's containers": (
        place(
            routes=(DEFAULT, PODS),
            foreign=Foreign(
                chains=(replace(DROP, policy="accept", rules=(Rule("drop", TO_PODS),)),),
                names=frozenset({("ip", "filter", "DOCKER-USER")}),
            ),
        ),
        "error", "Docker", "drops", "in iptables-nft -I DOCKER-USER",
    ),
    "libvirt's networks": (
        place(
            foreign=Foreign(
                chains=(replace(DROP, table="libvirt_network", name="forward"),),
                names=frozenset({("ip", "libvirt_network", "guest_input")}),
            )
        ),
        "error", "libvirt", "drops", "in nft insert rule ip libvirt_network guest_input ct status dnat",
    ),
    "libvirt's networks on iptables": (
        place(foreign=Foreign(chains=(DROP,), names=frozenset({("ip", "filter", "LIBVIRT_FWI")}))),
        "error", "libvirt", "drops", "in iptables-nft -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
    ),
    "Docker's own tables": (
        place(foreign=Foreign(chains=(replace(DROP, table="docker-bridges", name="filter-FORWARD"),))),
        "error", "Docker", "docker-bridges", "nat-unprotected",
    ),
    "firewalld's refusal": (
        place(
            foreign=Foreign(
                chains=(
                    replace(
                        DROP, family="inet", table="firewalld", policy="accept",
                        rules=(Rule("accept", (Unsure(),)), Rule("drop")),
                    ),
                )
            )
        ),
        "warning", "firewalld", "inet firewalld", "StrictForwardPorts=no",
    ),
    "ufw's policy": (
        place(foreign=Foreign(chains=(DROP,), names=frozenset({("ip", "filter", "ufw-before-forward")}))),
        "error", "ufw", "drops", "in sed -i '/^:ufw-before-forward /a -A ufw-before-forward -m conntrack",
    ),
    "endpoints on a host that takes nothing": (
        replace(
            place(foreign=Foreign(chains=(replace(DROP, name="INPUT", hook="input"),))),
            state=replace(STATE, wanted=replace(WANTED, backends=(replace(ENDPOINT, address="192.0.2.1"),))),
        ),
        "error", "other rules", "endpoints on this host", "iptables-nft -I INPUT",
    ),
    "a drop of what the host sends": (
        place(foreign=Foreign(chains=(replace(DROP, name="OUTPUT", hook="output"),))),
        "warning", "other rules", "by this host itself", "in iptables-nft -I OUTPUT -m conntrack",
    ),
    "a drop in another table of iptables": (
        place(foreign=Foreign(chains=(replace(DROP, table="mangle"),))),
        "error", "other rules", "mangle FORWARD", "in iptables-nft -t mangle -I FORWARD -m conntrack",
    ),
    "a drop of answers": (
        place(foreign=Foreign(chains=(replace(DROP, rules=(Rule("accept", (States(8),)),)),))),
        "error", "other rules", "drops the answers of endpoints", "--ctstate DNAT -j ACCEPT",
    ),
    "a drop before translation": (
        place(foreign=Foreign(chains=(replace(DROP, table="mine", name="pre", hook="prerouting", priority=-150),))),
        "error", "other rules", "what is sent to services", "let pass there",
    ),
    "a drop by a device": (
        place(
            addresses=(*ADDRESSES, replace(ADDRESSES[0], device="wan0", address="198.51.100.1")),
            foreign=Foreign(
                chains=(
                    replace(
                        DROP, policy="accept",
                        rules=(Rule("drop", (Load(0, 4, "iifname"), Compare(0, ((b"wan0",) * 2,)))),),
                    ),
                )
            ),
        ),
        "warning", "other rules", "and comes in by wan0", "ACCEPT",
    ),
    "a drop of one endpoint": (
        replace(
            place(
                foreign=Foreign(
                    chains=(
                        replace(
                            DROP, policy="accept",
                            rules=(Rule("drop", (Load(4, 2, "transport", 2), Compare(4, ((b"\x00\x35",) * 2,)))),),
                        ),
                    )
                )
            ),
            state=replace(
                STATE, wanted=replace(WANTED, backends=(ENDPOINT, replace(ENDPOINT, protocol="udp", port=53)))
            ),
        ),
        "warning", "other rules", "at 10.244.0.1:53/udp", "ACCEPT",
    ),
    "what is not tracked": (
        place(
            foreign=Foreign(
                chains=(
                    replace(
                        DROP, table="raw", name="PREROUTING", hook="prerouting", priority=-300, policy="accept",
                        rules=(Rule("continue", (Untrack(),), handle=7),),
                    ),
                )
            )
        ),
        "error", "other rules", "untracked", "in nft delete rule ip raw PREROUTING handle 7",
    ),
    "what is not tracked by iptables-legacy": (
        place(
            legacy=(
                replace(
                    DROP, table="raw", name="PREROUTING", hook="prerouting", priority=-300, policy="accept",
                    legacy=True,
                    rules=(Rule("jump", target="a b"),), called={"a b": (Rule("continue", (Untrack(),), handle=2),)},
                ),
            )
        ),
        "error", "other rules", "untracked", "in iptables-legacy -t raw -D 'a b' 2",
    ),
    "another translation of a node port": (
        place(
            foreign=Foreign(
                chains=(
                    replace(
                        NAT,
                        rules=(
                            Rule("translate", (Load(4, 2, "transport", 2), Compare(4, ((b"\x75\x80",) * 2,)))),
                        ),
                    ),
                ),
                names=frozenset({("ip", "nat", "DOCKER")}),
            )
        ),
        "warning", "Docker", "translates what is sent to node port 30080", "nodePortRange",
    ),
    "kube-proxy, with a service of ours": (
        place(foreign=Foreign(chains=(replace(NAT, table="kube-proxy", rules=(Rule("translate", (Unsure(),)),)),))),
        "warning", "kube-proxy", "10.96.0.10:80, node port 30080", "nodePort",
    ),
    "kube-proxy, with more rules than can be read": (
        place(
            foreign=Foreign(
                chains=(replace(NAT, rules=None, whole=False),), names=frozenset({("ip", "nat", "KUBE-SERVICES")})
            )
        ),
        "warning", "kube-proxy", "too many to compare", "nodePort",
    ),
    "other rules that may not be read": (place(foreign=Unknown("root")), "unknown", "other rules", "root", ""),
    "iptables-legacy that may not be read": (place(legacy=Unknown("root")), "unknown", "other rules", "legacy", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_trouble_is_one_finding_with_its_fix(case: tuple[Facts, str, str, str, str]) -> None:
    """The severity, what it is about, what it says, and what to do."""
    facts, severity, subject, message, fix = case
    (found,) = troubles(facts)
    assert (found.severity, found.subject) == (severity, subject)
    assert message in found.message
    assert fix in found.fix
    assert bool(found.fix) == (severity != "unknown")


FINE: dict[str, Facts] = {
    "a rule that lets translated packets pass": place(foreign=Foreign(chains=(replace(DROP, rules=(TRANSLATED,)),))),
    "the same in a chain of its own": place(
        foreign=Foreign(chains=(replace(DROP, rules=(Rule("jump", target="x"),), called={"x": (TRANSLATED,)}),))
    ),
    "Docker's containers, and endpoints elsewhere": place(
        foreign=Foreign(
            chains=(replace(DROP, policy="accept", rules=(Rule("drop", TO_PODS),)),),
            names=frozenset({("ip", "filter", "DOCKER-USER")}),
        )
    ),
    "a rule that lets just these packets pass": place(
        routes=(DEFAULT, PODS),
        foreign=Foreign(chains=(replace(DROP, rules=(Rule("accept", (States(2),)), Rule("accept", TO_PODS))),)),
    ),
    "a drop of what cannot be known": place(
        foreign=Foreign(chains=(replace(DROP, policy="accept", rules=(Rule("drop", (Unsure(),)),)),))
    ),
    "a chain too long to be read": place(foreign=Foreign(chains=(replace(DROP, rules=None, whole=False),))),
    "kube-proxy with services of its own": place(
        foreign=Foreign(
            tables=frozenset({("ip", "kube-proxy")}),
            chains=(
                replace(
                    NAT,
                    table="kube-proxy",
                    rules=(Rule("translate", (Load(0, 4, "network", 16), Compare(0, ((b"\x0a\x0b\x0c\x0d",) * 2,)))),),
                ),
            ),
        )
    ),
    "a drop at input, and endpoints elsewhere": place(foreign=Foreign(chains=(replace(DROP, hook="input"),))),
    "a policy for a family that no service has": place(foreign=Foreign(chains=(replace(DROP, family="ip6"),))),
    "svcnat's own chains": place(foreign=Foreign(chains=(replace(DROP, table="svcnat"),))),
    "ports of a bridge that netfilter does not see": place(
        routes=(DEFAULT, PODS), unseen={"ip": ("cni0",)}, ports=(Port("cni0", "v1", hairpin=False, isolated=True),)
    ),
    "ports of a bridge without endpoints": place(
        routes=(DEFAULT, PODS), ports=(Port("br0", "v1", hairpin=False, isolated=True),)
    ),
    "forwarding that is forced": replace(
        place(settings=SETTINGS | {"net/ipv6/conf/eth0/force_forwarding": "1"}),
        state=replace(STATE, wanted=replace(WANTED, addresses=("10.96.0.10", "fd00:10:96::1"))),
    ),
    "a device without an address": place(settings=SETTINGS | {"net/ipv4/conf/dummy0/forwarding": "0"}),
    "a strict reverse path, and a default route that refuses": place(
        routes=(DEFAULT, replace(DEFAULT, device="", usable=False, metric=9))
    ),
    "programs elsewhere": place(
        listeners=frozenset({Listener("tcp", "127.0.0.1", 30080), Listener("tcp", "0.0.0.0", 80)})
    ),
    "node ports that nobody is given": settings(
        **{"net/ipv4/ip_local_port_range": "32000 60999", "net/ipv4/ip_local_reserved_ports": "31000-31999,32000-33000"}
    ),
    "ports for everybody, and no node port": replace(
        settings(**{"net/ipv4/ip_local_port_range": "1024 60999"}),
        state=replace(STATE, wanted=replace(WANTED, frontends=FRONTENDS[:1])),
    ),
    "forwarding of one device": settings(**{"net/ipv4/ip_forward": "0"}),
    "a route to just the range": place(routes=(Route("ip", "10.96.0.0/12", "eth0", None, 0, usable=True),)),
    "a range that is refused": place(routes=(DEFAULT, Route("ip", "10.97.0.0/16", "", None, 0, usable=False))),
    "a bridge whose clients are masqueraded": place(unseen={"ip": ("br0",)}),
    "rules that came from manifests": place(origin="manifests"),
    "no agent and nothing to follow": replace(
        wanted(services=0), agent=Agent(alive=False), places=(replace(PLACE, families=()),)
    ),
    "no state file yet": state(present=False, wanted=Wanted()),
    "no connection tracking yet": place(settings={"net/ipv4/ip_forward": "1"}),
    "two new forms of sets": machine(tools=(Tool("/a", "1.1.3"), Tool("/b", "1.1.5"))),
    "an old form that was repaired": machine(tools=(Tool("/a", "1.1.3"), Tool("/b", "1.0.6.1"))),
}


@pytest.mark.parametrize("facts", FINE.values(), ids=FINE)
def test_what_works_is_no_finding(facts: Facts) -> None:
    """What looks like a trouble, and is none, is left alone."""
    assert troubles(facts) == []


def test_the_worst_comes_first_and_says_where() -> None:
    """By severity; the findings of a node carry its name."""
    nodes = [replace(PLACE, node=name) for name in ("node-1", "node-2")]
    bad = replace(nodes[1], foreign=Foreign(chains=(DROP,)))
    found = examine(replace(FACTS, machine=replace(MACHINE, tools=()), agent=Agent(), places=(nodes[0], bad)))
    ranks = [ORDER.index(each.severity) for each in found]
    assert ranks == sorted(ranks)
    assert (found[0].node, found[0].subject) == ("node-2", "other rules")
    assert {each.node for each in found} == {"", "node-1", "node-2"}


@pytest.mark.parametrize(
    ("text", "expected"), [("1.0.6", (1, 0, 6)), ("1.0.6.1-rc", (1, 0, 6, 1)), ("", ()), ("x1", ())]
)
def test_versions_are_numbers(text: str, expected: tuple[int, ...]) -> None:
    """So that 1.0.10 is newer than 1.0.9."""
    assert numbers(text) == expected


def test_many_rules_and_many_endpoints_take_bounded_work() -> None:
    """Where each packet meets thousands of rules, fewer packets are tried; what is found stays found."""
    asked = 0

    class Counted(tuple[Step, ...]):
        """The steps of a rule, counting who looks at them."""

        def __iter__(self) -> Iterator[Step]:
            nonlocal asked
            asked += 1
            return super().__iter__()

    steps = Counted((Load(4, 4, "network", 12), Compare(4, ((b"\xc0\x00\x02\x09",) * 2,))))
    long = replace(DROP, rules=(Rule("drop", steps),) * 4000)
    many = tuple(Spot("ip", "tcp", f"10.244.0.{n}", 80) for n in range(60))
    facts = replace(place(foreign=Foreign(chains=(long,))), state=replace(STATE, wanted=replace(WANTED, backends=many)))
    (found,) = troubles(facts)
    assert found.severity == "error"
    assert 4000 <= asked <= 100_000
