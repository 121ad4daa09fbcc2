"""What things in a lab are called: network namespaces (a public contract), and MAC addresses.

``svcnat.LAB.NODE``, ``svcnat.LAB.NAMESPACE.POD``, ``svcnat.LAB.client``, ``svcnat.LAB.client-2``,
``svcnat.LAB.router``, ``svcnat.LAB.lines``. Neither labs, nodes nor namespaces have dots in their names, so two of them
never meet.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address

PREFIX = "svcnat."
ROUTER = "router"
LINES = "lines"
SYSTEM = "kube-system"
"""The namespace of the cluster's own pods, which nobody counts."""

_LONGEST = 200  # of 255 for a file name, with room for what tools put around it
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RESERVED = re.compile(r"router|lines|client(-[0-9]+)?")


def is_label(text: str) -> bool:
    """True if `text` is an RFC 1123 label: what a lab and a node may be called."""
    return _LABEL.fullmatch(text) is not None


def is_reserved(text: str) -> bool:
    """True if `text` names the router, the long lines or a client, and so cannot name a node."""
    return _RESERVED.fullmatch(text) is not None


def client(number: int) -> str:
    """The name of the client with that number, from 1: ``client``, ``client-2``, ..."""
    return "client" if number == 1 else f"client-{number}"


def prefix_of(lab: str) -> str:
    """What the network namespaces of a lab, and of no other, begin with."""
    return f"{PREFIX}{lab}."


def lab_of(namespace: str) -> str | None:
    """The lab that a network namespace belongs to, None if it belongs to none."""
    if not namespace.startswith(PREFIX):
        return None
    lab, dot, rest = namespace.removeprefix(PREFIX).partition(".")
    return lab if dot and rest and is_label(lab) else None


def member(lab: str, name: str) -> str:
    """The network namespace of a node, a client or the router."""
    return prefix_of(lab) + name


def pod(lab: str, namespace: str, name: str) -> str:
    """The network namespace of a pod; an over-long name ends in a hash of the whole."""
    full = f"{prefix_of(lab)}{namespace}.{name}"
    if len(full) <= _LONGEST:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:10]
    return f"{full[: _LONGEST - 11]}-{digest}"


def mac(address: str) -> str:
    """The MAC address of what has that IPv4 address: locally administered, unique in the lab."""
    return ":".join(f"{byte:02x}" for byte in (2, 0, *IPv4Address(address).packed))
