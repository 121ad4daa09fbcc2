"""The sockets of a network namespace that wait for connections and datagrams.

The kernel is asked for those alone (sock_diag(7)): /proc/net/tcp has every connection of the machine. Whose they are is
not known here. Source: include/uapi/linux/inet_diag.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass

from svcnat.kernel import netns
from svcnat.kernel.netlink import Connection, address

_SOCK_DIAG, _BY_FAMILY = 4, 20  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states
_ANSWER = struct.Struct("!4xH2x16s")  # inet_diag_msg: behind family, state, timer and retransmits, port and address
_STATES = {"tcp": 1 << 10, "udp": 1 << 7}  # TCP_LISTEN; TCP_CLOSE: bound, not connected
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket: tcp or udp, the address that it is bound to (0.0.0.0 and :: for all of them), and its port."""

    protocol: str
    address: str
    port: int


def read(name_or_path: str | None = None) -> frozenset[Listener]:
    """Read them in a network namespace (by name or path; None: the current one).

    Raises:
        MissingError: no such namespace, or a kernel without sock_diag.
        PrivilegeError: entering it is not allowed.

    """
    with netns.entered(name_or_path):
        opened = Connection(_SOCK_DIAG, "sockets")
    found = set()
    with contextlib.closing(opened) as connection:
        for protocol, number in _PROTOCOLS.items():
            for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
                request = _REQUEST.pack(family, number, 0, _STATES[protocol])
                for body in connection.dump_whole(_BY_FAMILY, request):
                    port, raw = _ANSWER.unpack_from(body)
                    found.add(Listener(protocol, address(raw[:size]), port))
    return frozenset(found)
