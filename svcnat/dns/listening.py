"""The sockets that a name server answers at: two for each address, bound here, or handed down by who started it.

It reads no packet, and imports little: a process that only opens sockets for others need not know of DNS.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from svcnat.model.addresses import family

Address = tuple[str, int]
"""An IP address and a port."""

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - pods answer at all of their addresses

_BUFFER = 8 << 20  # bytes of packets that may wait: some thousand, while a busy machine does something else
_BACKLOG = 256
_PKTINFO = {
    socket.AF_INET: (socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}


@dataclass(frozen=True, slots=True)
class Listening:
    """The two sockets of one address."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def listen(address: Address) -> Listening:
    """Bind both sockets of an address, in the network namespace of the calling thread; port 0: any free one.

    Raises:
        OSError: it is in use, or not an address of this host.

    """
    its_family = family_of(address[0])
    with contextlib.ExitStack() as stack:
        udp = stack.enter_context(socket.socket(its_family, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.socket(its_family, socket.SOCK_STREAM))
        for each in (udp, tcp):
            each.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            if its_family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        with contextlib.suppress(OSError):  # only for who may administer the network
            udp.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), _BUFFER)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address[0] in EVERYWHERE:
            udp.setsockopt(*_PKTINFO[its_family], 1)
        udp.bind(address)
        tcp.bind((address[0], udp.getsockname()[1]))
        tcp.listen(_BACKLOG)
        stack.pop_all()
    return Listening(udp, tcp)


def inherited(descriptor: int) -> Listening:
    """The sockets of an address that whoever started us opened: UDP at `descriptor`, TCP at the next one.

    Raises:
        OSError: they are not that.

    """
    with contextlib.ExitStack() as stack:
        udp, tcp = (stack.enter_context(_taken(each)) for each in (descriptor, descriptor + 1))
        if (udp.type, tcp.type) != (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            raise OSError(0, "they are not a UDP and a TCP socket")
        stack.pop_all()
    return Listening(udp, tcp)


def _taken(descriptor: int) -> socket.socket:
    found = socket.socket(fileno=descriptor)
    found.set_inheritable(False)
    found.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    return found


def family_of(address: str) -> socket.AddressFamily:
    """The socket family of an address."""
    return socket.AF_INET6 if family(address) == 6 else socket.AF_INET
