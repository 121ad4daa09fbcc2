"""DNS messages as bytes: queries read, answers spelled, responses put together (RFC 1035, RFC 6891).

An answer is encoded once, by dnspython, as what follows the question; a response is a header, the question as it was
asked (so its letters keep their case), and that. Since names point back to the question by its place, which does not
change, the same bytes serve every client. Ordinary queries are read here, in microseconds; whatever looks different is
left to dnspython. Nothing here knows what the answer is, or has a socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.renderer

from svcnat.dns.answers import Answer, Name, Record, Soa, Srv

LARGEST = 65535  # bytes of a message, over TCP
PAYLOAD = 1232  # bytes over UDP that cross any network in one piece: what we announce, and never exceed
SMALLEST = 512  # bytes over UDP that every client takes

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
_QR, _AA, _TC, _RA = 0x8000, 0x0400, 0x0200, 0x0080
_COPIED = 0x0110  # RD, CD: what a response repeats of the query's flags
_DO = 0x8000

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_OPT = struct.Struct("!BHHBBHH")
_LONGEST_NAME = 255
_LONGEST_LABEL = 63
_IN, _OPT_TYPE = 1, 41
_IN_CLASS = dns.rdataclass.IN

_TYPE_NAMES = {int(kind): dns.rdatatype.to_text(kind) for kind in dns.rdatatype.RdataType}
TRANSFERS = (251, 252)
"""IXFR and AXFR."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question, and what its response must know of it.

    `question` is as it was sent, `key` the same in lower case; `payload` is 0 without EDNS. `error` is what it gets
    instead of an answer, if that is known already.
    """

    id: int
    flags: int
    question: bytes
    key: bytes
    type: int
    cls: int
    payload: int = 0
    do: bool = False
    error: int = NOERROR

    @property
    def name(self) -> Name:
        """The labels, in lower case."""
        labels, at, key = [], 0, self.key
        while length := key[at]:
            labels.append(key[at + 1 : at + 1 + length].decode("latin-1"))
            at += 1 + length
        return tuple(labels)

    @property
    def type_name(self) -> str:
        """The type as records spell it."""
        return _TYPE_NAMES.get(self.type, "")

    @property
    def room(self) -> int:
        """The bytes that a response over UDP may have."""
        return min(PAYLOAD, max(SMALLEST, self.payload))


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded answer: what follows the question, and where its records end.

    ``ends`` are the ends of the answer's records; `authority` and `additional` are how many follow. It is not `whole`
    if it would not fit any message.
    """

    rcode: int
    data: bytes = b""
    ends: tuple[int, ...] = ()
    authority: int = 0
    additional: int = 0
    whole: bool = True
    ours: bool = True


def parse(packet: bytes) -> Query | None:
    """Read a query; None if there is nobody to answer: what is too short for a header, or a response."""
    if len(packet) < _HEADER.size:
        return None
    ident, flags, questions, answers, authorities, extras = _HEADER.unpack_from(packet)
    if flags & _QR:
        return None
    if flags & 0x7800:
        return _failed(ident, flags, NOTIMP)
    if questions == 1 and not answers and not authorities and extras < 2:
        found = _parse_plain(packet, ident, flags, extras)
        if found:
            return found
    return _parse_any(packet, ident, flags)


def _parse_plain(packet: bytes, ident: int, flags: int, extras: int) -> Query | None:
    """Read a query of one question and at most an OPT record without a fault; None if it is anything else."""
    start, end, size = _HEADER.size, _HEADER.size, len(packet)
    while end < size and (length := packet[end]):
        if length > _LONGEST_LABEL:
            return None
        end += length + 1
    end += 1
    if end + _QUESTION.size > size or end - start > _LONGEST_NAME:
        return None
    kind, cls = _QUESTION.unpack_from(packet, end)
    key = packet[start:end].lower() + packet[end : end + 4]
    end += _QUESTION.size
    question = packet[start:end]
    if not extras:
        return Query(ident, flags, question, key, kind, cls) if end == size else None
    if end + _OPT.size > size:
        return None
    root, rr_type, payload, _, version, opt_flags, length = _OPT.unpack_from(packet, end)
    if root or rr_type != _OPT_TYPE or end + _OPT.size + length != size or not _are_options(packet, size - length):
        return None
    error = BADVERS if version else NOERROR
    return Query(ident, flags, question, key, kind, cls, max(payload, SMALLEST), bool(opt_flags & _DO), error)


def _are_options(packet: bytes, at: int) -> bool:
    """Tell whether EDNS options fill the rest of a packet exactly."""
    while at + 4 <= len(packet):
        at += 4 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return at == len(packet)


def _parse_any(packet: bytes, ident: int, flags: int) -> Query:
    """Read a query that is not plain; if it cannot be read, the answer is that it cannot."""
    try:
        message = dns.message.from_wire(packet, question_only=False)
        asked = message.question
        if len(asked) != 1 or message.edns > 0:
            return _failed(ident, flags, FORMERR)
        name = asked[0].name.to_wire()
    except Exception:  # noqa: BLE001 - whatever dnspython makes of garbage, its sender is told, and nothing else happens
        return _failed(ident, flags, FORMERR)
    assert name is not None
    rest = _QUESTION.pack(asked[0].rdtype, asked[0].rdclass)
    payload = max(message.payload, SMALLEST) if message.edns == 0 else 0
    do = bool(message.ednsflags & _DO)
    return Query(ident, flags, name + rest, name.lower() + rest, asked[0].rdtype, asked[0].rdclass, payload, do)


def _failed(ident: int, flags: int, error: int) -> Query:
    return Query(ident, flags, b"", b"\0", 0, 0, error=error)


def respond(query: Query, body: Body, room: int, *, recursive: bool) -> bytes:
    """Put a response together; what does not fit into `room` bytes is left out, and TC says so.

    Clients that never ask over TCP (musl before 1.2.4) use the records that did fit.
    """
    flags = _QR | (query.flags & (_COPIED | 0x7800)) | (_RA if recursive else 0) | (body.rcode & 0xF)
    flags |= _AA if body.ours else 0
    opt = _opt(query, body.rcode)
    fixed = _HEADER.size + len(query.question) + len(opt)
    data, records, authority, additional = body.data, len(body.ends), body.authority, body.additional
    if fixed + len(data) > room or not body.whole:
        last = body.ends[-1] if body.ends else 0
        ends = [end for end in body.ends if fixed + end <= room]
        data, authority, additional = data[: ends[-1] if ends else 0], 0, 0
        records = len(ends)
        # Without what is only helpful an answer is whole.
        if not body.whole or (ends[-1] if ends else 0) != last or body.authority:
            flags |= _TC
    header = _HEADER.pack(
        query.id, flags, 1 if query.question else 0, records, authority, additional + (1 if opt else 0)
    )
    return b"".join((header, query.question, data, opt))


def _opt(query: Query, rcode: int) -> bytes:
    if not query.payload:
        return b""
    return _OPT.pack(0, _OPT_TYPE, PAYLOAD, rcode >> 4, 0, _DO if query.do else 0, 0)


def error_body(rcode: int) -> Body:
    """An answer that is only a code."""
    return Body(rcode, ours=False)


def encode(query: Query, answer: Answer) -> Body:
    """Spell an answer as what follows a query's question.

    Raises:
        dns.exception.DNSException: a name in it is longer than names may be.

    """
    writer = _Writer(query)
    for record in answer.records:
        writer.add(dns.renderer.ANSWER, _name(record.owner), _rdataset(record))
    ends = tuple(writer.ends)
    for record in answer.authority:
        writer.add(dns.renderer.AUTHORITY, _name(record.owner), _rdataset(record))
    authority = len(writer.ends) - len(ends)
    for record in answer.additional:
        writer.add(dns.renderer.ADDITIONAL, _name(record.owner), _rdataset(record))
    rcode = NXDOMAIN if answer.outcome == "NXDOMAIN" else NOERROR
    additional = len(writer.ends) - len(ends) - authority
    whole = len(ends) == len(answer.records)
    return Body(rcode, writer.data, ends, authority, additional, whole)


def extended(query: Query, answer: Answer, response: bytes) -> Body:
    """Spell an answer together with what somebody else said of the name where it leads.

    Raises:
        dns.exception.DNSException: what was said cannot be read.

    """
    message = dns.message.from_wire(response)
    writer = _Writer(query)
    for record in answer.records:
        writer.add(dns.renderer.ANSWER, _name(record.owner), _rdataset(record))
    for found in message.answer:
        if found.rdtype != dns.rdatatype.OPT:
            for rdata in found:
                writer.add(dns.renderer.ANSWER, found.name, dns.rdataset.from_rdata(found.ttl, rdata))
    return Body(int(message.rcode()), writer.data, tuple(writer.ends), whole=not writer.full, ours=False)


class _Writer:
    """Records one after the other, until the message is full."""

    def __init__(self, query: Query) -> None:
        # Room for our OPT, which comes last.
        self._renderer = dns.renderer.Renderer(0, 0, LARGEST - _OPT.size)
        labels = [label.encode("latin-1") for label in query.name]
        self._renderer.add_question(dns.name.Name((*labels, b"")), dns.rdatatype.RdataType.make(query.type), _IN_CLASS)
        self._start = self._renderer.output.tell()
        self.ends: list[int] = []
        self.full = False

    def add(self, section: int, owner: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> None:
        if self.full:
            return
        try:
            self._renderer.add_rdataset(section, owner, rdataset)
        except dns.exception.TooBig:
            self.full = True
        else:
            self.ends.append(self._renderer.output.tell() - self._start)

    @property
    def data(self) -> bytes:
        return bytes(self._renderer.get_wire()[self._start :])


def _name(labels: Name) -> dns.name.Name:
    return dns.name.Name((*(label.encode("latin-1") for label in labels), b""))


def _rdataset(record: Record) -> dns.rdataset.Rdataset:
    return dns.rdataset.from_rdata(record.ttl, _rdata(record))


def _rdata(record: Record) -> dns.rdata.Rdata:
    kind, data = dns.rdatatype.from_text(record.type), record.data
    match data:
        case Srv():
            return dns.rdtypes.IN.SRV.SRV(_IN_CLASS, kind, data.priority, data.weight, data.port, _name(data.target))
        case Soa():
            numbers = (data.serial, data.refresh, data.retry, data.expire, data.minimum)
            return dns.rdtypes.ANY.SOA.SOA(_IN_CLASS, kind, _name(data.server), _name(data.mailbox), *numbers)
        case tuple():
            if record.type == "CNAME":
                return dns.rdtypes.ANY.CNAME.CNAME(_IN_CLASS, kind, _name(data))
            if record.type == "NS":
                return dns.rdtypes.ANY.NS.NS(_IN_CLASS, kind, _name(data))
            return dns.rdtypes.ANY.PTR.PTR(_IN_CLASS, kind, _name(data))
    if record.type == "TXT":
        return dns.rdtypes.ANY.TXT.TXT(_IN_CLASS, kind, (data,))
    address = dns.rdtypes.IN.A.A if record.type == "A" else dns.rdtypes.IN.AAAA.AAAA
    return address(_IN_CLASS, kind, data)


def ask(ident: int, question: bytes, *, recurse: bool, edns: bool, do: bool, checking_disabled: bool = False) -> bytes:
    """Spell a query of our own for a question."""
    flags = (0x0100 if recurse else 0) | (0x0010 if checking_disabled else 0)
    opt = _OPT.pack(0, _OPT_TYPE, PAYLOAD, 0, 0, _DO if do else 0, 0) if edns else b""
    return _HEADER.pack(ident, flags, 1, 0, 0, 1 if edns else 0) + question + opt


def question_of(name: Name, kind: int) -> bytes:
    """Spell a question of class IN.

    Raises:
        dns.exception.DNSException: the name is longer than names may be.

    """
    wire = _name(name).to_wire()
    assert wire is not None
    return wire + _QUESTION.pack(kind, _IN)


def answers(response: bytes, ident: int, question: bytes) -> bool:
    """Tell whether a message is the response to a query of ours, and can be read as one."""
    if len(response) < _HEADER.size + len(question):
        return False
    found, flags, questions, _, _, _ = _HEADER.unpack_from(response)
    if found != ident or not flags & _QR or flags & 0x7800 or questions != 1:
        return False
    asked = response[_HEADER.size : _HEADER.size + len(question)]
    if asked[:-4].lower() != question[:-4].lower() or asked[-4:] != question[-4:]:
        return False
    try:
        dns.message.from_wire(response, ignore_trailing=bool(flags & _TC), raise_on_truncation=False)
    except Exception:  # noqa: BLE001 - whatever dnspython makes of garbage, it is no answer
        return False
    return True


def is_truncated(response: bytes) -> bool:
    """Tell whether the rest of a response is to be had over TCP."""
    return bool(response[2] & 0x02)


def rcode_of(response: bytes) -> int:
    """The code of a response, without EDNS' part of it."""
    return response[3] & 0x0F


def relayed(query: Query, response: bytes, room: int) -> bytes:
    """Give somebody else's response to who asked, cut to `room` bytes.

    AA stays as it was said; RA is set, since we ask on behalf of others.
    """
    question = query.question
    flags = int.from_bytes(response[2:4], "big") & ~_COPIED | (query.flags & _COPIED) | _RA
    if len(response) > room:
        opt = _opt(query, 0)
        return _HEADER.pack(query.id, flags | _TC, 1, 0, 0, 1 if opt else 0) + question + opt
    counts = response[4 : _HEADER.size]
    rest = response[_HEADER.size + len(question) :]
    return query.id.to_bytes(2, "big") + flags.to_bytes(2, "big") + counts + question + rest
