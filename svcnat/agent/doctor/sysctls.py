"""Findings about the settings below /proc/sys of one network namespace."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TypeVar

from svcnat.agent.doctor.facts import Facts, Place, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, Severity, not_known, some

FORWARD4, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
NO_IPV6 = "net/ipv6/conf/all/disable_ipv6"
FLOWS, MOST_FLOWS = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"
LIBERAL, LOOSE = "net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_conntrack_tcp_loose"
BUCKETS = "net/netfilter/nf_conntrack_buckets"
GIVEN_PORTS, SPARED_PORTS = "net/ipv4/ip_local_port_range", "net/ipv4/ip_local_reserved_ports"
KEYS = (
    *(FORWARD4, FORWARD6, NO_IPV6, FLOWS, MOST_FLOWS, BUCKETS, LIBERAL, LOOSE, GIVEN_PORTS, SPARED_PORTS),
    "net/ipv4/conf/all/rp_filter",
)
DEVICE_KEYS = (
    "net/ipv4/conf/{}/forwarding",
    "net/ipv4/conf/{}/rp_filter",
    "net/ipv6/conf/{}/accept_ra",
    "net/ipv6/conf/{}/force_forwarding",
)

_FEW_FLOWS = 32768
_LONG_CHAIN = 8  # connections in a bucket; the kernel's own choice is 1 to 4


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


def setting(place: Place, keys: str | list[str], value: int | str) -> str:
    """The command that gives settings a value; slashes, since names of devices may hold dots."""
    named = [keys] if isinstance(keys, str) else keys
    return f"{place.enter}sysctl -w " + " ".join(shlex.quote(f"{key}={value}") for key in named)


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
        elif some_do := _forwarding_devices(settings, "1", family):
            yield Finding("ok", "forwarding", f"{family} is forwarded from {some(some_do)}, and from nowhere else")
        elif needed[family]:
            yield Finding(
                sure,
                "forwarding",
                f"{family} is not forwarded: only this host itself reaches endpoints that are elsewhere",
                setting(place, key, 1) if family == "IPv4" else _forward6(place, settings),
            )
        else:
            yield Finding("ok", "forwarding", f"{family} is not forwarded, and no service needs it")
    used = {each.device for each in _seen(place.addresses) if each.family == "ip"}
    used |= {each.device for each in _seen(place.routes) if each.family == "ip"}
    not_here = [each for each in _forwarding_devices(settings, "0") if each in used]
    if settings.get(FORWARD4, "0") != "0" and not_here:
        yield Finding(
            "warning",
            "forwarding",
            f"IPv4 is forwarded, but not what comes in by {some(not_here)}",
            setting(place, [DEVICE_KEYS[0].format(each) for each in not_here], 1),
        )
    if needed["IPv6"] and settings.get(FORWARD6, "0") != "0" and (deaf := _deaf(place, settings)):
        yield Finding(
            "warning",
            "forwarding",
            f"IPv6 has no default route: a host that forwards hears no router on {some(deaf)} with accept_ra 1",
            setting(place, [DEVICE_KEYS[2].format(each) for each in deaf], 2),
        )


T = TypeVar("T")


def _seen(what: tuple[T, ...] | Unknown) -> tuple[T, ...]:
    return what if isinstance(what, tuple) else ()


def _forwarding_devices(settings: Mapping[str, str], value: str, family: str = "IPv4") -> list[str]:
    """The devices where forwarding has that value: of IPv6, where it is forced (Linux 6.17 and later)."""
    found = devices_of(settings, DEVICE_KEYS[0] if family == "IPv4" else DEVICE_KEYS[3])
    return [name for name, each in found.items() if each == value and name not in ("lo", "default")]


def _forward6(place: Place, settings: Mapping[str, str]) -> str:
    """Forward IPv6, and go on hearing routers: their default routes go at once where accept_ra is 1."""
    ways = {each.device for each in _seen(place.routes) if each.destination == "::/0" and each.usable}
    heard = [name for name, value in devices_of(settings, DEVICE_KEYS[2]).items() if value == "1" and name in ways]
    first = "".join(f"{shlex.quote(f'{DEVICE_KEYS[2].format(each)}=2')} " for each in heard)
    return f"{place.enter}sysctl -w {first}{FORWARD6}=1"


def _deaf(place: Place, settings: Mapping[str, str]) -> list[str]:
    """Devices with an address that a router's advertisement gave, where such are not heard any more."""
    if any(each.destination == "::/0" and each.usable for each in _seen(place.routes)):
        return []
    given = {
        each.device
        for each in _seen(place.addresses)
        if each.family == "ip6" and each.scope == "global" and "permanent" not in each.flags
    }
    return [name for name, value in devices_of(settings, DEVICE_KEYS[2]).items() if value == "1" and name in given]


def _reverse_path(place: Place, settings: Mapping[str, str]) -> Iterator[Finding]:
    everywhere = settings.get("net/ipv4/conf/all/rp_filter", "0")
    # The greater of the two counts (Documentation/networking/ip-sysctl.rst).
    strict = [
        name
        for name, value in devices_of(settings, DEVICE_KEYS[1]).items()
        if name not in ("lo", "default") and max(everywhere, value) == "1"
    ]
    routes = place.routes if isinstance(place.routes, tuple) else ()
    ways = {route.device for route in routes if route.destination == "0.0.0.0/0" and route.usable}
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
    larger = max(2 * most, 4 * _FEW_FLOWS)
    more = f"sysctl -w {MOST_FLOWS}={larger}"  # the machine's: no namespace has its own
    buckets = int(settings.get(BUCKETS, "0"))
    if 0 < buckets * _LONG_CHAIN < larger:
        more += f" {BUCKETS}={larger // 4}"
    if most and count * 10 >= most * 9:
        yield Finding("error", "conntrack", f"{full}: when the table is full, new connections are dropped", more)
    elif most and count * 10 >= most * 7:
        yield Finding("warning", "conntrack", f"{full}: when the table is full, new connections are dropped", more)
    elif 0 < most < _FEW_FLOWS:
        yield Finding("warning", "conntrack", f"{full}: that is few for a host that others connect through", more)
    elif 0 < buckets * _LONG_CHAIN < most:
        yield Finding(
            "warning",
            "conntrack",
            f"up to {most} connections share {buckets} buckets: where there are many, packets look through long lists",
            f"sysctl -w {BUCKETS}={most // 4}",
        )
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
