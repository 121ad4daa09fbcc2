"""What the kernel says unasked: commits to nf_tables, changes of links, addresses and routes.

It only listens. What follows from an event is for its reader to decide, and whether events were lost can always be
told: from an :class:`Overrun`, or from the generation (:meth:`svcnat.kernel.nftables.Namespace.generation`).
Sources: include/uapi/linux/netfilter/nf_tables.h, rtnetlink.h, netlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from svcnat.errors import KernelError, PrivilegeError
from svcnat.kernel import netns
from svcnat.kernel.netlink import NETFILTER, ROUTE, attributes, enlarge_receive_buffer, messages, open_socket, walk
from svcnat.kernel.nfnetlink import NFGENMSG, NFPROTO
from svcnat.kernel.process import printable
from svcnat.ruleset.nouns import TABLE

_SOL_NETLINK, _JOIN, _LEAVE = 270, 1, 2  # NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP
_NFTABLES = 7  # NFNLGRP_NFTABLES
_HOST = (1, 5, 7, 9, 11)  # RTNLGRP_LINK; _IFADDR and _ROUTE of IPV4, then of IPV6
_NEXTHOPS = 32  # RTNLGRP_NEXTHOP, since Linux 5.3
_BUFFER = 8 << 20  # some 10,000 events; as root
_DATAGRAM = 1 << 16  # the kernel sends pages, not more
_DATAGRAMS = 1000  # at one reading: somebody who never stops must not keep the reader from its other work

_NF_TABLES, _NEW_GENERATION = 10, 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN
_NEW, _GONE = "added or changed", "deleted"
# NFT_MSG_*: what is done, to what noun, and which attribute names it (0: nothing but its table).
_NOUNS = {
    0: (_NEW, "table", 0),
    2: (_GONE, "table", 0),
    3: (_NEW, "chain", 3),
    5: (_GONE, "chain", 3),
    6: ("added rule to", "rule", 2),
    8: ("deleted rule from", "rule", 2),
    9: (_NEW, "set", 2),
    11: (_GONE, "set", 2),
    12: ("added elements to", "elements", 2),
    14: ("deleted elements from", "elements", 2),
    18: (_NEW, "object", 2),
    20: (_GONE, "object", 2),
    22: (_NEW, "flowtable", 2),
    24: (_GONE, "flowtable", 2),
}
_FAMILIES = {number: family for family, number in NFPROTO.items()}
_WORDS = 8  # of a transaction that did a thousand things to our tables, a few tell enough


@dataclass(frozen=True, slots=True)
class Commit:
    """Somebody's transaction.

    ``pid`` is the thread that committed, by the number of the machine's PID namespace, and ``command`` its name (comm).
    ``ours``: it touched a table of svcnat's; ``what`` then says what was done to it, in a few words each.
    """

    generation: int
    pid: int
    command: str
    ours: bool
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Overrun:
    """Events were lost, since nobody read them in time: look at everything."""


class Change(NamedTuple):
    """A message of rtnetlink: its type (RTM_*), and what follows the netlink header."""

    message: int
    body: memoryview


class _Listener:
    """A netlink socket in a network namespace that is in some groups, and never blocks."""

    def __init__(self, name_or_path: str | None, protocol: int, groups: Sequence[int], buffer: int) -> None:
        with netns.entered(name_or_path):
            self._socket = open_socket(protocol, _SUBJECT)
        try:
            self._socket.settimeout(0)
            if buffer:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            else:
                enlarge_receive_buffer(self._socket, _BUFFER)
            self._socket.bind((0, 0))
            self.drained = False
            self.overruns = 0
            for group in groups:
                self.join(group)
        except BaseException:
            self._socket.close()
            raise

    def join(self, group: int) -> None:
        try:
            self._socket.setsockopt(_SOL_NETLINK, _JOIN, group)
        except PermissionError as error:
            raise PrivilegeError(f"{_SUBJECT}: needs root, or CAP_NET_ADMIN in this network namespace") from error
        except OSError as error:
            raise KernelError(f"{_SUBJECT}: {os.strerror(error.errno or 0)}") from error

    def leave(self, group: int) -> None:
        self._socket.setsockopt(_SOL_NETLINK, _LEAVE, group)

    def datagrams(self) -> Iterator[memoryview | None]:
        """What has arrived, after a None if something that followed it was lost."""
        self.drained = False
        for _ in range(_DATAGRAMS):
            try:
                data, sender = self._socket.recvfrom(_DATAGRAM)
            except BlockingIOError:
                self.drained = True
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(f"{_SUBJECT}: {os.strerror(error.errno or 0)}") from error
                self.overruns += 1
                yield None
            else:
                if sender[0] == 0:  # the kernel
                    yield memoryview(data)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


_SUBJECT = "events of the kernel"


class RulesetEvents:
    """Commits to nf_tables in one network namespace, by whomever, this process too.

    A socket is opened there and stays, so the methods work from any thread, one at a time.
    """

    def __init__(self, name_or_path: str | None = None, *, buffer: int = 0) -> None:
        """Listen in the namespace by name or path; None is the current one. `buffer` is for tests: bytes.

        Raises:
            MissingError: no such namespace.
            PrivilegeError: entering it, or listening there, is not allowed.

        """
        self._listener = _Listener(name_or_path, NETFILTER, (_NFTABLES,), buffer)
        self._arrived: list[Commit | Overrun] = []
        self._torn = self._draining = False
        self._begin()

    def _begin(self) -> None:
        """Expect a new transaction."""
        self._what: dict[str, None] = {}  # in order
        self._tables: dict[str, None] = {}  # that were deleted: the kernel tells of all that was in them first
        self._ours = False

    def fileno(self) -> int:
        """For an event loop: readable when :meth:`read` may have something."""
        return self._listener.fileno()

    @property
    def overruns(self) -> int:
        """How often events were lost so far."""
        return self._listener.overruns

    def read(self) -> list[Commit | Overrun]:
        """All transactions that have arrived completely, in order; never blocks.

        A transaction of which a part may be lost counts as ``ours``, since it may be.
        """
        for data in self._listener.datagrams():
            if data is None:
                # The kernel says it at once, and loses events until all that it had kept is read. The hole is there:
                # in the transaction that is incomplete then, or the one after it.
                self._arrived.append(Overrun())
                self._torn = self._draining = True
                continue
            for kind, _, _, body in messages(data):
                if kind >> 8 == _NF_TABLES:
                    self._take(kind & 0xFF, body)
        self._draining &= not self._listener.drained
        arrived, self._arrived = self._arrived, []
        return arrived

    def pause(self) -> None:
        """Leave the group: a listener makes commits slow, and a large one of our own would only overrun it.

        Nothing more is reported until :meth:`resume`.
        """
        self._listener.leave(_NFTABLES)

    def resume(self) -> None:
        """Join the group again: ask for the generation after it, and call :meth:`read` for what arrived before."""
        self.pause()
        arrived = self.read()
        while not self._listener.drained:  # nothing more comes
            arrived += self.read()
        self._arrived = arrived
        self._begin()  # a transaction that was cut in two when the group was left
        self._listener.join(_NFTABLES)

    def close(self) -> None:
        """Close the socket."""
        self._listener.close()

    def __enter__(self) -> RulesetEvents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, message: int, body: memoryview) -> None:
        if message == _NEW_GENERATION:
            told = attributes(body[NFGENMSG.size :])
            # Of a table that is gone, nobody wants to know what was in it; one that was made anew is another matter.
            made = any(word.startswith("added") for word in self._what)
            what = tuple({**self._tables, **(self._what if made or not self._tables else {})})[:_WORDS]
            if self._torn:
                what = (*what, "perhaps more, which was lost")
            pid = int.from_bytes(told.get(2, b""), "big")
            ours = self._ours or self._torn
            self._arrived.append(Commit(int.from_bytes(told[1], "big"), pid, _text(told.get(3)), ours, what))
            self._torn = self._draining
            self._begin()
        elif message in _NOUNS and (family := _FAMILIES.get(body[0])):
            parts = iter(walk(body[NFGENMSG.size :]))
            if next((value for kind, value in parts if kind == 1), b"") != _OURS:
                return
            self._ours = True
            verb, noun, named = _NOUNS[message]
            if (verb, noun) == ("deleted", "table"):
                self._tables[f"deleted table {family} {TABLE}"] = None
            elif len(self._what) < _WORDS:
                if noun in _STRUCTURE:
                    verb = f"{verb} {noun}"
                name = _text(next((value for kind, value in parts if kind == named), None))
                self._what[f"{verb} {family} {TABLE} {name}".rstrip()] = None


_OURS = TABLE.encode() + b"\0"
_STRUCTURE = frozenset({"table", "chain", "set", "object", "flowtable"})


def _text(raw: memoryview | None) -> str:
    """A name in printable characters: others choose them."""
    return printable(bytes(raw or b"").rstrip(b"\0").decode(errors="replace"))


class HostEvents:
    """Changes of links, addresses, routes and next hops in one network namespace.

    A socket is opened there and stays, so the methods work from any thread, one at a time.
    """

    def __init__(self, name_or_path: str | None = None, *, buffer: int = 0) -> None:
        """Listen in the namespace by name or path; None is the current one. `buffer` is for tests: bytes.

        Raises:
            MissingError: no such namespace.
            PrivilegeError: entering it is not allowed.

        """
        self._listener = _Listener(name_or_path, ROUTE, _HOST, buffer)
        with contextlib.suppress(KernelError):  # a kernel without next hops of their own
            self._listener.join(_NEXTHOPS)

    def fileno(self) -> int:
        """For an event loop: readable when :meth:`read` may have something."""
        return self._listener.fileno()

    @property
    def overruns(self) -> int:
        """How often events were lost so far."""
        return self._listener.overruns

    def read(self) -> list[Change | Overrun]:
        """What changed since the last call; never blocks.

        Whether that is news, :meth:`svcnat.kernel.host.Survey.foresees` tells.
        """
        found: list[Change | Overrun] = []
        for data in self._listener.datagrams():
            if data is None:
                found.append(Overrun())
            else:
                found += (Change(kind, body) for kind, _, _, body in messages(data))
        return found

    def close(self) -> None:
        """Close the socket."""
        self._listener.close()

    def __enter__(self) -> HostEvents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
