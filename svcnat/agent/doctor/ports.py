"""Findings about node ports that programs of the host have, too: the rules translate before any program is asked."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from svcnat.agent.doctor.facts import Facts, Place, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, some
from svcnat.agent.doctor.sysctls import GIVEN_PORTS, SPARED_PORTS, setting


def check(facts: Facts, place: Place) -> Iterator[Finding]:
    """The findings about ports that programs of this host have, or may be given."""
    settings = place.settings if not isinstance(place.settings, Unknown) else {}
    wanted = facts.state.wanted
    spots = {each for each in wanted.frontends if not each.address} if isinstance(wanted, Wanted) else set()
    held = place.listeners if isinstance(place.listeners, frozenset) else frozenset()
    taken = {
        f"{spot.port}/{spot.protocol}"
        for spot in spots
        for each in held
        if (each.protocol, each.port) == (spot.protocol, spot.port)
        and not ip_address(each.address).is_loopback
        and (each.address == "::" or (":" in each.address) == (spot.family == "ip6"))
    }
    if taken:
        yield Finding(
            "warning",
            "node ports",
            f"a program of this host listens on {some(sorted(taken))}, too: others who connect get the service, "
            "and not that program",
            "`ss -lntup` names the program: give it another port, or the service another nodePort",
        )
    given = settings.get(GIVEN_PORTS, "").split()
    mine = facts.config.node_ports
    if not spots or len(given) != 2 or not mine:
        return
    first, last = max(int(given[0]), mine.start), min(int(given[1]), mine.stop - 1)
    spared = settings.get(SPARED_PORTS, "")
    if first <= last and not _covered(first, last, spared):
        ports = ",".join(filter(None, (spared, f"{first}-{last}")))
        yield Finding(
            "warning",
            "node ports",
            f"programs of this host may be given the ports {first} to {last}, which node ports are taken from: one "
            "that listens on such a port is not reached once a service has it",
            setting(place, SPARED_PORTS, ports),
        )


def _covered(first: int, last: int, spared: str) -> bool:
    """Tell whether all ports from one to another are in a list such as 80,30000-32767."""
    for part in sorted(filter(None, spared.split(",")), key=lambda each: int(each.partition("-")[0])):
        low, _, high = part.partition("-")
        if int(low) <= first:
            first = max(first, int(high or low) + 1)
    return first > last
