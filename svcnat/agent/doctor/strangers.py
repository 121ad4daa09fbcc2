"""Findings about other programs' rules: those that drop what svcnat translated, and those that translate, too.

svcnat touches no other program's table, so it can only say what to allow there. An accept in one table does not
outweigh a drop in another: each chain at the hook has its say (nft(8)).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from svcnat.agent.doctor.facts import Facts, Place, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, not_known
from svcnat.kernel.foreign import Chain, Foreign, Rule, Verdict
from svcnat.ruleset.nouns import TABLE

_DEPTH = 16  # the kernel's own limit of chains that call chains (NFT_JUMP_STACK_SIZE)
# What nft takes for a name without quotes; its own words among them are refused by nft, which does no harm.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_/\\.-]*")
_TOOLS = {"ip": "iptables", "ip6": "ip6tables"}
# Programs that drop what is sent to their own guests, and accept what else there is.
_REFUSALS = {
    "Docker": "what is sent to ports of containers that are not published",
    "libvirt": "what is sent to virtual machines behind a network of mode nat",
}


def check(facts: Facts, place: Place) -> Iterator[Finding]:
    """The findings about chains at forward, and at input if endpoints are this host's own."""
    foreign, legacy = place.foreign, place.legacy
    if isinstance(foreign, Unknown):
        yield not_known("other rules", "other programs' rules", foreign)
        foreign = Foreign()
    elif isinstance(legacy, Unknown):
        yield not_known("other rules", "the rules of iptables-legacy", legacy)
    chains = (*foreign.chains, *(legacy if isinstance(legacy, tuple) else ()))
    hooks = {"forward", "input"} if _own_endpoints(facts, place) else {"forward"}
    troubled = False
    wanted = facts.state.wanted
    for chain in chains:
        spared = isinstance(wanted, Wanted) and wanted.lacks(chain.family)
        if chain.hook in hooks and chain.table != TABLE and not spared:
            for finding in _judge(place, chain, foreign):
                troubled = True
                yield finding
    for finding in _others(foreign):
        troubled = True
        yield finding
    if not troubled and isinstance(place.foreign, Foreign):
        yield Finding("ok", "other rules", f"none of {len(chains)} filter chains drops what svcnat sends on")


def _own_endpoints(facts: Facts, place: Place) -> bool:
    wanted = facts.state.wanted
    if not isinstance(wanted, Wanted) or not isinstance(place.addresses, tuple):
        return False
    return any(each.address in wanted.endpoints for each in place.addresses)


def fate(chain: Chain) -> tuple[Verdict, bool, bool]:
    """What a chain does with a translated packet that no rule for some packets only decides about.

    Returns:
        accept or drop; whether a rule said so, and not the policy; whether a rule for some packets may have accepted it
        before.

    """
    verdict, exceptions = _walk(chain.rules, chain.called, 0)
    if verdict in ("accept", "drop"):
        return verdict, True, exceptions
    return chain.policy, False, exceptions


def _walk(rules: tuple[Rule, ...], called: Mapping[str, tuple[Rule, ...]], depth: int) -> tuple[Verdict, bool]:
    exceptions = False
    for rule in rules:
        if rule.matches == "some":
            exceptions |= rule.verdict in ("accept", "jump", "goto")
        elif rule.verdict in ("jump", "goto") and depth < _DEPTH:
            verdict, more = _walk(called.get(rule.target, ()), called, depth + 1)
            exceptions |= more
            if verdict != "continue" or rule.verdict == "goto":
                return verdict, exceptions
        elif rule.verdict in ("accept", "drop"):
            return rule.verdict, exceptions
        elif rule.verdict == "return":
            return "continue", exceptions
    return "continue", exceptions


def _judge(place: Place, chain: Chain, foreign: Foreign) -> Iterator[Finding]:
    verdict, by_rule, exceptions = fate(chain)
    program = _program(chain, foreign)
    subject = program or "other rules"
    what = f"{'iptables-legacy' if chain.legacy else 'chain'} {chain.family} {chain.table} {chain.name}"
    ends = "endpoints on this host" if chain.hook == "input" else "endpoints"
    if verdict == "drop":
        yield Finding(
            "warning" if exceptions else "error",
            subject,
            f"{what} drops what is sent to {ends}" + (", unless one of its rules lets it pass" if exceptions else ""),
            _allow(place, chain, foreign),
        )
    elif program in _REFUSALS and not by_rule and chain.hook == "forward":
        yield Finding(
            "warning", subject, f"{what} calls chains that drop {_REFUSALS[program]}", _allow(place, chain, foreign)
        )


def _allow(place: Place, chain: Chain, foreign: Foreign) -> str:
    """What lets translated packets, and their answers, pass in a chain that drops them."""
    names = _names(chain, foreign)
    program = _program(chain, foreign)
    if program == "firewalld":
        return (
            "set StrictForwardPorts=no in /etc/firewalld/firewalld.conf and run `firewall-cmd --reload`; or put the "
            "endpoints' device into the zone trusted: firewall-cmd --permanent --zone=trusted --add-interface=DEVICE"
            if chain.hook == "forward"
            else "open the endpoints' ports: firewall-cmd --permanent --add-port=PORT/tcp, and firewall-cmd --reload"
        )
    if program == "ufw":
        before = f"ufw{'6' if chain.family == 'ip6' else ''}-before-{chain.hook}"
        rules = f"/etc/ufw/before{'6' if chain.family == 'ip6' else ''}.rules"
        return f"add `-A {before} -m conntrack --ctstate DNAT -j ACCEPT` to {rules} before COMMIT, and run `ufw reload`"
    if program == "libvirt" and chain.table == "libvirt_network" and "guest_input" in names:
        return f"{place.enter}nft insert rule {chain.family} libvirt_network guest_input ct status dnat accept"
    if chain.legacy or (chain.table == "filter" and chain.name in ("FORWARD", "INPUT") and chain.family in _TOOLS):
        first = "DOCKER-USER" if chain.hook == "forward" and "DOCKER-USER" in names else chain.name
        tool = _TOOLS[chain.family] + ("-legacy" if chain.legacy else "-nft")  # either may be called iptables
        return f"{place.enter}{tool} -I {first} -m conntrack --ctstate DNAT -j ACCEPT"
    if _PLAIN.fullmatch(chain.table) and _PLAIN.fullmatch(chain.name):
        return f"{place.enter}nft insert rule {chain.family} {shlex.quote(chain.table)} {shlex.quote(chain.name)} " \
            "ct status dnat accept"  # fmt: skip
    return "put the rule `ct status dnat accept` at the top of that chain"


def _program(chain: Chain, foreign: Foreign) -> str:
    """Whose chain it is, by the names that only that program gives; "" if none is known."""
    names = _names(chain, foreign)
    if chain.table in ("firewalld", "libvirt_network"):
        return chain.table.partition("_")[0]
    if chain.table != "filter":
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


def _others(foreign: Foreign) -> Iterator[Finding]:
    if any(name == "docker-bridges" for _, name in foreign.tables):
        yield Finding(
            "warning",
            "Docker",
            "table docker-bridges drops what is sent to ports of containers that are not published; no other table can "
            "allow it",
            "make the endpoints' network so that all ports may be reached: docker network create "
            "-o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected NAME",
        )
    proxies = {"kube-proxy"} & {name for _, name in foreign.tables}
    if proxies or any(name == "KUBE-SERVICES" for _, _, name in foreign.names):
        yield Finding(
            "warning",
            "kube-proxy",
            "its rules are here, too: both answer for an address or a node port that both have",
            "set serviceCIDR and nodePortRange in svcnat's configuration to ranges that the cluster does not use",
        )
