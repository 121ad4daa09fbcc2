"""Reading nf_tables over netlink, object by object.

libnftables reads the whole ruleset into its cache before it answers anything: 12 to 20 s and 650 MB for 300,000
elements. So it only writes (:mod:`svcnat.kernel.libnftables`), and reading is done here. This module knows
the messages, not what svcnat keeps in the tables (:mod:`svcnat.kernel.nftables` does), and it never writes.
Source: include/uapi/linux/netlink.h and linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from svcnat.errors import KernelError, MissingError, PrivilegeError, StaleError

NFPROTO = {"ip": 2, "ip6": 10}

# Message types of the nf_tables subsystem (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*).
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN = (0xA00 | n for n in (1, 4, 7, 10, 13, 16))

_NETLINK_NETFILTER = 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x4, 0x300, 0x10
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NFGENMSG = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type with two flag bits
_TYPE_MASK = 0x3FFF
_RECEIVE_BUFFER = 1 << 20  # the kernel fills what it is given: larger reads, fewer system calls

Attributes = dict[int, memoryview]


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(value: str) -> bytes:
    """A string as the kernel wants it, with its NUL."""
    return value.encode() + b"\0"


def walk(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The (type, payload) pairs of a run of attributes."""
    position, end = 0, len(data)
    while position + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        yield kind & _TYPE_MASK, data[position + 4 : position + length]
        position += (length + 3) & ~3


def attributes(data: memoryview) -> Attributes:
    """The attributes by type; of a repeated one, the last."""
    return dict(walk(data))


class Connection:
    """A netlink socket in the network namespace of the thread that makes it; it stays there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def get(self, message: int, family: str, *, payload: bytes = b"") -> Attributes | None:
        """Ask for one object: its attributes, or None if there is no such object."""
        try:
            return next(self._ask(message, family, payload, 0), None)
        except MissingError:
            return None

    def dump(self, message: int, family: str, *, payload: bytes = b"") -> Iterator[Attributes]:
        """Ask for all objects of a kind.

        Raises:
            StaleError: the ruleset changed meanwhile, so that the answer may be torn. Ask again.

        """
        return self._ask(message, family, payload, _NLM_F_DUMP)

    def generation(self) -> int:
        """The id of this namespace's ruleset: every commit of any table moves it (NFTA_GEN_ID)."""
        answer = self.get(GETGEN, "ip")
        assert answer is not None
        return int.from_bytes(answer[1], "big")

    def _ask(self, message: int, family: str, payload: bytes, flags: int) -> Iterator[Attributes]:
        self._sequence += 1
        body = _NFGENMSG.pack(NFPROTO[family], 0, 0) + payload
        flags |= _NLM_F_REQUEST | (0 if flags & _NLM_F_DUMP else _NLM_F_ACK)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), message, flags, self._sequence, 0) + body)
        while True:
            data = memoryview(self._socket.recv(_RECEIVE_BUFFER))
            position = 0
            while position < len(data):
                length, kind, answer_flags, sequence, _ = _HEADER.unpack_from(data, position)
                start, end = position + _HEADER.size, position + length
                position += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the rest of an answer that its reader abandoned
                if answer_flags & _NLM_F_DUMP_INTR:
                    raise StaleError("the ruleset changed while it was read")
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    # Both begin with an errno; a finished dump and an acknowledgement have 0.
                    _raise_for(-int.from_bytes(data[start : start + 4], "little", signed=True))
                    return
                yield attributes(data[start + _NFGENMSG.size : end])


def _raise_for(number: int) -> None:
    if number == 0:
        return
    reason = os.strerror(number)
    match number:
        case errno.EPERM | errno.EACCES:
            raise PrivilegeError("reading nftables needs root, or CAP_NET_ADMIN in this network namespace")
        case errno.ENOENT:
            raise MissingError(f"nf_tables: {reason}")
        case errno.EINTR | errno.EAGAIN:
            raise StaleError("the ruleset changed while it was read")
        case _:
            raise KernelError(f"nf_tables: {reason}")
