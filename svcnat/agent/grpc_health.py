"""One call of grpc.health.v1.Health/Check over a connection that is open already.

Source: the gRPC health checking protocol and "gRPC over HTTP/2"; messages are the kubelet's (``pkg/probe/grpc``). It is
spoken with h2, not with grpcio: that opens its sockets in threads of its own, which are in no namespace but the
process's. A request has one field and so has the answer, so that neither needs a protobuf library. What the server
writes into ``grpc-message`` is not repeated. TLS is not spoken, as by the kubelet.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from svcnat.agent.probes import WORKS, Outcome, fails

_MOST_READ = 64 * 1024
_FRAME_HEAD = 9
_SETTINGS = 4
_UNIMPLEMENTED = "12"
_SERVING = 1
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_FAILED = "error: health rpc probe failed"


async def check(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str, *, agent: str
) -> Outcome:
    """Ask a server for the health of a service ("" is the server itself); the connection is spent afterwards."""
    connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", agent),
    ]
    connection.send_headers(stream, headers)
    connection.send_data(stream, _request(service), end_stream=True)
    answer = _Answer()
    try:
        writer.write(connection.data_to_send())
        # h2 would wait for 5 MB after "HTTP/1.1", which begins like a long frame: no server begins with another frame.
        data = await reader.readexactly(_FRAME_HEAD)
        if data[3] != _SETTINGS:
            return fails(f"{_FAILED}: this is not HTTP/2")
        left = _MOST_READ
        while True:
            answer.take(connection.receive_data(data))
            if answer.ended:
                return answer.outcome()
            writer.write(connection.data_to_send())
            data = await reader.read(left)
            left -= len(data)
            if not data:
                return fails(f"{_FAILED}: the server {'closed the connection' if left else 'says too much'}")
    except asyncio.IncompleteReadError:
        return fails(f"{_FAILED}: the server closed the connection")
    except ProtocolError as error:
        return fails(f"{_FAILED}: the server breaks HTTP/2 ({type(error).__name__})")
    except OSError:
        return fails(f"{_FAILED}: the server reset the connection")


class _Answer:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self.ended = False
        self._http = ""
        self._grpc = ""
        self._body = bytearray()
        self._broken = ""

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case ResponseReceived() | TrailersReceived():
                    named = {_text(name): _text(value) for name, value in event.headers or ()}
                    self._http = named.get(":status", self._http)
                    self._grpc = named.get("grpc-status", self._grpc)
                case DataReceived():
                    self._body += event.data or b""
                case StreamEnded():
                    self._end("")
                case StreamReset():
                    self._end(f"the server reset the stream ({_code(event.error_code)})")
                case ConnectionTerminated():
                    self._end(f"the server went away ({_code(event.error_code)})")

    def _end(self, broken: str) -> None:
        if not self.ended:
            self.ended, self._broken = True, broken

    def outcome(self) -> Outcome:
        if self._grpc == _UNIMPLEMENTED:
            text = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
            return fails(f"error: {text}")
        if self._broken:
            return fails(f"{_FAILED}: {self._broken}")
        if self._http != "200" or self._grpc != "0":
            number = self._grpc if self._grpc.isascii() and self._grpc.isdigit() else "unknown"
            return fails(f"{_FAILED}: code {number[:3]}")
        status = _status(bytes(self._body))
        if status == _SERVING:
            return WORKS
        return fails(f'service unhealthy (responded with "{_STATUSES.get(status, "an unknown status")}")')


def _code(number: int | ErrorCodes | None) -> str:
    return number.name if isinstance(number, ErrorCodes) else "unknown"


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("ascii", errors="replace")


def _request(service: str) -> bytes:
    """A length-prefixed HealthCheckRequest; its only field is the service's name."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return struct.pack("!BI", 0, len(message)) + message


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _status(body: bytes) -> int:
    """The status of a length-prefixed HealthCheckResponse; -1 if that is not what it is.

    The message is empty (0, UNKNOWN) or one field; nobody has added another since 2015.
    """
    message = body[5:]
    if body[:1] != b"\0" or struct.pack("!I", len(message)) != body[1:5]:
        return -1
    if not message:
        return 0
    return message[1] if len(message) == 2 and message[0] == 0x08 else -1
