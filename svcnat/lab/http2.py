"""What a stand-in says to clients that speak HTTP/2 without TLS: gRPC's, above all.

A health check (grpc.health.v1, Check and Watch) finds every service SERVING; any other call is UNIMPLEMENTED, with the
stand-in's line as message; whoever does not speak gRPC gets the line as text. It opens no socket: bytes in, bytes out.
Source: "gRPC over HTTP/2" and the gRPC health checking protocol.
"""

from __future__ import annotations

import urllib.parse

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

_SERVING = b"\0\0\0\0\2\x08\1"  # a message of two bytes: field 1, SERVING
_UNIMPLEMENTED = "12"
_HEALTH = "/grpc.health.v1.Health/"
_PATH, _TYPE = b":path", b"content-type"


class Http2:
    """One connection; `line` is what the stand-in has to say."""

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._connection.initiate_connection()
        self._asked: dict[int, dict[bytes, bytes]] = {}

    @property
    def busy(self) -> bool:
        """True if a client has asked, and has no answer."""
        return bool(self._asked)

    def receive(self, data: bytes) -> tuple[bytes, bool]:
        """What to send, and whether the conversation goes on."""
        try:
            for event in self._connection.receive_data(data):
                self._take(event)
        except ProtocolError:  # the client's mistake, or a window that has no room for a line
            return self._connection.data_to_send(), False
        return self._connection.data_to_send(), True

    def end(self) -> bytes:
        """What to send before hanging up."""
        self._connection.close_connection()
        return self._connection.data_to_send()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream)):
                self._asked[stream] = dict(event.headers or ())
            case DataReceived(stream_id=int(stream)) if event.flow_controlled_length:
                self._connection.acknowledge_received_data(event.flow_controlled_length, stream)
            case StreamEnded(stream_id=int(stream)) if asked := self._asked.pop(stream, None):
                self._answer(stream, asked)
            case StreamReset(stream_id=int(stream)):
                self._asked.pop(stream, None)

    def _answer(self, stream: int, asked: dict[bytes, bytes]) -> None:
        send = self._connection
        if not asked.get(_TYPE, b"").startswith(b"application/grpc"):
            length = str(len(self._line))
            head = [(":status", "200"), ("content-type", "text/plain; charset=utf-8"), ("content-length", length)]
            bodiless = asked.get(b":method") == b"HEAD"
            send.send_headers(stream, head, end_stream=bodiless)
            if not bodiless:
                send.send_data(stream, self._line, end_stream=True)
            return
        head = [(":status", "200"), ("content-type", "application/grpc")]
        service, _, method = asked.get(_PATH, b"").decode("ascii", errors="replace").rpartition("/")
        if f"{service}/" != _HEALTH or method not in ("Check", "Watch"):
            said = urllib.parse.quote(self._line.decode().rstrip(), safe=" :/")
            send.send_headers(stream, [*head, ("grpc-status", _UNIMPLEMENTED), ("grpc-message", said)], end_stream=True)
            return
        send.send_headers(stream, head)
        send.send_data(stream, _SERVING)
        if method == "Check":  # a watch goes on, and nothing ever changes
            send.send_headers(stream, [("grpc-status", "0")], end_stream=True)
