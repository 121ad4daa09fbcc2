"""Findings about other programs' rules: those that drop what svcnat translated, translate it too, or keep it untracked.

svcnat touches no other program's table, so it can only say what to allow there. An accept in one table does not
outweigh a drop in another: each chain at the hook has its say (nft(8)). What a chain does is not guessed from whose it
is: the packets of the services go through it on paper.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from svcnat.agent.doctor.facts import Facts, Place, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, not_known, some
from svcnat.agent.doctor.packets import Sent, Traffic, families_of
from svcnat.agent.doctor.paper import Ends, follow
from svcnat.kernel.foreign import Chain, Foreign
from svcnat.ruleset.nouns import TABLE

# What nft takes for a name without quotes; its own words among them are refused by nft, which does no harm.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_/\\.-]*")
_TOOLS = {"ip": "iptables", "ip6": "ip6tables"}
_TABLES_OF_IPTABLES = ("filter", "mangle", "raw", "nat", "security")
_HOOKS_OF_IPTABLES = ("FORWARD", "INPUT", "OUTPUT", "PREROUTING", "POSTROUTING")
_MOST_WORK = 50_000  # rules that the packets of one chain meet
_TRANSLATION, _TRACKING = -100, -200  # NF_IP_PRI_NAT_DST, _CONNTRACK


def check(facts: Facts, place: Place) -> Iterator[Finding]:
    """The findings about chains at hooks that packets of services pass."""
    foreign, legacy = place.foreign, place.legacy
    if isinstance(foreign, Unknown):
        yield not_known("other rules", "other programs' rules", foreign)
        foreign = Foreign()
    elif isinstance(legacy, Unknown):
        yield not_known("other rules", "the rules of iptables-legacy", legacy)
    chains = [
        chain
        for chain in (*foreign.chains, *(legacy if isinstance(legacy, tuple) else ()))
        if chain.table != TABLE
        and not (isinstance(facts.state.wanted, Wanted) and facts.state.wanted.lacks(chain.family))
    ]
    troubled = False
    for chain in chains:
        for finding in _judge(_Case(facts, place, foreign, chain)):
            troubled = True
            yield finding
    for finding in _proxies(chains, foreign):
        troubled = True
        yield finding
    if not troubled and isinstance(place.foreign, Foreign):
        yield Finding("ok", "other rules", f"none of {len(chains)} chains keeps packets of services from their way")


@dataclass(frozen=True, slots=True)
class _Case:
    """One chain, and what it takes to judge it."""

    facts: Facts
    place: Place
    foreign: Foreign
    chain: Chain

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.facts, self.place)

    @property
    def title(self) -> str:
        chain = self.chain
        return f"{'iptables-legacy' if chain.legacy else 'chain'} {chain.family} {chain.table} {chain.name}"

    @property
    def subject(self) -> str:
        return _program(self.chain, self.foreign) or "other rules"


def _few(case: _Case, sent: list[Sent]) -> list[Sent]:
    """The packets, or every so many of them where each meets so many rules that all would take seconds."""
    rules = sum(map(len, (case.chain.rules or (), *case.chain.called.values())))
    return sent[:: 1 + len(sent) * rules // _MOST_WORK]


def _judge(case: _Case) -> Iterator[Finding]:
    if case.chain.kind == "nat":
        yield from _translates(case)
        return
    families, traffic, hook = families_of(case.chain.family), case.traffic, case.chain.hook
    match hook:
        case "forward" | "postrouting":
            sent = [each for family in families for each in traffic.forwarded(family)]
            answers = [each for family in families for each in traffic.forwarded(family, answers=True)]
            yield from _drops(case, sent, answers, "endpoints")
        case "input":
            yield from _drops(
                case, [each for family in families for each in traffic.taken(family)], [], "endpoints on this host"
            )
        case "output":
            own = [each for family in families for each in traffic.sent(family)]
            for finding in _drops(case, own, [], "endpoints by this host itself"):
                yield Finding("warning", finding.subject, finding.message, finding.fix)
            if case.chain.priority <= _TRACKING:
                asked = [each for family in families for each in traffic.asked(family, case.chain.priority, own=True)]
                yield from _untracks(case, asked)
        case "prerouting" if case.chain.priority <= _TRANSLATION:
            asked = [each for family in families for each in traffic.asked(family, case.chain.priority)]
            answered = [each for family in families for each in traffic.answered(family)]
            yield from _drops(case, asked, [], "services")
            if case.chain.priority <= _TRACKING:
                yield from _untracks(case, [*asked, *answered])


def _drops(case: _Case, sent: list[Sent], answers: list[Sent], whom: str) -> Iterator[Finding]:
    """A chain that drops what it should let pass, or its answers; sure if no unknown of a packet could change that."""
    ends = [(each, follow(case.chain, each.packet)) for each in _few(case, sent)]
    lost = [each for each, end in ends if end.drop and not end.accept]
    unsure = [each for each, end in ends if end.drop and end.accept]
    passed = [each for each, end in ends if not end.drop]
    if lost or unsure:
        exceptions = _but(lost, passed) if lost else ", unless one of its rules lets it pass"
        yield Finding(
            "warning" if passed or unsure else "error",
            case.subject,
            f"{case.title} drops what is sent to {whom}{exceptions}",
            _allow(case),
        )
        return
    if any((end := follow(case.chain, each.packet)).drop and not end.accept for each in _few(case, answers)):
        yield Finding("error", case.subject, f"{case.title} drops the answers of {whom}", _allow(case))


def _but(lost: Iterable[Sent], passed: list[Sent]) -> str:
    """Which of the packets it is that are dropped, where others pass."""
    devices = dict.fromkeys(each.device for each in lost)
    if not passed:
        return ""
    if not devices.keys() & {each.device for each in passed}:
        return f" and comes in by {some([*devices])}"
    spots = dict.fromkeys(str(each.spot) for each in lost)
    return f" at {some([*spots])}"


def _untracks(case: _Case, packets: list[Sent]) -> Iterator[Finding]:
    """A rule that hides packets from connection tracking, without which nothing is translated."""
    chain = case.chain
    for each in _few(case, packets):
        untracks = follow(chain, each.packet).untracks
        if untracks is None:
            continue
        name, handle = untracks
        fix = "remove the rule with notrack there, or have it spare services and their endpoints"
        if chain.legacy:
            tool = f"{_TOOLS[chain.family]}-legacy"
            fix = f"{case.place.enter}{tool} -t {chain.table} -D {shlex.quote(name)} {handle}"
        elif all(map(_PLAIN.fullmatch, (chain.table, name))):
            fix = f"{case.place.enter}nft delete rule {chain.family} {chain.table} {name} handle {handle}"
        yield Finding(
            "error",
            case.subject,
            f"{case.title} keeps packets of {each.spot} from connection tracking: untracked, they are not translated",
            fix,
        )
        return


def _translates(case: _Case) -> Iterator[Finding]:
    """Another translation of what svcnat translates: which of the two comes first is an accident."""
    families, own = families_of(case.chain.family), case.chain.hook == "output"
    sent = [each for family in families for each in case.traffic.asked(family, _TRANSLATION, own=own)]
    ends: list[tuple[Sent, Ends]] = [(each, follow(case.chain, each.packet)) for each in _few(case, sent)]
    both = list(dict.fromkeys(str(each.spot) for each, end in ends if end.translate))
    if both:
        yield Finding(
            "warning",
            "kube-proxy" if _is_proxy(case.chain, case.foreign) else case.subject,
            f"{case.title} translates what is sent to {some(both)}, as svcnat does: whose rules come first has it",
            "give those services another address or node port (serviceCIDR and nodePortRange in the configuration say "
            "from where they come), or remove that rule",
        )


def _allow(case: _Case) -> str:
    """What lets translated packets, and their answers, pass in a chain that drops them."""
    place, chain, foreign = case.place, case.chain, case.foreign
    names, program = _names(chain, foreign), _program(chain, foreign)
    if chain.hook == "prerouting":
        return "let pass there what is sent to services and node ports, and what their endpoints answer"
    if chain.table == "docker-bridges":
        return (
            "no other table can allow it: make the endpoints' network so that all ports may be reached: docker network "
            "create -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected NAME"
        )
    if program == "firewalld":
        return (
            "set StrictForwardPorts=no in /etc/firewalld/firewalld.conf and run `firewall-cmd --reload`; or put the "
            "endpoints' device into the zone trusted: firewall-cmd --permanent --zone=trusted --add-interface=DEVICE"
            if chain.hook == "forward"
            else "open the endpoints' ports: firewall-cmd --permanent --add-port=PORT/tcp, and firewall-cmd --reload"
        )
    if program == "ufw":
        six = "6" if chain.family == "ip6" else ""
        before = f"ufw{six}-before-{chain.hook}"
        rule = f"-A {before} -m conntrack --ctstate DNAT -j ACCEPT"
        return f"{place.enter}sed -i '/^:{before} /a {rule}' /etc/ufw/before{six}.rules && {place.enter}ufw reload"
    if program == "libvirt" and chain.table == "libvirt_network" and "guest_input" in names:
        return f"{place.enter}nft insert rule {chain.family} libvirt_network guest_input ct status dnat accept"
    if chain.legacy or (
        chain.family in _TOOLS and chain.table in _TABLES_OF_IPTABLES and chain.name in _HOOKS_OF_IPTABLES
    ):
        first = "DOCKER-USER" if chain.hook == "forward" and "DOCKER-USER" in names else chain.name
        tool = _TOOLS[chain.family] + ("-legacy" if chain.legacy else "-nft")  # either may be called iptables
        table = "" if chain.table == "filter" else f"-t {chain.table} "
        return f"{place.enter}{tool} {table}-I {first} -m conntrack --ctstate DNAT -j ACCEPT"
    if _PLAIN.fullmatch(chain.table) and _PLAIN.fullmatch(chain.name):
        return f"{place.enter}nft insert rule {chain.family} {shlex.quote(chain.table)} {shlex.quote(chain.name)} " \
            "ct status dnat accept"  # fmt: skip
    return "put the rule `ct status dnat accept` at the top of that chain"


def _program(chain: Chain, foreign: Foreign) -> str:
    """Whose chain it is, by the names that only that program gives; "" if none is known."""
    names = _names(chain, foreign)
    if chain.table in ("firewalld", "libvirt_network"):
        return chain.table.partition("_")[0]
    if chain.table == "docker-bridges":
        return "Docker"
    if chain.table not in ("filter", "nat"):
        return ""
    if any(name.startswith(("ufw-", "ufw6-")) for name in names):
        return "ufw"
    if "DOCKER-USER" in names or "DOCKER" in names:
        return "Docker"
    return "libvirt" if "LIBVIRT_FWI" in names else ""


def _names(chain: Chain, foreign: Foreign) -> set[str]:
    """The chains beside a chain: of iptables-legacy, those that it calls."""
    if chain.legacy:
        return set(chain.called)
    return {name for family, table, name in foreign.names if (family, table) == (chain.family, chain.table)}


def _is_proxy(chain: Chain, foreign: Foreign) -> bool:
    return chain.table == "kube-proxy" or "KUBE-SERVICES" in _names(chain, foreign)


def _proxies(chains: list[Chain], foreign: Foreign) -> Iterator[Finding]:
    """A kube-proxy with more rules than can be looked through: whether it has the same services is not known."""
    if any(_is_proxy(each, foreign) and not each.whole for each in chains if each.kind == "nat"):
        yield Finding(
            "warning",
            "kube-proxy",
            "its rules are here, too many to compare: both answer for an address or a node port that both have",
            "set serviceCIDR and nodePortRange in svcnat's configuration to ranges that the cluster does not use",
        )
