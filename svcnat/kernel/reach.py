"""Has a network namespace a way to an address? The kernel is asked as a connecting program asks it; nothing is sent.

What becomes of a packet on its way is not known here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from svcnat.kernel import netns

_PORT = 9  # discard; any would do, for connecting a datagram socket only looks up the route


def unreachable(addresses: Iterable[str], name_or_path: str | None = None) -> dict[str, str]:
    """The addresses that no route leads to, with the kernel's reason, in a network namespace (None: the current one).

    Raises:
        MissingError: no such namespace.
        PrivilegeError: entering it is not allowed.

    """
    found = {}
    with netns.entered(name_or_path):
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                with socket.socket(family, socket.SOCK_DGRAM) as asking:
                    asking.connect((address, _PORT))
            except OSError as error:
                found[address] = os.strerror(error.errno or 0)
    return found
