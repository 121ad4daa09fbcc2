"""What a stand-in says to its clients: HTTP to those who speak HTTP, gRPC too, one line of text to everyone else.

The line is ``POD ADDRESS saw CLIENT_ADDRESS PORT``: the address that the request came to, and where it came from, so
that a client sees which pod it reached and whether its address was masqueraded on the way. Works on sockets that
others opened: nothing here knows of namespaces or of the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svcnat.lab.http2 import Http2  # imported when somebody speaks it: not every installation has the library

IDLE = 0.2
"""Seconds after which a TCP client that says nothing, or no whole line, gets its answer all the same."""

_LARGEST_HEAD = 64 * 1024
_REQUEST_LINE = re.compile(rb"([A-Z]+) \S+ HTTP/(1\.[01])\r?")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_HEADER = re.compile(rb"(?m)^([A-Za-z-]+):[ \t]*(.*?)[ \t]*\r?$")

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATAGRAMS_AT_ONCE = 64
_LARGEST_DATAGRAM = 65535
_IP_PKTINFO = 8  # the socket module does not have it
_IN_PKTINFO = struct.Struct("=i4s4s")
_IN6_PKTINFO = struct.Struct("=16si")
_LINK_LOCAL = b"\xfe\x80"

SocketAddress = tuple[Any, ...]


def line(pod: str, local: SocketAddress, peer: SocketAddress) -> bytes:
    """The answer to a request from `peer` that came to `local`; both as sockets have them, host first."""
    return f"{pod} {_host(local)} saw {_host(peer)} {peer[1]}\n".encode()


def _host(address: SocketAddress) -> str:
    host: str = address[0]
    return host.partition("%")[0]


@dataclass(frozen=True, slots=True)
class _Request:
    """What matters of an HTTP request's head."""

    bodiless: bool
    keep: bool
    length: int
    chunked: bool
    hesitant: bool  # the client waits for "100 Continue"

    @classmethod
    def parse(cls, method: bytes, version: bytes, head: bytes) -> _Request:
        """Read a head; ValueError when its length is no number."""
        headers = {name.lower(): value.lower() for name, value in _HEADER.findall(head)}
        connection = headers.get(b"connection", b"")
        return cls(
            bodiless=method == b"HEAD",
            keep=b"close" not in connection and (version == b"1.1" or b"keep-alive" in connection),
            length=_number(headers.get(b"content-length", b"0")),
            chunked=b"transfer-encoding" in headers,
            hesitant=headers.get(b"expect") == b"100-continue",
        )


def _number(text: bytes) -> int:
    if not text.isdigit():
        raise ValueError(text)
    return int(text[:18])


class Conversation(asyncio.Protocol):
    """One TCP (or SCTP) connection; it is in the set `others` while it lasts."""

    def __init__(self, pod: str, others: set[Conversation]) -> None:
        self._pod = pod
        self._others = others
        self._buffer = bytearray()
        self._request: _Request | None = None  # its body is not complete
        self._unread = 0
        self._deaf = False
        self._spoken = False
        self._timer: asyncio.TimerHandle | None = None
        self._http2: Http2 | None = None

    @property
    def busy(self) -> bool:
        """True if the client has asked, or may be about to ask, and has no answer."""
        if self._http2:
            return self._http2.busy
        return bool(self._buffer or self._request) or not self._spoken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client speak first."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        if peer is None:
            self._transport.abort()  # it was gone before it was accepted
            return
        self._line = line(self._pod, transport.get_extra_info("sockname"), peer)
        self._others.add(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection."""
        self._stop_waiting()
        self._others.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._stop_waiting()
        if self._deaf:
            return
        if self._http2:
            self._go_on(self._http2, data)
            return
        self._buffer += data
        if self._buffer.startswith(_PREFACE):
            self._turn_to_http2()
            return
        while self._take():
            pass
        if len(self._buffer) > _LARGEST_HEAD:
            self.hang_up()
        elif self._buffer and not self._speaks_http():
            self._wait()

    def eof_received(self) -> None:
        """Answer what there is, then close, which is what asyncio does when this returns nothing."""
        self._stop_waiting()
        if not self._http2 and not self._speaks_http() and (self._buffer or not self._spoken):
            self._say(self._line)

    def pause_writing(self) -> None:
        """Read no more requests from a client that does not read the answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        self._transport.resume_reading()

    def hang_up(self) -> None:
        """Close the connection after what is written."""
        if self._http2 and not self._transport.is_closing():
            self._transport.write(self._http2.end())
        self._transport.close()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(IDLE, self._fill_silence)

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _fill_silence(self) -> None:
        silent = not self._spoken and not self._buffer
        self._buffer.clear()
        self._say(self._line)
        if silent:
            self.hang_up()  # it reads until we close: that is all it wants

    def _speaks_http(self) -> bool:
        first, _, _ = self._buffer.partition(b"\n")
        return self._request is not None or self._begins_http2() or _REQUEST_LINE.fullmatch(first) is not None

    def _begins_http2(self) -> bool:
        return self._buffer.startswith(b"PRI ") and _PREFACE.startswith(self._buffer)

    def _turn_to_http2(self) -> None:
        """Speak HTTP/2 from here on, or end: where its library is missing, nobody could be answered."""
        try:
            from svcnat.lab.http2 import Http2
        except ImportError:
            self.hang_up()
            return
        self._http2, said = Http2(self._line), bytes(self._buffer)
        self._buffer.clear()
        self._go_on(self._http2, said)

    def _go_on(self, http2: Http2, data: bytes) -> None:
        answer, goes_on = http2.receive(data)
        self._transport.write(answer)
        if not goes_on:
            self._transport.close()

    def _take(self) -> bool:
        """Take one request off the buffer and answer it; False if none is complete."""
        if self._request:
            return self._take_body(self._request)
        first, newline, _ = self._buffer.partition(b"\n")
        if not newline or self._begins_http2():
            return False
        start = _REQUEST_LINE.fullmatch(first)
        if not start:
            del self._buffer[: len(first) + 1]
            self._say(self._line)
            return True
        end = _HEAD_END.search(self._buffer)
        if not end:
            return False
        try:
            self._request = _Request.parse(start[1], start[2], bytes(self._buffer[: end.end()]))
        except ValueError:
            self._refuse()
            return False
        del self._buffer[: end.end()]
        self._unread = self._request.length
        if self._request.hesitant:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take_body(self, request: _Request) -> bool:
        taken = min(self._unread, len(self._buffer))
        del self._buffer[:taken]
        self._unread -= taken
        if self._unread:
            return False
        self._request = None
        keep = request.keep and not request.chunked
        self._say(_response("200 OK", self._line, keep=keep, bodiless=request.bodiless))
        if request.chunked:
            self._fall_deaf()  # closing with a body unread would reset the connection under the answer
        elif not keep:
            self.hang_up()
        return keep

    def _refuse(self) -> None:
        self._say(_response("400 Bad Request", b"Content-Length is no number\n", keep=False, bodiless=False))
        self._fall_deaf()

    def _fall_deaf(self) -> None:
        self._deaf = True
        self._buffer.clear()
        self._transport.write_eof()

    def _say(self, answer: bytes) -> None:
        self._spoken = True
        self._transport.write(answer)


def _response(status: str, body: bytes, *, keep: bool, bodiless: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + (b"" if bodiless else body)


def open_datagrams(family: socket.AddressFamily, port: int) -> socket.socket:
    """A UDP socket on every address of the calling thread's namespace, for :func:`answer_datagrams`.

    Raises:
        OSError: the port is in use.

    """
    server = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        server.bind(("", port))
    except OSError:
        server.close()
        raise
    return server


def answer_datagrams(server: socket.socket, pod: str) -> None:
    """Answer the datagrams that wait, each from the address that it came to (a socket on all would choose)."""
    for _ in range(_DATAGRAMS_AT_ONCE):
        try:
            _, ancillary, _, peer = server.recvmsg(_LARGEST_DATAGRAM, 256)
        except OSError:
            return
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                _, local, _ = _IN_PKTINFO.unpack(data)
                reply = _IN_PKTINFO.pack(0, local, bytes(4))
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                local, index = _IN6_PKTINFO.unpack(data)
                reply = _IN6_PKTINFO.pack(local, index if local.startswith(_LINK_LOCAL) else 0)
            else:
                continue
            answer = line(pod, (socket.inet_ntop(server.family, local),), peer)
            # A reply that cannot be sent is a reply lost: what UDP promises.
            with contextlib.suppress(OSError):
                server.sendmsg([answer], [(level, kind, reply)], 0, peer)
