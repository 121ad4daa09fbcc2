"""Stand-ins and HTTP/2: gRPC health checks find them serving, and nobody who breaks the protocol stays connected."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

pytest.importorskip("h2")

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

from svcnat.lab import kubelet
from svcnat.lab.http2 import Http2
from svcnat.lab.labs import Lab
from tests.lab.conftest import BuildLab
from tests.lab.pods import PATIENCE, addresses, create, pod, read_all

LINE = b"web 10.244.0.2 saw 10.244.0.1 4711\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHECK = {":path": "/grpc.health.v1.Health/Check", "content-type": "application/grpc"}


class Browser:
    """A client that keeps what it was told."""

    def __init__(self) -> None:
        self.server = Http2(LINE)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.head: dict[str, str] = {}
        self.body = b""
        self.ended = False

    def ask(self, method: str = "POST", body: bytes = b"", **options: object) -> None:
        headers = {":method": method, ":scheme": "http", ":path": "/", ":authority": "web", **options.pop("head", {})}  # type: ignore[dict-item]
        stream = self.h2.get_next_available_stream_id()
        self.head, self.body, self.ended = {}, b"", False
        self.h2.send_headers(stream, list(headers.items()), end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.exchange()

    def exchange(self) -> None:
        while data := self.h2.data_to_send():
            answer, goes_on = self.server.receive(data)
            assert goes_on
            for event in self.h2.receive_data(answer):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    self.head |= dict(event.headers)  # type: ignore[arg-type]
                elif isinstance(event, DataReceived):
                    self.body += event.data or b""
                elif isinstance(event, StreamEnded):
                    self.ended = True


def test_what_clients_are_told() -> None:
    """Health checks: SERVING; other calls: UNIMPLEMENTED, with the line; no gRPC: the line. All on one connection."""
    browser = Browser()
    for _ in range(300):
        browser.ask(head=CHECK, body=b"\0\0\0\0\0")
        assert (browser.head["grpc-status"], browser.body, browser.ended) == ("0", b"\0\0\0\0\2\x08\1", True)
    browser.ask(head=CHECK | {":path": "/shop.Catalogue/List"}, body=b"\0\0\0\0\0")
    assert browser.head["grpc-status"] == "12"
    assert browser.head["grpc-message"] == LINE.decode().rstrip()
    browser.ask("GET")
    assert (browser.head[":status"], browser.body, browser.ended) == ("200", LINE, True)
    browser.ask("HEAD")
    assert (browser.head["content-length"], browser.body, browser.ended) == (str(len(LINE)), b"", True)
    for _ in range(10):
        browser.ask("POST", body=b"x" * 16_000)  # more than a window, if nobody opened it again
        assert browser.ended
    assert not browser.server.busy


def test_who_watches_hears_once() -> None:
    """A watch of a health that never changes has one answer, does not end, and keeps nobody waiting."""
    browser = Browser()
    browser.ask(head=CHECK | {":path": "/grpc.health.v1.Health/Watch"}, body=b"\0\0\0\0\0")
    assert (browser.body, browser.ended, browser.server.busy) == (b"\0\0\0\0\2\x08\1", False, False)


def test_what_is_not_asked_to_the_end_is_waited_for() -> None:
    """Until the client says that it is: or takes it back."""
    browser = Browser()
    browser.h2.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "web")])
    browser.exchange()
    assert browser.server.busy
    browser.h2.reset_stream(1)
    browser.exchange()
    assert not browser.server.busy


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        PREFACE + b"\0" * 100,
        PREFACE + b"\0\0\4\3\0\0\0\0\1\0\0\0\x08",
        PREFACE + b"\0\0\4\1\5\0\0\0\1\xff\xff\xff\xff",
    ],
    ids=["http-1", "zeros", "reset-of-nothing", "headers"],
)
def test_garbage_ends_the_conversation(garbage: bytes) -> None:
    """After a preface as well as instead of one."""
    assert Http2(LINE).receive(garbage)[1] is False


def test_a_client_without_room_for_a_line_is_left() -> None:
    """Its window is smaller than the answer: nobody waits for it."""
    server = Http2(LINE)
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
    client.send_headers(
        1, [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")], end_stream=True
    )
    assert server.receive(client.data_to_send())[1] is False


@pytest.fixture(scope="module")
def lab(module_labs: BuildLab) -> Lab:
    """One node and one pod, ``web``, which is asked from its node."""
    lab = module_labs()
    create(lab, pod("web"))
    kubelet.start(lab)
    return lab


def connect(lab: Lab) -> socket.socket:
    target = addresses(lab, "web")[0]
    return lab.run("node-1", lambda: socket.create_connection((target, 80), PATIENCE))


CLIENT = """
import sys, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "shop.Catalogue"):
        print(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status)
    print(next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)).status)
    try:
        channel.unary_unary("/shop.Catalogue/List")(b"", timeout=30)
    except grpc.RpcError as error:
        print(error.code().name, error.details().split()[0])
"""


@pytest.mark.packets
def test_the_real_client(lab: Lab) -> None:
    """Google's library over the wire finds every service SERVING, and learns from an error who answered."""
    pytest.importorskip("grpc_health")
    words = [sys.executable, "-c", CLIENT, f"{addresses(lab, 'web')[0]}:80"]
    done = lab.exec("node-1", words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout.splitlines() == ["1", "1", "1", "UNIMPLEMENTED web"], done.stderr


@pytest.mark.packets
def test_the_preface_may_come_in_any_pieces(lab: Lab) -> None:
    """Byte by byte it is not taken for a line of text; settings are the answer, and the end is polite."""
    with connect(lab) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PREFACE + b"\0\0\0\4\0\0\0\0\0":
            client.sendall(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        assert read_all_bytes(client)[3] == 4


@pytest.mark.packets
@pytest.mark.parametrize("said", ["PRI\n", "PRINT\n", "PRI * HTTP/2.1\r\n"])
def test_what_only_begins_like_a_preface(lab: Lab, said: str) -> None:
    """It is a line of text like any other."""
    with connect(lab) as client:
        client.sendall(said.encode())
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).startswith("web ")


def read_all_bytes(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(65536):
        data += part
    return data
