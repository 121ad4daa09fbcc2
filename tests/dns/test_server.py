"""Whatever arrives, the server answers or drops it, and goes on; what it holds is bounded."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from pathlib import Path

import dns.message
import pytest

from svcnat.dns import wire
from svcnat.dns.server import Limits
from svcnat.kernel import netns
from tests.dns.cluster import cluster, service
from tests.dns.serving import loopback, receive, serving, tcp, udp
from tests.dns.upstream import upstream

NAME = ("web", "default", "svc", "cluster", "local")
QUERY = wire.ask(7, wire.question_of(NAME, 1), recurse=True, edns=True, do=False)
GOOD = ("127.0.0.9", 53)


@pytest.fixture
def where(empty_netns: str) -> str:
    return loopback(empty_netns)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def is_answer(reply: bytes, ident: int = 7) -> bool:
    message = dns.message.from_wire(reply)
    return message.id == ident and message.rcode() == 0 and len(message.answer) == 1


def mutations(number: int, seed: int) -> list[bytes]:
    """Packets with flipped, cut, inserted and repeated bytes, made from sane queries; and plain noise."""
    rng = random.Random(seed)
    seeds = [
        QUERY,
        wire.ask(1, wire.question_of(("_http", "_tcp", "db", *NAME[1:]), 33), recurse=False, edns=False, do=False),
        wire.ask(2, wire.question_of(("x",), 255), recurse=True, edns=True, do=True),
        dns.message.make_query("a.example", "A", use_edns=0, options=[]).to_wire(),
        dns.message.make_query("a.example", "A", flags=0x2800).to_wire(),
        b"\0\5\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
    ]
    found = []
    for _ in range(number):
        packet = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(packet) + 1)
            match rng.randrange(6):
                case 0:
                    packet[at:at] = rng.randbytes(rng.randint(1, 8))
                case 1:
                    del packet[at:]
                case 2:
                    packet += packet[at:]
                case 3 if packet:
                    packet[at % len(packet)] ^= 1 << rng.randrange(8)
                case 4 if packet:
                    packet[at % len(packet)] = rng.choice((0, 0x3F, 0x40, 0xC0, 0xFF))
                case 5:
                    packet = bytearray(rng.randbytes(rng.randint(0, 80)))
        found.append(bytes(packet[:4096]))
    return found


def check(packet: bytes, reply: bytes) -> None:
    """A response is one to this packet, and can be read."""
    assert reply[:2] == packet[:2]
    assert reply[2] & 0x80
    assert not packet[2] & 0x80
    dns.message.from_wire(reply, ignore_trailing=False)


def test_ten_thousand_fuzzed_packets(where: str) -> None:
    """Each is answered with something that can be read, or dropped; none ends the server, or leaves anything."""
    with serving(where, cluster()) as server, udp(where) as client:
        client.setblocking(False)
        replies: list[tuple[bytes, bytes]] = []

        def ask(packet: bytes) -> None:
            with contextlib.suppress(OSError):
                client.send(packet)

        def settle(packets: dict[bytes, bytes]) -> None:
            # The sane query comes last, and is answered when everything before it is done with.
            client.send(QUERY)
            end = time.monotonic() + 20
            while time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    reply = client.recv(4096)
                    if reply[:2] == QUERY[:2] and is_answer_quietly(reply):
                        return
                    if reply[:2] in packets:
                        replies.append((packets[reply[:2]], reply))
            raise AssertionError("no answer to a sane query")

        descriptors = 0
        for batch in range(200):
            packets = {}
            for number, packet in enumerate(mutations(50, batch)):
                # A number of its own tells whose reply it is.
                if len(packet) >= 2:
                    packet = (1000 + number).to_bytes(2, "big") + packet[2:]
                packets[packet[:2]] = packet
                ask(packet)
            settle(packets)
            if batch == 20:
                descriptors = len(list(Path("/proc/self/fd").iterdir()))
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
        assert not server._waiting
        assert not server._talks
    assert len(replies) > 3000
    for packet, reply in replies:
        check(packet, reply)


def is_answer_quietly(reply: bytes) -> bool:
    with contextlib.suppress(Exception):
        return is_answer(reply)
    return False


def test_packets_that_get_no_reply(where: str) -> None:
    """Responses, and what is too short to say who asked: two servers must not keep each other busy."""
    with serving(where, cluster()), udp(where) as client:
        for packet in (b"", b"\0" * 11, QUERY[:2] + b"\x81" + QUERY[3:]):
            client.send(packet)
        client.send(b"\0\1" + QUERY[2:])
        assert client.recv(4096)[:2] == b"\0\1"


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"\0\7\1\0\0\1\0\0\0\0\0\0", 1),
        (b"\0\7\1\0\0\0\0\0\0\0\0\0", 1),
        (QUERY + b"\0", 1),
        (QUERY[:12] + b"\x40" + QUERY[13:], 1),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", 1),
        (b"\0\7\1\0\0\2\0\0\0\0\0\0" + wire.question_of(NAME, 1) * 2, 1),
        (b"\0\7\x28\0\0\0\0\0\0\0\0\0", 4),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0" + wire.question_of(NAME, 1)[:-2] + b"\0\3", 5),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0" + wire.question_of(NAME, 1)[:-2] + b"\0\xff", 5),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0" + wire.question_of(NAME, 252), 5),
    ],
    ids=["cut", "no question", "trailing", "label", "pointer", "two", "opcode", "chaos", "any class", "transfer"],
)
def test_codes(where: str, packet: bytes, code: int) -> None:
    """FORMERR for what cannot be read, NOTIMP for other operations, REFUSED for what is not done here."""
    with serving(where, cluster()), udp(where) as client:
        client.send(packet)
        reply = client.recv(4096)
        assert reply[:2] == b"\0\7"
        assert reply[3] & 15 == code


def test_labels_that_are_no_text(where: str) -> None:
    """Any bytes may be a label: such names do not exist."""
    with serving(where, cluster()), udp(where) as client:
        for label in (b"\xff\xfe", b"a.b", b"\0", b"*", b" ", b"\xc3\xa4", b"x" * 63):
            question = bytes([len(label)]) + label + wire.question_of(NAME[1:], 1)
            client.send(wire.ask(9, question, recurse=True, edns=False, do=False))
            reply = dns.message.from_wire(client.recv(4096))
            assert (reply.rcode(), len(reply.authority)) == (3, 1)


def test_many_queries_on_one_connection(where: str) -> None:
    """Pipelined, in pieces of any size, and after the client has said that it will ask no more."""
    with serving(where, cluster()), tcp(where) as client:
        stream = b"".join(framed(n.to_bytes(2, "big") + QUERY[2:]) for n in range(200))
        for start in range(0, len(stream), 333):
            client.sendall(stream[start : start + 333])
        client.shutdown(socket.SHUT_WR)
        assert {receive(client)[:2] for _ in range(200)} == {n.to_bytes(2, "big") for n in range(200)}
        assert receive(client) == b""


def test_a_slow_answer_keeps_no_other_waiting(where: str) -> None:
    """On one connection, what is known is answered while others are being asked."""
    with upstream(where), serving(where, cluster(), upstreams=lambda: (GOOD,), patience=0.3), tcp(where) as client:
        slow = wire.ask(1, wire.question_of(("silent", "example", "com"), 1), recurse=True, edns=False, do=False)
        client.sendall(framed(slow) + framed(QUERY))
        assert is_answer(receive(client))
        reply = receive(client)
        assert reply[:2] == b"\0\1"
        assert reply[3] & 15 == 2


def test_malformed_conversations(where: str) -> None:
    """Nothing, half a message, none at all, garbage, a reset: each ends its connection alone."""
    with serving(where, cluster(), limits=Limits(idle=0.3)) as server:
        for said in (b"", b"\0", b"\0\x20half", b"\0\0", framed(b"\0" * 5), framed(QUERY[:2] + b"\x80" + QUERY[3:])):
            with tcp(where) as client:
                client.sendall(said)
                assert receive(client) == b""
        with tcp(where) as client:
            client.sendall(framed(QUERY)[:9])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with tcp(where) as client:
            client.sendall(framed(QUERY + b"trailing") + framed(QUERY))
            assert receive(client)[3] & 15 == 1
            assert is_answer(receive(client))
        with tcp(where) as client:
            for packet in mutations(300, 99):
                with contextlib.suppress(OSError):
                    client.sendall(framed(packet))
        end = time.monotonic() + 20
        while server._talks and time.monotonic() < end:
            time.sleep(0.01)
        assert not server._talks


def test_connections_are_bounded(where: str) -> None:
    """The one that has been silent for longest makes room for a new one."""
    with serving(where, cluster(), limits=Limits(connections=5, idle=60)), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(tcp(where)) for _ in range(5)]
        for client in clients:
            client.sendall(framed(QUERY))
            assert is_answer(receive(client))
        clients[0].sendall(framed(QUERY))
        assert is_answer(receive(clients[0]))
        new = stack.enter_context(tcp(where))
        new.sendall(framed(QUERY))
        assert is_answer(receive(new))
        assert receive(clients[1]) == b""
        clients[0].sendall(framed(QUERY))
        assert is_answer(receive(clients[0]))


def test_who_does_not_read_ends(where: str) -> None:
    """Answers that nobody takes do not pile up."""
    question = wire.ask(1, wire.question_of(("crowd", *NAME[1:]), 1), recurse=True, edns=False, do=False)
    with serving(where, cluster(), limits=Limits(idle=0.3)) as server, tcp(where) as client:
        client.settimeout(0.2)
        with contextlib.suppress(OSError):
            for _ in range(20_000):
                client.sendall(framed(question))
        end = time.monotonic() + 30
        while server._talks and time.monotonic() < end:
            time.sleep(0.01)
        assert not server._talks


def test_answers_come_from_the_address_that_was_asked(where: str) -> None:
    """A server on all addresses answers from the one to which the query came."""
    with serving(where, cluster(), "0.0.0.0", "::"):
        for family, address in (
            (socket.AF_INET, "127.0.0.77"),
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
        ):
            with netns.entered(where), socket.socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(20)
                client.connect((address, 53))
                client.send(QUERY)
                assert is_answer(client.recv(4096))


def test_kept_answers_follow_changes(where: str) -> None:
    """What was encoded before a change is not said after it."""
    records = cluster()
    with serving(where, records), udp(where) as client:
        for address in ("10.96.0.20", "10.96.0.99", "10.96.0.98"):
            records.put(service("web", cluster_ip=address), ())
            client.send(QUERY)
            assert dns.message.from_wire(client.recv(4096)).answer[0][0].address == address
