"""Findings about addresses, routes, bridges and ranges of one network namespace, and about whose rules are there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from svcnat.agent.doctor.facts import Facts, Place, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, not_known, some
from svcnat.agent.doctor.packets import Traffic, tried
from svcnat.model.addresses import Network, parse_network
from svcnat.ruleset.plan import FAMILIES

_NAMES = {4: "IPv4", 6: "IPv6"}


def check(facts: Facts, place: Place) -> Iterator[Finding]:
    """The findings about what the network looks like."""
    yield from _ranges(facts, place)
    yield from _reach(facts, place)
    yield from _bridges(facts, place)
    yield from _bridge_ports(facts, place)
    yield from _rules(facts, place)


def _ranges(facts: Facts, place: Place) -> Iterator[Finding]:
    """Service ranges that are somebody's real network."""
    config, wanted = facts.config, facts.state.wanted
    used = [ip_address(each) for each in wanted.addresses] if isinstance(wanted, Wanted) else []
    other = "set serviceCIDR in the configuration to a range that nobody uses, and make the services anew"
    clear = True
    for mine in config.service_networks:
        for pods in config.cluster_networks:
            if mine.version == pods.version and mine.overlaps(pods):
                clear = False
                yield Finding("error", "serviceCIDR", f"{mine} overlaps {pods} of clusterCIDR", other)
        if isinstance(place.addresses, tuple):
            for each in place.addresses:
                if ip_address(each.address) in mine:
                    clear = False
                    own = f"{each.address} of {each.device} is this host's, and lies in {mine}"
                    yield Finding("error", "serviceCIDR", own, other)
        for route, network in _overlapping(place, mine):
            clear = False
            taken = [str(each) for each in used if each in network and each in mine]
            yield Finding(
                "error" if taken and network.prefixlen > mine.prefixlen else "warning",
                "serviceCIDR",
                f"{mine} overlaps the route to {network} by {route}: hosts there cannot be reached at addresses that "
                "services have" + (f", now {some(taken)}" if taken else ""),
                other,
            )
    if isinstance(place.routes, Unknown):
        yield not_known("serviceCIDR", "routes", place.routes)
    elif clear:
        ranges = ", ".join(map(str, config.service_networks))
        yield Finding("ok", "serviceCIDR", f"{ranges}: no route of this host overlaps")


def _overlapping(place: Place, mine: Network) -> Iterator[tuple[str, Network]]:
    """The routes that lead elsewhere; one to exactly the range is what a host without a default route needs."""
    for route in place.routes if isinstance(place.routes, tuple) else ():
        network = parse_network(route.destination)
        if network is None or network.version != mine.version or not route.usable or network == mine:
            continue
        if network.prefixlen > 0 and mine.overlaps(ip_network(network)):
            yield route.device or "nothing", network


def _reach(facts: Facts, place: Place) -> Iterator[Finding]:
    if isinstance(place.unreachable, Unknown):
        yield not_known("routes", "the ways to services", place.unreachable)
        return
    wanted = facts.state.wanted
    known = isinstance(wanted, Wanted) and bool(wanted.addresses)
    for version, name in _NAMES.items():
        lost = [each for each in place.unreachable if ip_address(each).version == version]
        if lost:
            covering = _covering(facts, lost)
            yield Finding(
                "error" if known else "warning",
                "routes",
                f"this host has no way to {some(lost)} ({place.unreachable[lost[0]]}): its own connections to "
                f"{name} services fail; any route will do, since the rules change the destination",
                _route(place, version, covering),
            )
    if not place.unreachable:
        yield Finding("ok", "routes", "this host has a way to every service")


def _covering(facts: Facts, lost: list[str]) -> str:
    """The service range that an address without a route is in, or the address itself."""
    address = ip_address(lost[0])
    return next((str(each) for each in facts.config.service_networks if address in each), lost[0])


def _route(place: Place, version: int, destination: str) -> str:
    addresses = place.addresses if isinstance(place.addresses, tuple) else ()
    own = [each for each in addresses if ip_address(each.address).version == version and each.scope == "global"]
    device = next((each.device for each in own if each.device != "lo"), "")
    if not device:
        return f"give this host an {_NAMES[version]} address, and a route to {destination}"
    return f"{place.enter}ip -{version} route add {destination} dev {shlex.quote(device)}"


def _bridges(facts: Facts, place: Place) -> Iterator[Finding]:
    if isinstance(place.unseen, Unknown):
        yield not_known("bridges", "bridges", place.unseen)
        return
    unseen = list(dict.fromkeys(name for names in place.unseen.values() for name in names))
    if not unseen:
        yield Finding("ok", "bridges", "netfilter sees what every bridge forwards")
    elif facts.config.bridge_masquerade == "off":
        yield Finding(
            "warning",
            "bridges",
            f"netfilter does not see what {some(unseen)} forwards, and bridgeMasquerade is off: where client and "
            "endpoint are on one bridge, answers pass by the rules, and connections hang",
            "remove bridgeMasquerade: off from the configuration, or load br_netfilter and run "
            f"{place.enter}sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
        )
    else:
        yield Finding(
            "ok", "bridges", f"netfilter does not see what {some(unseen)} forwards: clients there are masqueraded"
        )


def _bridge_ports(facts: Facts, place: Place) -> Iterator[Finding]:
    """What a bridge keeps from its own ports where netfilter sees it, and so translates what it forwards."""
    wanted = facts.state.wanted
    if not isinstance(wanted, Wanted) or not isinstance(place.ports, tuple) or isinstance(place.unseen, Unknown):
        return
    ways = Traffic(facts, place)
    seen = {
        way
        for family in FAMILIES
        for spot in tried(wanted, family)
        if (way := ways.way(spot)[0]) and way not in place.unseen.get(family, ())
    }
    deaf = [each for each in place.ports if each.bridge in seen and not each.hairpin]
    if deaf:
        bridges = some(sorted({each.bridge for each in deaf}))
        names = " ".join(shlex.quote(each.name) for each in deaf)
        yield Finding(
            "warning",
            "bridges",
            f"netfilter sees what {bridges} forwards, and nothing goes back by the port that it came from "
            f"({some([each.name for each in deaf])}): an endpoint there does not reach itself by its service",
            f'for port in {names}; do {place.enter}bridge link set dev "$port" hairpin on; done',
        )
    apart = [each for each in place.ports if each.bridge in seen and each.isolated]
    if apart:
        bridges = some(sorted({each.bridge for each in apart}))
        yield Finding(
            "warning",
            "bridges",
            f"netfilter sees what {bridges} forwards, and who is behind an isolated port "
            f"({some([each.name for each in apart])}) reaches no endpoint behind another",
            "bridge link set dev PORT isolated off; or, for ways by the host, net.bridge.bridge-nf-call-iptables=0",
        )


def _rules(facts: Facts, place: Place) -> Iterator[Finding]:
    state, wanted = facts.state, facts.state.wanted
    if isinstance(place.families, Unknown):
        yield not_known("rules", "svcnat's rules", place.families)
        return
    kept, _, identity = place.origin.partition("state ")
    if identity and not kept and state.identity and identity != state.identity:
        yield Finding(
            "error",
            "rules",
            f"those that are here follow another state file than {state.path}",
            f"name that file with --state; or give its rules up: {place.enter}svcnat cleanup",
        )
    elif isinstance(wanted, Wanted) and wanted.services and not place.families:
        yield Finding(
            "warning",
            "rules",
            f"{state.path} has services, and no rules are here",
            facts.begin + ("" if place.node else " --once"),
        )
    else:
        yield Finding("ok", "rules", f"svcnat's, {' and '.join(place.families)}" if place.families else "none yet")
