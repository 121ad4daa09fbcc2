"""Messages: the quick reader agrees with dnspython, and nothing that comes from outside raises anything unforeseen."""

from __future__ import annotations

import contextlib

import dns.exception
import dns.flags
import dns.message
import dns.rrset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svcnat.dns import wire
from svcnat.dns.answers import Answer, Record
from svcnat.dns.records import Records
from svcnat.dns.responder import Responder
from tests.dns.cluster import cluster, endpoint, headless, piece

NAME = ("web", "default", "svc", "cluster", "local")
QUESTION = wire.question_of(NAME, 1)
QUERY = wire.ask(7, QUESTION, recurse=True, edns=True, do=False)


def response(count: int = 3) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(QUERY))
    message.answer.append(dns.rrset.from_text("web.default.svc.cluster.local.", 5, "IN", "CNAME", "a.example.com."))
    texts = [f"192.0.2.{n + 1}" for n in range(count)]
    message.answer.append(dns.rrset.from_text("a.example.com.", 5, "IN", "A", *texts))
    return message.to_wire(max_size=65535)


def parsed(packet: bytes) -> wire.Query:
    query = wire.parse(packet)
    assert query is not None
    return query


labels = st.binary(min_size=1, max_size=63)
damaged = st.builds(lambda start, rest: QUERY[:start] + rest, st.integers(0, 60), st.binary(max_size=60))
packets = st.binary(max_size=120) | damaged


@settings(max_examples=500)
@given(st.lists(labels, max_size=5), st.integers(0, 65535), st.sampled_from((1, 3, 255)), st.booleans(), st.booleans())
def test_the_quick_reader_agrees_with_dnspython(name: list[bytes], kind: int, cls: int, edns: bool, do: bool) -> None:
    """Name, type, class, size and flags of any sane query are what dnspython reads."""
    question = b"".join(bytes([len(each)]) + each for each in name) + b"\0"
    question += kind.to_bytes(2, "big") + cls.to_bytes(2, "big")
    packet = wire.ask(9, question, recurse=True, edns=edns, do=do)
    query = parsed(packet)
    if len(question) - 4 > 255:
        assert query.error == wire.FORMERR
        return
    try:
        message = dns.message.from_wire(packet)
    except dns.exception.DNSException:  # dnspython has its own mind about types that are no questions
        return
    assert query.error == wire.NOERROR
    assert (query.id, query.type, query.cls) == (9, kind, cls)
    assert [each.encode("latin-1") for each in query.name] == [each.lower() for each in name]
    assert query.question.startswith(message.question[0].name.to_wire() or b"")
    assert query.payload == (message.payload if message.edns == 0 else 0)
    assert query.do == bool(message.ednsflags & dns.flags.DO)


@settings(max_examples=1000)
@given(packets)
@example(b"")
@example(QUERY + b"\0")
def test_any_packet_is_answered_or_dropped(packet: bytes) -> None:
    """Whatever it is; and an answer can be read, repeats the number, and fits."""
    responder = Responder(cluster())
    for stream in (False, True):
        reply = responder.respond(packet, stream=stream)
        assert not isinstance(reply, wire.Query)
        if reply is not None:
            assert reply[:2] == packet[:2]
            assert stream or len(reply) <= wire.PAYLOAD
            dns.message.from_wire(reply)


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=6), st.integers(0, 400))
def test_what_others_say_is_read_with_care(changes: list[tuple[int, int]], end: int) -> None:
    """A response with changed or missing bytes is no answer, or one that can be passed on."""
    data = bytearray(response())
    for at, value in changes:
        data[at % len(data)] = value
    said, query = bytes(data[:end]), parsed(QUERY)
    if not wire.answers(said, 7, QUESTION):
        return
    for room in (512, 65535):
        relayed = wire.relayed(query, said, room)
        assert relayed[:2] == QUERY[:2]
        assert len(relayed) <= room
        dns.message.from_wire(relayed, ignore_trailing=bool(relayed[2] & 2))
    with contextlib.suppress(dns.exception.DNSException):
        answer = Answer(records=(Record(NAME, "CNAME", 5, ("a", "example", "com")),))
        whole = wire.respond(query, wire.extended(query, answer, said), wire.LARGEST, recursive=True)
        dns.message.from_wire(whole)


def test_who_answers() -> None:
    """Only a response with our number and our question is one; letters may come back in another case."""
    good = response()
    assert wire.answers(good, 7, QUESTION)
    assert wire.answers(good.replace(b"\3web", b"\3WEB"), 7, QUESTION)
    assert not wire.answers(good, 8, QUESTION)
    assert not wire.answers(QUERY, 7, QUESTION)
    assert not wire.answers(good, 7, wire.question_of(NAME, 28))
    assert not wire.answers(good, 7, wire.question_of(("x", *NAME), 1))
    assert not wire.answers(good[:-1], 7, QUESTION)


def test_the_largest_answer() -> None:
    """What no message can hold is cut even over TCP, at a record's end."""
    records = Records()
    slices = [piece(f"s{n}", *(endpoint(f"10.{n}.{i >> 8}.{i & 255}") for i in range(500))) for n in range(10)]
    records.put(headless("web"), slices)
    reply = Responder(records).respond(QUERY, stream=True)
    assert isinstance(reply, bytes)
    message = dns.message.from_wire(reply)
    assert message.flags & dns.flags.TC
    assert 4000 < sum(map(len, message.answer)) < 5000


def test_what_is_only_helpful_is_left_out_without_a_word() -> None:
    """Addresses beside SRV records that do not fit make no answer truncated (RFC 2181, section 9)."""
    question = wire.question_of(("_http", "_tcp", "web", *NAME[1:]), 33)
    records = Records()
    hosts = [endpoint(f"10.0.0.{n}", f"h{n}") for n in range(1, 8)]
    records.put(headless("web"), [piece("s", *hosts, ports=(("http", 80, "TCP"),))])
    reply = Responder(records).respond(wire.ask(7, question, recurse=True, edns=False, do=False), stream=False)
    assert isinstance(reply, bytes)
    message = dns.message.from_wire(reply)
    assert not message.flags & dns.flags.TC
    assert sum(map(len, message.answer)) == 7
    assert not message.additional
