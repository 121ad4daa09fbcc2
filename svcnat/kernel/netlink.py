"""Netlink itself: messages, attributes, and one conversation with the kernel over a socket.

It knows no protocol's messages: :mod:`svcnat.kernel.nfnetlink`, :mod:`svcnat.kernel.conntrack` and
:mod:`svcnat.kernel.host` do. Listening is :mod:`svcnat.kernel.events`' work. Source:
include/uapi/linux/netlink.h, netlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import islice
from typing import NamedTuple

from svcnat.errors import KernelError, MissingError, PrivilegeError, StaleError, TooLargeError

ROUTE, NETFILTER = 0, 12  # the protocols that svcnat speaks
NESTED = 0x8000  # or-ed to the type of an attribute that holds attributes

_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
ACKNOWLEDGE = _ACK
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_OVERHEAD = 64  # what the kernel wants of a send buffer besides the datagram, and a little more
_INTERRUPTED, _CAPPED, _HAS_ATTRIBUTES = 0x10, 0x100, 0x200  # flags of answers
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type with two flag bits
_NUMBER = struct.Struct("=i")
_TYPE_MASK = 0x3FFF
_MESSAGE, _OFFSET = 1, 2  # NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12  # NETLINK_*; _GET_STRICT_CHK
_RECEIVE_BUFFER = 1 << 20  # the kernel fills what it is given: larger reads, fewer system calls
_READS = 20  # objects that come and go at every look are a fault of their own
_BATCH = 100  # requests in one datagram: as many refusals still fit the receive buffer of an ordinary user

Attributes = dict[int, memoryview]


class Request(NamedTuple):
    """One message of a transaction: its type, flags, and what follows the netlink header."""

    message: int
    flags: int
    body: bytes


class Refusal(NamedTuple):
    """What the kernel says of one request: its place, an errno (0: done), words, and where the fault is in its body."""

    place: int
    number: int
    detail: str
    offset: int | None


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def text(value: str) -> bytes:
    """A string as the kernel wants it, with its NUL."""
    return value.encode() + b"\0"


def walk(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The (type, payload) pairs of a run of attributes."""
    position, end = 0, len(data)
    while position + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < 4:
            return  # no attribute: an endless run of them would follow
        yield kind & _TYPE_MASK, data[position + 4 : position + length]
        position += (length + 3) & ~3


def first_of(data: memoryview, position: int, wanted: int) -> memoryview:
    """The payload of the first attribute of a type, empty if there is none; attributes begin at a position."""
    end = len(data)
    while position + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if kind == wanted:
            return data[position + 4 : position + length]
        if length < 4:
            break
        position += (length + 3) & ~3
    return data[end:]


def attributes(data: memoryview) -> Attributes:
    """The attributes by type; of a repeated one, the last."""
    return dict(walk(data))


@lru_cache(maxsize=131072)
def address(raw: bytes) -> str:
    """The canonical text of an address of 4 or 16 bytes."""
    # inet_ntop writes ::a00:1 as ::10.0.0.1, which is not how the rest of svcnat spells it.
    return str(IPv6Address(raw)) if len(raw) == 16 else socket.inet_ntop(socket.AF_INET, raw)


def open_socket(protocol: int, subject: str) -> socket.socket:
    """A netlink socket in the network namespace of the calling thread.

    Raises:
        MissingError: the kernel does not speak the protocol.

    """
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise MissingError(f"{subject}: {os.strerror(error.errno or 0)}") from error


class Connection:
    """A netlink socket in the network namespace of the thread that makes it; it stays there.

    One question at a time: asking another one while a dump is being read ends that dump.
    """

    def __init__(self, protocol: int, subject: str, *, strict: bool = False) -> None:
        """Open a socket for `protocol`; `subject` is what error messages call the other end.

        `strict`: a dump is only of what its request names, and an unknown request is refused; before Linux 4.20 the
        answer has everything, so whoever asks looks through it all the same.

        Raises:
            MissingError: the kernel does not speak the protocol.

        """
        self._subject = subject
        self._socket = open_socket(protocol, subject)
        # Refusals that say why, and do not repeat the request.
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        if strict:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)
        self._socket.bind((0, 0))
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._sequence = 0
        self._answered = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, message: int, body: bytes, *, flags: int = 0) -> None:
        """Ask for something to be done, and wait until it is.

        Raises:
            KernelError: the kernel refused; see :meth:`refusal`.

        """
        for _ in self._ask(message, body, flags | _ACK):
            pass

    def get(self, message: int, body: bytes) -> memoryview | None:
        """Ask for one object: what follows the netlink header, or None if there is no such object."""
        try:
            answers = list(self._ask(message, body, _ACK))
        except MissingError:
            return None
        return answers[0] if answers else None

    def dump(self, message: int, body: bytes, *, torn: bool = False) -> Iterator[memoryview]:
        """Ask for all objects of a kind; of each what follows the netlink header.

        `torn`: whoever asks finds out by other means whether the answer is of one moment.

        Raises:
            StaleError: they changed meanwhile, so that the answer may be torn. Ask again.

        """
        return self._ask(message, body, _DUMP, torn=torn)

    def dump_whole(
        self, message: int, body: bytes, wanted: Callable[[memoryview], bool] | None = None
    ) -> list[memoryview]:
        """All objects of a kind, of one moment: as :meth:`dump`, asked again until nothing changed meanwhile.

        Of many objects only those are kept that are `wanted`.

        Raises:
            StaleError: they change at every look.

        """
        for _ in range(_READS):
            with contextlib.suppress(StaleError):
                return list(filter(wanted, self.dump(message, body)) if wanted else self.dump(message, body))
        raise StaleError(f"{self._subject}: they keep changing in this network namespace")

    def batch(self, message: int, bodies: Iterable[bytes], *, flags: int = 0) -> list[int]:
        """Send requests of one kind that do not depend on each other; the errno of each, 0 for success, in order."""
        results: list[int] = []
        remaining = iter(bodies)
        while chunk := list(islice(remaining, _BATCH)):
            self._finish()
            first, last = self._sequence + 1, self._sequence + len(chunk)
            self._sequence = last
            datagram = b"".join(
                _message(message, flags | _REQUEST | (_ACK if sequence == last else 0), sequence, body)
                for sequence, body in enumerate(chunk, first)
            )
            self._send(datagram)
            numbers = dict.fromkeys(range(first, last + 1), 0)
            while not self._answered:
                for kind, _, sequence, body in self._receive():
                    if kind == _ERROR and sequence in numbers:
                        numbers[sequence] = _errno(body)
            results += numbers.values()
        return results

    def transact(self, requests: Sequence[Request]) -> list[Refusal]:
        """Send requests that the kernel takes as one, in a single datagram; what it says of them, in its order.

        At least one request should have :data:`ACKNOWLEDGE`, to be told of success.

        Raises:
            TooLargeError: the datagram does not fit the send buffer, and this process may not enlarge it.
            KernelError: it cannot be sent at all.

        """
        self._finish()
        first = self._sequence + 1
        self._sequence += len(requests)
        datagram = b"".join(
            part
            for sequence, (message, flags, body) in enumerate(requests, first)
            for part in _parts(message, flags | _REQUEST, sequence, body)
        )
        self._make_room(len(datagram) + _BUFFER_OVERHEAD)
        self._send(datagram)
        refusals: list[Refusal] = []
        # The kernel has answered when send() returns: whatever it had to say is in the queue.
        while True:
            try:
                data = self._datagram(socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._answered = True
                return refusals
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more refusals than fit: those that did are as good
                    raise self.refusal(error.errno or 0) from error
                continue
            refusals += [
                Refusal(sequence - first, _errno(body), _detail(kind, flags, body), _offset(flags, body))
                for kind, flags, sequence, body in messages(data)
                if kind == _ERROR and first <= sequence <= self._sequence
            ]

    def refusal(self, number: int, detail: str = "") -> KernelError:
        """The error that an errno of the kernel's stands for; `detail` is what the kernel adds in words."""
        reason = f"{os.strerror(number)} ({detail})" if detail else os.strerror(number)
        match number:
            case errno.EPERM | errno.EACCES:
                return PrivilegeError(f"{self._subject}: needs root, or CAP_NET_ADMIN in this network namespace")
            case errno.ENOENT:
                return MissingError(f"{self._subject}: {reason}")
            case errno.EMSGSIZE:
                return TooLargeError(f"{self._subject}: {reason}")
            case errno.EINTR | errno.EAGAIN:
                return StaleError(f"{self._subject}: changed while it was read")
            case _:
                return KernelError(f"{self._subject}: {reason}")

    def _ask(self, message: int, body: bytes, flags: int, *, torn: bool = False) -> Iterator[memoryview]:
        self._finish()
        self._sequence += 1
        self._send(_message(message, flags | _REQUEST, self._sequence, body))
        return self._answers(self._sequence, torn=torn)

    def _answers(self, asked: int, *, torn: bool) -> Iterator[memoryview]:
        while True:
            if self._sequence != asked:
                raise RuntimeError("another question was asked while this answer was being read")
            for kind, flags, sequence, body in self._receive():
                if sequence != asked:
                    continue  # an answer that arrived after its reader gave up
                if flags & _INTERRUPTED and not torn:
                    raise self.refusal(errno.EINTR)
                if kind in (_ERROR, _DONE):
                    if number := _errno(body):
                        raise self.refusal(number, _detail(kind, flags, body))
                    return
                yield body

    def _finish(self) -> None:
        """Read what is left of an answer that its reader abandoned: a dump that goes on refuses the next one."""
        while not self._answered:
            self._receive()

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.send(datagram)
        except OSError as error:
            raise self.refusal(error.errno or 0) from error
        self._answered = False

    def _make_room(self, size: int) -> None:
        """Enlarge the send buffer if `size` does not fit; the kernel itself doubles what it is asked for."""
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < size:
            force(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, size)

    def _receive(self) -> list[tuple[int, int, int, memoryview]]:
        """The messages of one datagram, as (type, flags, sequence, what follows the header)."""
        try:
            data = self._datagram()
        except OSError as error:
            self._answered = True  # what was lost may be the end of the answer: nobody may wait for it
            raise self.refusal(error.errno or 0) from error
        found = list(messages(data))
        # Noted here, since whoever reads the messages may stop at one before the last, or at the last itself: a dump
        # that was interrupted may say so only in its end. Waiting for the end once more would be for ever.
        self._answered |= any(sequence == self._sequence and kind in (_ERROR, _DONE) for kind, _, sequence, _ in found)
        return found

    def _datagram(self, flags: int = 0) -> memoryview:
        size = self._socket.recv_into(self._buffer, 0, flags)
        return memoryview(self._buffer[:size].tobytes())  # a copy, since attributes point into it


def messages(data: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """The messages of a datagram, as (type, flags, sequence, what follows the header)."""
    position, end = 0, len(data)
    while position + _HEADER.size <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size:
            return  # no message: an endless run of them would follow
        yield kind, flags, sequence, data[position + _HEADER.size : position + length]
        position += (length + 3) & ~3


def enlarge_receive_buffer(opened: socket.socket, size: int) -> None:
    """Let a socket hold `size` bytes of what was not read yet, or as many as an ordinary user may have."""
    force(opened, _SO_RCVBUFFORCE, socket.SO_RCVBUF, size)


def force(opened: socket.socket, privileged: int, ordinary: int, size: int) -> None:
    """Set the size of a buffer beyond net.core's limits, or up to them where CAP_NET_ADMIN is not the machine's."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, privileged, size)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, ordinary, size)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return b"".join(_parts(kind, flags, sequence, body))


def _parts(kind: int, flags: int, sequence: int, body: bytes) -> tuple[bytes, ...]:
    """A message in pieces, so that a large one is copied once."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0), body, bytes(-len(body) % 4)


def _errno(body: memoryview) -> int:
    """The number with which an error and the end of a dump begin; a finished dump and an acknowledgement have 0."""
    return -int(_NUMBER.unpack_from(body)[0]) if len(body) >= _NUMBER.size else 0


def _detail(kind: int, flags: int, body: memoryview) -> str:
    """What the kernel says in words about a refusal (extended acknowledgement); mostly nothing."""
    said = _extended(kind, flags, body).get(_MESSAGE)
    return bytes(said).rstrip(b"\0").decode(errors="replace") if said is not None else ""


def _offset(flags: int, body: memoryview) -> int | None:
    """Where in the body of a refused request the kernel sees the fault; it counts from the netlink header."""
    said = _extended(_ERROR, flags, body).get(_OFFSET)
    return None if said is None else int.from_bytes(said, sys.byteorder) - _HEADER.size


def _extended(kind: int, flags: int, body: memoryview) -> Attributes:
    if not flags & _HAS_ATTRIBUTES:
        return {}
    start = _NUMBER.size
    if kind == _ERROR:
        request = _HEADER.unpack_from(body, start)[0]
        start += _HEADER.size if flags & _CAPPED else (request + 3) & ~3
    return attributes(body[start:])
