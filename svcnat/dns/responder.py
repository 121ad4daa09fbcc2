"""From a packet to its response: what names are answered with, what is refused, and who else is asked.

It has no socket: a server gives it packets and sends what it says. Encoded answers are kept until the records change.
"""

from __future__ import annotations

import logging

import dns.exception

from svcnat.dns import wire
from svcnat.dns.answers import Answer
from svcnat.dns.forwarding import Forwarder, ForwardingError
from svcnat.dns.records import Records
from svcnat.dns.wire import Body, Query

_MOST_KEPT = 10_000  # questions
_MOST_BYTES = 32 << 20
_MOST_TURNS = 16  # orders of an answer that are kept
_REVERSE = (b"\x07in-addr\x04arpa\x00", b"\x03ip6\x04arpa\x00")
_ANY = 255

_log = logging.getLogger(__name__)


class _Kept:
    """An answer, and its encodings in the orders in which it has been given."""

    __slots__ = ("answer", "bodies", "turn", "turns")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.turns = min(_MOST_TURNS, answer.turns)
        self.bodies: list[Body] = []
        self.turn = -1


class Responder:
    """Answers packets from records, or has others asked."""

    def __init__(self, records: Records, forwarder: Forwarder | None = None) -> None:
        self.records = records
        self._forwarder = forwarder
        self._kept: dict[bytes, _Kept] = {}
        self._bytes = 0
        self._serial = records.serial

    def respond(self, packet: bytes, *, stream: bool) -> bytes | Query | None:
        """The response to a packet, None if it gets none; or the query, if others must be asked: :meth:`complete`."""
        query = wire.parse(packet)
        if query is None:
            return None
        if query.error:
            return self._say(query, wire.error_body(query.error), stream=stream)
        if query.cls != 1 or query.type in wire.TRANSFERS:
            return self._say(query, wire.error_body(wire.REFUSED), stream=stream)
        if self._serial != self.records.serial:
            self._kept.clear()
            self._bytes, self._serial = 0, self.records.serial
        kept = self._kept.get(query.key)
        if kept is None:
            answer = self.records.answer(query.name, query.type_name)
            if answer is None:
                return self._not_ours(query, stream=stream)
            kept = _Kept(answer)
            if answer.elsewhere is None:
                self._keep(query.key, kept)
            elif self._has_upstreams():
                return query
        try:
            body = self._body(query, kept)
        except dns.exception.DNSException as error:
            _log.warning("an answer cannot be spelled: %s", error)
            body = wire.error_body(wire.SERVFAIL)
        return self._say(query, body, stream=stream)

    async def complete(self, query: Query, *, stream: bool) -> bytes:
        """The response to a query for which others must be asked."""
        assert self._forwarder
        answer = self.records.answer(query.name, query.type_name)
        body: Body
        try:
            if answer is None:
                response = await self._forwarder.ask(query)
                return wire.relayed(query, response, wire.LARGEST if stream else query.room)
            if answer.elsewhere is None:  # the records have changed meanwhile
                body = wire.encode(query, answer)
            else:
                response = await self._forwarder.ask(query, wire.question_of(answer.elsewhere, query.type))
                body = wire.extended(query, answer, response)
        except (ForwardingError, dns.exception.DNSException):
            body = wire.error_body(wire.SERVFAIL)
        return self._say(query, body, stream=stream)

    def busy(self, query: Query, *, stream: bool) -> bytes:
        """The response to a query for which there is no room."""
        return self._say(query, wire.error_body(wire.SERVFAIL), stream=stream)

    def _not_ours(self, query: Query, *, stream: bool) -> bytes | Query:
        if self._has_upstreams():
            return query
        # Nobody else knows the names of addresses here: a "no" is better than making clients wait and ask again.
        rcode = wire.NXDOMAIN if query.key[:-4].endswith(_REVERSE) else wire.SERVFAIL
        return self._say(query, wire.error_body(rcode), stream=stream)

    def _has_upstreams(self) -> bool:
        return self._forwarder is not None and bool(self._forwarder.upstreams())

    def _keep(self, key: bytes, kept: _Kept) -> None:
        if len(self._kept) >= _MOST_KEPT or self._bytes >= _MOST_BYTES:
            self._kept.clear()
            self._bytes = 0
        self._kept[key] = kept

    def _body(self, query: Query, kept: _Kept) -> Body:
        kept.turn = (kept.turn + 1) % kept.turns
        if kept.turn < len(kept.bodies):
            return kept.bodies[kept.turn]
        # Turns are given in order, so this is the next one. Few turns of many records are spread over them.
        body = wire.encode(query, kept.answer.turned(kept.turn * kept.answer.turns // kept.turns))
        kept.bodies.append(body)
        self._bytes += len(body.data)
        return body

    def _say(self, query: Query, body: Body, *, stream: bool) -> bytes:
        room = wire.LARGEST if stream else query.room
        return wire.respond(query, body, room, recursive=self._forwarder is not None)
