"""Netlink itself: attributes survive the round trip, questions follow each other, refusals say why."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcnat.errors import KernelError, MissingError, PrivilegeError, StaleError, TooLargeError
from svcnat.kernel import netns
from svcnat.kernel.netlink import NESTED, NETFILTER, ROUTE, Connection, address, attribute, attributes, nest, walk

GETLINK, GETADDR, NEWADDR, DELADDR = 18, 22, 20, 21
LOOPBACK = 1


@pytest.fixture
def connection(empty_netns: str) -> Iterator[Connection]:
    with netns.entered(empty_netns):
        opened = Connection(ROUTE, "network devices")
    yield opened
    opened.close()


def local(number: int) -> bytes:
    """An address of the loopback device, for RTM_NEWADDR and RTM_DELADDR."""
    raw = bytes([127, 0, number >> 8, number & 255])
    return struct.pack("=BBBBi", socket.AF_INET, 32, 0, 254, LOOPBACK) + attribute(2, raw)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=50)), max_size=8))
def test_attributes_survive_the_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    """Whatever their lengths, and inside another attribute too."""
    run = b"".join(attribute(kind, value) for kind, value in pairs)
    assert [(kind, bytes(value)) for kind, value in walk(memoryview(run))] == pairs
    wrapped = attributes(memoryview(nest(7, run)))
    assert bytes(wrapped[7]) == run
    assert nest(7, run)[2:4] == struct.pack("=H", 7 | NESTED)


@given(st.binary(max_size=64))
def test_any_bytes_end(garbage: bytes) -> None:
    """What is no run of attributes neither fails nor goes on for ever."""
    assert len(list(walk(memoryview(garbage)))) <= 16


def test_addresses_are_spelled_as_everywhere_else() -> None:
    """RFC 5952, without the dotted tail that inet_ntop(3) gives some."""
    assert address(bytes([10, 0, 0, 1])) == "10.0.0.1"
    assert address(socket.inet_pton(socket.AF_INET6, "::a00:1")) == "::a00:1"
    assert address(socket.inet_pton(socket.AF_INET6, "FD00:0:0::1")) == "fd00::1"


def test_a_request_is_done_when_it_returns(connection: Connection) -> None:
    """And asked twice, it is refused."""
    flags = 0x600  # create, exclusively
    connection.request(NEWADDR, local(1), flags=flags)
    assert len(list(connection.dump(GETADDR, bytes(8)))) == 1
    with pytest.raises(KernelError, match="File exists"):
        connection.request(NEWADDR, local(1), flags=flags)


def test_one_object_or_none(connection: Connection) -> None:
    """get() gives the object's body, and None where the kernel says that there is none."""
    found = connection.get(GETLINK, struct.pack("=BxHiII", 0, 0, LOOPBACK, 0, 0))
    assert found is not None
    assert bytes(attributes(found[16:])[3]) == b"lo\0"
    with netns.entered(None):
        conntrack = Connection(NETFILTER, "connection tracking")
    nobody = nest(1, nest(1, attribute(1, bytes(4)), attribute(2, bytes(4))), nest(2, attribute(1, b"\x11"), *PORTS))
    assert conntrack.get(0x101, struct.pack("=BBH", socket.AF_INET, 0, 0) + nobody) is None
    conntrack.close()


PORTS = attribute(2, bytes(2)), attribute(3, bytes(2))


def test_refusals_come_in_the_order_of_the_requests(connection: Connection) -> None:
    """Of several hundred requests each has its own answer."""
    numbers = list(range(1, 251))
    flags = 0x600
    assert connection.batch(NEWADDR, map(local, numbers[::2]), flags=flags) == [0] * 125
    results = connection.batch(NEWADDR, map(local, numbers), flags=flags)
    assert results == [errno.EEXIST, 0] * 125
    assert connection.batch(DELADDR, map(local, [300, 1, 301])) == [errno.EADDRNOTAVAIL, 0, errno.EADDRNOTAVAIL]
    assert connection.batch(DELADDR, []) == []
    assert len(list(connection.dump(GETADDR, bytes(8)))) == 249


def test_an_abandoned_answer_disturbs_nobody(connection: Connection) -> None:
    """The kernel refuses a second dump while one is under way: what is left of the first is read away."""
    assert set(connection.batch(NEWADDR, map(local, range(1, 2001)), flags=0x600)) == {0}
    first = connection.dump(GETADDR, bytes(8))
    next(first)
    assert len(list(connection.dump(GETADDR, bytes(8)))) == 2000
    next(connection.dump(GETADDR, bytes(8)))
    connection.request(DELADDR, local(1))
    with pytest.raises(RuntimeError, match="another question"):
        list(first)
    connection.dump(GETADDR, bytes(8))  # not read at all
    assert len(list(connection.dump(GETADDR, bytes(8)))) == 1999


def test_refusals_are_classified(connection: Connection) -> None:
    """Errors are those of svcnat, with the kernel's own words if it has any."""
    with pytest.raises(KernelError, match=r"^network devices: Invalid argument \(.+\)$"):
        connection.request(NEWADDR, struct.pack("=BBBBi", socket.AF_INET, 77, 0, 0, LOOPBACK) + attribute(2, bytes(4)))
    for number, kind in (
        (errno.EPERM, PrivilegeError),
        (errno.EACCES, PrivilegeError),
        (errno.ENOENT, MissingError),
        (errno.EINTR, StaleError),
        (errno.EAGAIN, StaleError),
        (errno.EMSGSIZE, TooLargeError),
        (errno.EBUSY, KernelError),
    ):
        assert type(connection.refusal(number)) is kind
    with pytest.raises(MissingError, match=r"^nonsense: Protocol not supported$"):
        Connection(31, "nonsense")


class Interrupted(Connection):
    """A connection whose dumps are interrupted so late that only their end tells."""

    def _datagram(self, flags: int = 0) -> memoryview:
        data, position = bytearray(super()._datagram(flags)), 0
        while position < len(data):
            length, kind, marks = struct.unpack_from("=IHH", data, position)
            if kind == 3:  # NLMSG_DONE
                struct.pack_into("=H", data, position + 6, marks | 0x10)
            position += (length + 3) & ~3
        return memoryview(bytes(data))


def test_an_end_that_tells_of_an_interruption_is_an_end(empty_netns: str) -> None:
    """Nobody waits for another one: the next question is asked, and answered."""
    with netns.entered(empty_netns):
        connection = Interrupted(ROUTE, "network devices")
    try:
        for _ in range(2):
            with pytest.raises(StaleError):
                list(connection.dump(GETLINK, bytes(16)))
        assert connection.get(GETLINK, struct.pack("=BxHiII", 0, 0, LOOPBACK, 0, 0))
    finally:
        connection.close()
