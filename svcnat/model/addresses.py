"""IP addresses and ranges as text, in the one spelling that the rest of svcnat compares and stores.

It resolves no names and asks no host which addresses exist.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Family = Literal[4, 6]
FamilyName = Literal["IPv4", "IPv6"]
Network = IPv4Network | IPv6Network

# A leading zero means octal to some programs and decimal to others: Kubernetes and this pattern refuse it.
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


def canonical(text: str) -> str | None:
    """Return the canonical text of an IP address (IPv6 as RFC 5952), or None when `text` is none.

    Leading zeros, zones (``fe80::1%eth0``) and IPv4 addresses mapped into IPv6 are refused: programs disagree on
    their meaning.
    """
    if ":" not in text:
        return text if _IPV4.fullmatch(text) else None
    if "%" in text:
        return None
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    return None if address.ipv4_mapped else str(address)


def family(address: str) -> Family:
    """Return 4 or 6, for the text of an address or of a range that is known to be one."""
    return 6 if ":" in address else 4


def family_name(address: str) -> FamilyName:
    """Return the family as Kubernetes spells it."""
    return "IPv6" if ":" in address else "IPv4"


def canonical_network(text: str) -> str | None:
    """Return the canonical text of a CIDR, host bits cleared, or None when `text` is none."""
    network = parse_network(text)
    return None if network is None else str(network)


def parse_network(text: str) -> Network | None:
    """Return the range that a CIDR names, host bits cleared, or None when `text` is none.

    The prefix length is required, and a plain decimal number: a netmask is no CIDR to Kubernetes.
    """
    base, slash, length = text.partition("/")
    address = canonical(base)
    if address is None or not slash or not re.fullmatch(r"0|[1-9][0-9]{0,2}", length):
        return None
    bits = int(length)
    if family(address) == 4:
        return IPv4Network((int(IPv4Address(address)), bits), strict=False) if bits <= 32 else None
    return IPv6Network((int(IPv6Address(address)), bits), strict=False) if bits <= 128 else None


def unusable(address: str) -> str | None:
    """Say in Kubernetes' words why an endpoint or an external IP cannot have this address; None when it can.

    Source: core/v1 validation of Endpoints: unspecified, loopback, link-local and link-local multicast ranges;
    the rest of multicast is refused here too, since no endpoint can answer from it.
    """
    value = IPv6Address(address) if family(address) == 6 else IPv4Address(address)
    if value.is_unspecified:
        return f"may not be unspecified ({address})"
    if value.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if value.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    if value in _LINK_LOCAL_MULTICAST[value.version]:
        return "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    return "may not be a multicast address" if value.is_multicast else None


_LINK_LOCAL_MULTICAST: dict[int, Network] = {4: IPv4Network("224.0.0.0/24"), 6: IPv6Network("ff02::/16")}
