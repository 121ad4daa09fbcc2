"""What the kernel needs beside the rules so that node ports answer on the node's loopback addresses.

The rules translate and masquerade such flows, and guard the loopback against everybody else
(:mod:`svcnat.ruleset.layout`): they must be there first. Which families have node ports is the caller's business.

IPv4: ``all.route_localnet``, or a packet from 127.0.0.1 may not leave (EINVAL at the first send).
IPv6, experimental: the answer is for ::1 and arrives on a link, and the kernel looks for ::1 only among the routes of
the device that a packet came from (rt6_need_strict). So every device gets a local route to ::1, behind lo's own. With
it TCP and UDP work, without it the answers are lost (each measured on Linux 6.18). It opens nothing to the outside:
packets that arrive for ::1 are dropped before any hook sees them (ip6_rcv_core).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Collection

from svcnat.errors import KernelError
from svcnat.kernel import sysctl
from svcnat.kernel.netlink import ROUTE, Connection
from svcnat.kernel.routes import LOCAL, Route, settle
from svcnat.ruleset.endpoints import Family

ROUTE_LOCALNET = "net/ipv4/conf/all/route_localnet"

# A device that is down, gone, or has no IPv6 carries no answer to ::1 either.
_UNFIT = {errno.ENETDOWN, errno.ENODEV, errno.EACCES, errno.EINVAL}


def open_localhost(families: Collection[Family]) -> list[str]:
    """Let node ports of these families answer on loopback, and take back the IPv6 routes if it is not among them.

    In the network namespace of the calling thread. Devices that come up later want another call. The IPv4 setting is
    never put back.

    Returns:
        Warnings: what does not work and why, a line each.

    Raises:
        KernelError: the routes cannot be read.

    """
    warnings = []
    if "ip" in families:
        try:
            sysctl.write({ROUTE_LOCALNET: 1})
        except KernelError as error:
            warnings.append(f"localhostNodePorts: node ports do not answer on 127.0.0.1: {error}")
    wanted = {Route("::1", index, LOCAL) for index, name in socket.if_nameindex() if name != "lo"}
    with contextlib.closing(Connection(ROUTE, "routes to ::1", strict=True)) as connection:
        refused = settle(connection, socket.AF_INET6, wanted if "ip6" in families else set())
    return warnings + [
        f"localhostNodePorts: node ports do not answer on ::1: {os.strerror(number)}"
        for number in sorted(set(refused.values()) - _UNFIT)
    ]
