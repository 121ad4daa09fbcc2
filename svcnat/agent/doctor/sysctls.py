"""Findings about the settings below /proc/sys of one network namespace."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from svcnat.agent.doctor.facts import Facts, Place, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, Severity, not_known, some

FORWARD4, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
NO_IPV6 = "net/ipv6/conf/all/disable_ipv6"
FLOWS, MOST_FLOWS = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"
LIBERAL, LOOSE = "net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_conntrack_tcp_loose"
KEYS = (FORWARD4, FORWARD6, NO_IPV6, FLOWS, MOST_FLOWS, LIBERAL, LOOSE, "net/ipv4/conf/all/rp_filter")
DEVICE_KEYS = ("net/ipv4/conf/{}/forwarding", "net/ipv4/conf/{}/rp_filter")

_FEW_FLOWS = 32768


def check(facts: Facts, place: Place) -> Iterator[Finding]:
    """The findings about settings."""
    if isinstance(place.settings, Unknown):
        yield not_known("sysctl", "the settings below /proc/sys", place.settings)
        return
    wanted = facts.state.wanted if isinstance(facts.state.wanted, Wanted) and facts.state.wanted.services else None
    yield from _forwarding(place, place.settings, wanted)
    yield from _reverse_path(place, place.settings)
    yield from _flows(place.settings)
    yield from _tcp(place, place.settings, wanted)


def setting(place: Place, key: str, value: int) -> str:
    """The command that gives a setting its value; slashes, since names of devices may hold dots."""
    return f"{place.enter}sysctl -w {shlex.quote(f'{key}={value}')}"


def devices_of(settings: Mapping[str, str], pattern: str) -> dict[str, str]:
    """The values of a setting that every device has, by device."""
    before, after = pattern.split("{}")
    return {
        key.removeprefix(before).removesuffix(after): value
        for key, value in settings.items()
        if key.startswith(before) and key.endswith(after) and key != pattern.format("all")
    }


def _forwarding(place: Place, settings: Mapping[str, str], wanted: Wanted | None) -> Iterator[Finding]:
    needed = {"IPv4": wanted is None or wanted.has("ip"), "IPv6": wanted is not None and wanted.has("ip6")}
    sure: Severity = "error" if wanted else "warning"
    if settings.get(NO_IPV6) == "1" and needed["IPv6"]:
        yield Finding(
            "error", "IPv6", "it is switched off here, and services have IPv6 addresses", setting(place, NO_IPV6, 0)
        )
    for family, key in (("IPv4", FORWARD4), ("IPv6", FORWARD6)):
        if key not in settings:
            continue
        if settings[key] != "0":
            yield Finding("ok", "forwarding", f"{family} is forwarded")
        elif family == "IPv4" and (some_do := _forwarding_devices(settings, "1")):
            yield Finding("ok", "forwarding", f"IPv4 is forwarded from {some(some_do)}, and from nowhere else")
        elif needed[family]:
            yield Finding(
                sure,
                "forwarding",
                f"{family} is not forwarded: only this host itself reaches endpoints that are elsewhere",
                setting(place, key, 1),
            )
        else:
            yield Finding("ok", "forwarding", f"{family} is not forwarded, and no service needs it")
    if settings.get(FORWARD4, "0") != "0" and (not_here := _forwarding_devices(settings, "0")):
        yield Finding(
            "warning",
            "forwarding",
            f"IPv4 is forwarded, but not what comes in by {some(not_here)}",
            setting(place, DEVICE_KEYS[0].format(not_here[0]), 1),
        )


def _forwarding_devices(settings: Mapping[str, str], value: str) -> list[str]:
    found = devices_of(settings, DEVICE_KEYS[0])
    return [name for name, each in found.items() if each == value and name not in ("lo", "default")]


def _reverse_path(place: Place, settings: Mapping[str, str]) -> Iterator[Finding]:
    everywhere = settings.get("net/ipv4/conf/all/rp_filter", "0")
    # The greater of the two counts (Documentation/networking/ip-sysctl.rst).
    strict = [
        name
        for name, value in devices_of(settings, DEVICE_KEYS[1]).items()
        if name not in ("lo", "default") and max(everywhere, value) == "1"
    ]
    routes = place.routes if isinstance(place.routes, tuple) else ()
    ways = {route.device for route in routes if route.family == "ip" and route.destination == "0.0.0.0/0"}
    if strict and len(ways) > 1:
        yield Finding(
            "warning",
            "rp_filter",
            f"packets must come in by {some(strict)} only from where answers would go, and there are several default "
            f"routes ({some(sorted(ways))}): clients that come another way are dropped without a word",
            setting(place, "net/ipv4/conf/all/rp_filter", 2),
        )
    else:
        yield Finding("ok", "rp_filter", f"strict on {some(strict)}, with one way out" if strict else "not strict")


def _flows(settings: Mapping[str, str]) -> Iterator[Finding]:
    if FLOWS not in settings or MOST_FLOWS not in settings:
        yield Finding("ok", "conntrack", "connections are not tracked here yet")
        return
    count, most = int(settings[FLOWS]), int(settings[MOST_FLOWS])
    full = f"{count} of at most {most} connections are tracked"
    more = f"sysctl -w {MOST_FLOWS}={max(2 * most, 4 * _FEW_FLOWS)}"  # the machine's: no namespace has its own
    if most and count * 10 >= most * 9:
        yield Finding("error", "conntrack", f"{full}: when the table is full, new connections are dropped", more)
    elif most and count * 10 >= most * 7:
        yield Finding("warning", "conntrack", f"{full}: when the table is full, new connections are dropped", more)
    elif 0 < most < _FEW_FLOWS:
        yield Finding("warning", "conntrack", f"{full}: that is few for a host that others connect through", more)
    else:
        yield Finding("ok", "conntrack", full)


def _tcp(place: Place, settings: Mapping[str, str], wanted: Wanted | None) -> Iterator[Finding]:
    if settings.get(LIBERAL) == "0":
        yield Finding(
            "warning",
            "tcp_be_liberal",
            "packets that connection tracking takes for out of window are not translated: the client gets them from "
            "the endpoint's own address and resets the connection (seen under load, with lost and late packets)",
            setting(place, LIBERAL, 1),
        )
    elif LIBERAL in settings:
        yield Finding("ok", "tcp_be_liberal", "packets out of window are translated too")
    if settings.get(LOOSE) == "0" and wanted and wanted.ending:
        yield Finding(
            "warning",
            "tcp_loose",
            f"connections of {some(wanted.ending)} are to end when their endpoint goes "
            "(svcnat.io/on-endpoint-removal: terminate); with tcp_loose 0 their clients get no reset, and hang",
            setting(place, LOOSE, 1),
        )
    elif LOOSE in settings:
        yield Finding("ok", "tcp_loose", settings[LOOSE])
