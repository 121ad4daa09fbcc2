"""One attempt of each kind against servers that answer well, badly, or not at all: what it says, and that it ends."""

from __future__ import annotations

import asyncio
import logging
import resource
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from svcnat.agent.attempts import Attempts, Ran, Runner
from svcnat.agent.prober import Prober
from svcnat.agent.probes import Key, Outcome, Probed, Result, fails, unclear
from svcnat.errors import LabError
from svcnat.kernel import netns
from svcnat.model.defaults import probe_with_defaults
from svcnat.model.objects import ExecAction, GRPCAction, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction
from tests.agent.listening import ADDRESSES, Pair, Serve, self_signed, sockets

pytestmark = pytest.mark.packets

KEY = Key("Pod", "default", "a", "main")


@pytest.fixture
def pair(make_netns: Callable[[], str]) -> Pair:
    return Pair(make_netns)


def probed(pair: Pair, address: str = ADDRESSES[0], **action: object) -> Probed:
    probe = probe_with_defaults(Probe(**action))  # type: ignore[arg-type]
    return Probed(KEY, probe, address, {"web": 80}, 80, pair.node)


def http(path: str = "", **fields: object) -> HTTPGetAction:
    return HTTPGetAction(path=path, **{"port": 80, **fields})  # type: ignore[arg-type]


def make(wanted: Probed, run: Runner | None = None, *, timeout: float = 30) -> Outcome | str:
    """The outcome of one attempt, or "timeout"; no socket and no task outlives it."""

    async def once() -> Outcome | str:
        attempts = Attempts(run)
        try:
            async with asyncio.timeout(timeout):
                return await attempts.make(wanted)
        except TimeoutError:
            return "timeout"
        finally:
            await attempts.close()

    return asyncio.run(once())


async def once(wanted: Probed, *, timeout: float = 30) -> Outcome | str:
    """The same within a running loop, where the servers are."""
    before, tasks = sockets(), asyncio.all_tasks()
    attempts = Attempts()
    try:
        async with asyncio.timeout(timeout):
            outcome: Outcome | str = await attempts.make(wanted)
    except TimeoutError:
        outcome = "timeout"
    finally:
        await attempts.close()
    for _ in range(3000):
        left = {each for each in asyncio.all_tasks() - tasks if "converse" not in repr(each)}
        # A server's own sockets go when it sees that its client has gone.
        if not left and sockets() <= before:
            return outcome
        await asyncio.sleep(0.01)
    raise AssertionError(f"left behind: {left} {sockets() - before}")


WARNED = "Probe terminated redirects"


def answering(pair: Pair, serve: Serve, wanted: Probed, *, timeout: float = 30, **how: object) -> Outcome | str:
    """The outcome of one attempt while a server of the pod behaves like `serve`."""

    async def run() -> Outcome | str:
        async with pair.serving(serve, **how):  # type: ignore[arg-type]
            return await once(wanted, timeout=timeout)

    return asyncio.run(run())


def saying(*parts: bytes, hold: bool = False) -> Serve:
    """A server that reads a request, says something, and hangs up, unless it is to hold the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        if hold:
            await reader.read()

    return serve


def status(number: int, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {number} Whatever", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("address", ADDRESSES)
def test_tcp(pair: Pair, address: str) -> None:
    """A connection is success; a refusal and an unreachable address are failures, in the kubelet's words."""
    wanted = probed(pair, address, tcp_socket=TCPSocketAction(port="web"))
    shown = f"[{address}]" if ":" in address else address
    assert make(wanted) == fails(f"dial tcp {shown}:80: connect: connection refused")
    with pair.listener(address, 80):
        assert make(wanted) == Outcome(success=True)
    other = probed(pair, "2001:db8::1" if ":" in address else "192.0.2.1", tcp_socket=TCPSocketAction(port=80))
    outcome = make(other)
    assert isinstance(outcome, Outcome)
    assert outcome.success is False
    assert outcome.message.endswith(": connect: network is unreachable")


def test_tcp_gives_up_at_the_timeout(pair: Pair) -> None:
    """Nobody answers at all: the attempt ends with its timeout, and its socket with it."""
    with netns.entered(pair.node), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.0.0.77", 1))  # nobody has that address; the neighbour is being looked for
    assert make(probed(pair, "10.0.0.77", tcp_socket=TCPSocketAction(port=80)), timeout=0.2) == "timeout"


def test_a_host_replaces_the_address(pair: Pair) -> None:
    """As an address of either family, or localhost, which is the node's; no name is resolved."""
    with pair.listener(ADDRESSES[1], 80):
        wanted = probed(pair, "10.0.0.9", tcp_socket=TCPSocketAction(port=80, host=ADDRESSES[1]))
        assert make(wanted) == Outcome(success=True)
    outcome = make(probed(pair, tcp_socket=TCPSocketAction(port=80, host="localhost")))
    assert isinstance(outcome, Outcome)
    assert outcome.message.startswith("dial tcp 127.0.0.1:80: ")
    assert make(probed(pair, tcp_socket=TCPSocketAction(port=80, host="example.com"))) == unclear(
        'the host "example.com" is no IP address, and probes resolve no names'
    )


def test_ports_that_are_not_there(pair: Pair) -> None:
    """A name that no container port has, an endpoint without a port: nobody can probe that."""
    assert make(probed(pair, tcp_socket=TCPSocketAction(port="admin"))) == unclear(
        'there is no port of the name "admin"'
    )
    bare = Probed(KEY, Probe(tcp_socket=TCPSocketAction()), ADDRESSES[0], netns=pair.node)
    assert make(bare) == unclear("the endpoint has no port to probe")
    assert make(Probed(KEY, Probe(), ADDRESSES[0])) == unclear("the probe has no handler")


def test_the_namespace_is_not_there(pair: Pair) -> None:
    """That says nothing about the endpoint."""
    for action in ({"tcp_socket": TCPSocketAction(port=80)}, {"http_get": http()}, {"grpc": GRPCAction(port=80)}):
        wanted = Probed(KEY, probe_with_defaults(Probe(**action)), ADDRESSES[0], netns="svcnat-test-nowhere")  # type: ignore[arg-type]
        outcome = make(wanted)
        assert outcome == unclear('network namespace "svcnat-test-nowhere" does not exist')


def test_no_file_is_left_to_open(pair: Pair) -> None:
    """A process that has too many files open does not blame the endpoint."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> Outcome:
        attempts, opened = Attempts(), []
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            while True:
                opened.append(Path("/dev/null").open())  # noqa: SIM115 - closed below
        except OSError:
            opened.pop().close()
            opened.pop().close()
        try:
            return await attempts.make(probed(pair, tcp_socket=TCPSocketAction(port=80)))
        finally:
            for each in opened:
                each.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    outcome = asyncio.run(run())
    assert outcome.success is None
    assert "too many open files" in outcome.message.lower()


# --- HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    ("number", "expected"),
    [(200, ""), (204, ""), (302, WARNED), (399, WARNED), (400, "400"), (404, "404"), (503, "503")],
)
def test_http_statuses(pair: Pair, address: str, number: int, expected: str) -> None:
    """200 to 399 is success; with a warning, if nobody follows where it leads."""
    message = f"HTTP probe failed with statuscode: {expected}"
    outcome = answering(pair, saying(status(number)), probed(pair, address, http_get=http()), address=address)
    assert outcome == (Outcome(success=True, message=expected) if number < 400 else fails(message))


def asked(pair: Pair, action: HTTPGetAction, address: str = ADDRESSES[0]) -> list[str]:
    """The lines of the request that a server gets."""
    lines: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.extend((await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n"))
        writer.write(status(200))

    assert answering(pair, serve, probed(pair, address, http_get=action), address=address) == Outcome(success=True)
    return lines


def test_what_http_asks(pair: Pair) -> None:
    """Path, query and headers as they are written, and the kubelet's own two; no compression is offered."""
    assert asked(pair, http()) == [
        "GET / HTTP/1.1",
        "Host: 10.0.0.2",
        "User-Agent: svcnat-probe",
        "Accept: */*",
        "Connection: close",
    ]
    headers = [HTTPHeader(name="X-A", value="1"), HTTPHeader(name="X-A", value="2"), HTTPHeader(name="Host", value="h")]
    first, *rest = asked(pair, http("live?full=%20&x", http_headers=headers), ADDRESSES[1])
    assert first == "GET /live?full=%20&x HTTP/1.1"
    assert sorted(each for each in rest if each.startswith(("X-A", "Host"))) == ["Host: h", "X-A: 1", "X-A: 2"]
    own = [HTTPHeader(name="user-agent", value="me"), HTTPHeader(name="Accept")]
    rest = asked(pair, http("/", http_headers=own))
    assert [each for each in rest if each.lower().startswith(("user-agent", "accept"))] == ["user-agent: me"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        ("?a=1", "/?a=1"),
        ("/a/../b/./%2e%2e//c", "/a/../b/./%2e%2e//c"),
        ("/%41%2fb?x=%2B&y=a+b&&z=%20", "/%41%2fb?x=%2B&y=a+b&&z=%20"),
        ("/a b?c=d e", "/a%20b?c=d%20e"),
        ("/%zz/50%", "/%25zz/50%25"),
        ("/x#fragment", "/x"),
        ("/ü?ß", "/%C3%BC?%C3%9F"),
        ('/"<>{}|^`\\', "/%22%3C%3E%7B%7D%7C%5E%60%5C"),
        ("/x HTTP/1.1\r\nEvil: 1\r\n\r\n\0", "/x%20HTTP/1.1%0D%0AEvil:%201%0D%0A%0D%0A%00"),
        ("/\ud800", "/%ED%A0%80"),
        ("//elsewhere/x", "//elsewhere/x"),
        ("http://elsewhere/x", "/http://elsewhere/x"),
        ("@elsewhere/x", "/@elsewhere/x"),
    ],
)
def test_paths_are_asked_for_as_they_are_written(pair: Pair, path: str, expected: str) -> None:
    """Dots, escapes and doubled slashes stay; what a request must not hold is escaped; no other host is asked."""
    first, *rest = asked(pair, http(path))
    assert first == f"GET {expected} HTTP/1.1"
    assert len(rest) == 4


def test_headers_that_a_request_cannot_have(pair: Pair) -> None:
    """Those that promise a body are left out, or the server would wait for one; an empty Host is the address."""
    headers = [("Content-Length", "5"), ("transfer-encoding", "chunked"), ("Trailer", "x"), ("Host", "")]
    found = asked(pair, http("/", http_headers=[HTTPHeader(name=name, value=value) for name, value in headers]))
    assert found == asked(pair, http("/"))


def test_a_long_header_is_well(pair: Pair) -> None:
    """Policies and cookies are longer than what a server would take of a client."""
    answer = status(200, f"Content-Security-Policy: {'x' * 32_000}")
    assert answering(pair, saying(answer), probed(pair, http_get=http())) == Outcome(success=True)


def test_https_is_not_verified(pair: Pair, tmp_path: Path) -> None:
    """A certificate that nobody signed, for another name, with a weak key; and plain HTTP where TLS was expected."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    tls = self_signed(tmp_path)
    wanted = probed(pair, http_get=http(scheme="HTTPS"))
    assert answering(pair, saying(status(200), hold=True), wanted, tls=tls) == Outcome(success=True)
    assert answering(pair, saying(status(500)), wanted, tls=tls) == fails("HTTP probe failed with statuscode: 500")

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" * 10)
        await reader.read()

    assert answering(pair, plain, wanted) == fails('Get "https://10.0.0.2:80/": tls: the handshake failed')

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)

    assert answering(pair, rude, wanted) == fails('Get "https://10.0.0.2:80/": EOF')

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert answering(pair, mute, wanted, timeout=0.2) == "timeout"
    assert answering(pair, saying(hold=True), wanted, timeout=0.3, tls=tls) == "timeout"


def redirecting(*locations: str) -> Serve:
    """A server that redirects /0 to the first, /1 to the second and so on, and has all other pages."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        page = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().lstrip("/")
        if page.isdecimal() and int(page) < len(locations):
            writer.write(status(302, f"Location: {locations[int(page)]}"))
        else:
            writer.write(status(200 if page == "good" else 500))

    return serve


@pytest.mark.parametrize(
    ("locations", "expected"),
    [
        (("/good",), ""),
        (("1", "http://10.0.0.2/good"), ""),
        (("/bad",), "HTTP probe failed with statuscode: 500"),
        (("http://192.0.2.1/bad",), WARNED),  # elsewhere: the kubelet is content with the redirect
        (("https://example.com/",), WARNED),
        (("mailto:somebody@example.com",), WARNED),
        (("/0",), "stopped after 10 redirects"),
        (("ftp://10.0.0.2/",), "HTTP probe was redirected to something that is not HTTP"),
        (("http://10.0.0.2:81/",), 'Get "http://10.0.0.2:80/0": dial tcp 10.0.0.2:80: connect: connection refused'),
        (("http://[x/",), 'Get "http://10.0.0.2:80/0": malformed HTTP response (ValueError)'),
    ],
)
def test_redirects(pair: Pair, locations: tuple[str, ...], expected: str) -> None:
    """Followed on the same host, a few times; a redirect to elsewhere is success with a warning; nobody goes there."""
    outcome = answering(pair, redirecting(*locations), probed(pair, http_get=http("/0")))
    assert outcome == (Outcome(success=True, message=expected) if expected in ("", WARNED) else fails(expected))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 1000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 \x1b[31m OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: \x1b[31m=\x07;;;\r\nbroken\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "zeros", "ssh", "escape", "length", "header", "long", "many", "short", "chunks"],
)
def test_garbage_is_a_failure(pair: Pair, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither believed nor repeated, in the message or in a log."""
    caplog.set_level(logging.DEBUG)
    outcome = answering(pair, saying(garbage), probed(pair, http_get=http()))
    assert isinstance(outcome, Outcome)
    assert outcome.success is False
    assert outcome.message.startswith('Get "http://10.0.0.2:80/": ')
    assert len(outcome.message) < 200
    for text in (outcome.message, *(record.getMessage() for record in caplog.records)):
        assert text.isprintable()


def test_cookies_of_an_endpoint_are_nobody_s(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """They are neither kept nor logged."""
    caplog.set_level(logging.DEBUG)
    bad = "Set-Cookie: a b\x07=\x1b[31m; Path=\x1b"
    outcome = answering(pair, saying(status(200, bad)), probed(pair, http_get=http()))
    assert outcome in (
        Outcome(success=True),
        fails('Get "http://10.0.0.2:80/": malformed HTTP response (ClientResponseError)'),
    )
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_a_body_without_end_is_not_read(pair: Pair) -> None:
    """The status counts; of the body no more is read than the kubelet would, compressed or not."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    assert answering(pair, endless, probed(pair, http_get=http())) == Outcome(success=True)


@pytest.mark.parametrize(
    ("begin", "repeated"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
    ids=["continue", "extension", "trailers"],
)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_what_is_no_body_has_an_end_too(
    pair: Pair, begin: bytes, repeated: bytes, secure: bool, tmp_path: Path
) -> None:
    """Of one attempt no more is received than so much, whatever the protocol lets a server say for ever."""
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.write(begin)
        for _ in range(20_000):  # tens of megabytes
            writer.write(repeated * 50)
            sent += len(repeated) * 50
            await writer.drain()

    tls = self_signed(tmp_path) if secure else None
    wanted = probed(pair, http_get=http(scheme="HTTPS" if secure else "HTTP"))
    outcome = answering(pair, endless, wanted, tls=tls)
    assert isinstance(outcome, Outcome)
    assert outcome.success is False
    assert outcome.message.startswith(f'Get "http{"s" * secure}://10.0.0.2:80/": ')
    if b"X" not in repeated:  # too many of those are a mistake before
        assert outcome.message.endswith(": the server sent more than 262144 bytes")
    assert sent < 19_000 * 50 * len(repeated)


def test_redirects_share_what_may_be_received(pair: Pair) -> None:
    """A chain of long heads counts as one attempt; a long head alone does not end it."""
    head = ["X-Long: " + "x" * 8000] * 4

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(status(302, "Location: /next", *head))
        await writer.drain()

    outcome = answering(pair, serve, probed(pair, http_get=http()))
    assert outcome == fails('Get "http://10.0.0.2:80/": the server sent more than 262144 bytes')
    assert answering(pair, saying(status(200, *head)), probed(pair, http_get=http())) == Outcome(success=True)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_long_page_is_well(pair: Pair, secure: bool, tmp_path: Path) -> None:
    """Its status counts, though it is longer than what would be received."""
    page = status(200, body="x" * 3_000_000)
    wanted = probed(pair, http_get=http(scheme="HTTPS" if secure else "HTTP"))
    tls = self_signed(tmp_path) if secure else None
    for _ in range(10):
        assert answering(pair, saying(page), wanted, tls=tls) == Outcome(success=True)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow"], ids=["head", "line", "body"]
)
def test_slow_answers_end_with_the_timeout(pair: Pair, said: bytes) -> None:
    """Before, amid and after the head; nothing is left of the connection."""
    wanted = probed(pair, http_get=http())
    assert answering(pair, saying(said, hold=True), wanted, timeout=0.2) == "timeout"


def test_a_reset_connection(pair: Pair) -> None:
    """It is a failure with the network's name for it."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    expected = fails('Get "http://10.0.0.2:80/": connection reset by peer')
    assert answering(pair, reset, probed(pair, http_get=http())) == expected


def test_http_refused(pair: Pair) -> None:
    """The kubelet's words, as for TCP."""
    assert make(probed(pair, http_get=http("/x"))) == fails(
        'Get "http://10.0.0.2:80/x": dial tcp 10.0.0.2:80: connect: connection refused'
    )


# --- exec ----------------------------------------------------------------------------------------------------


def running(result: Ran | Exception) -> Runner:
    async def run(key: Key, command: Sequence[str]) -> Ran:
        assert (key, list(command)) == (KEY, ["check", "it"])
        if isinstance(result, Exception):
            raise result
        return result

    return run


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Ran(0, b"ok"), Outcome(success=True)),
        (Ran(1, b"cat: no\nsuch \x1b[31m file\xff\n"), fails("cat: no such \\u001b[31m file\ufffd")),
        (Ran(7, b" \n"), fails("command exited with status 7")),
        (Ran(1, b"x" * 100_000), fails("x" * 300 + "...")),
        (FileNotFoundError(2, "x"), fails('cannot run "check": no such file or directory')),
        (LabError("the pod is gone"), unclear("the pod is gone")),
        (ValueError("embedded null byte"), unclear('"check" and its arguments are no command')),
    ],
)
def test_exec(pair: Pair, result: Ran | Exception, expected: Outcome) -> None:
    """The exit status counts; of the output one printable line is the message."""
    assert make(probed(pair, exec=ExecAction(command=["check", "it"])), running(result)) == expected


def test_exec_needs_somebody_who_can(pair: Pair) -> None:
    """Without a way to run commands in a container, nobody knows."""
    assert make(probed(pair, exec=ExecAction(command=["check"]))) == unclear(
        "exec probes run in labs only: no container can be entered here"
    )


# --- gRPC ----------------------------------------------------------------------------------------------------

GRPC_SERVER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(ThreadPoolExecutor(2))
servicer = health.HealthServicer()
if "bare" not in sys.argv:
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
servicer.set("down", health_pb2.HealthCheckResponse.NOT_SERVING)
servicer.set("long" * 100, health_pb2.HealthCheckResponse.SERVING)
for address in sys.argv[1:3]:
    assert server.add_insecure_port(address)
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop(None)
"""


async def with_grpc_server(pair: Pair, ask: Callable[[], Awaitable[None]], *how: str) -> None:
    with netns.entered(pair.pod):
        # Started here, it stays there; what is awaited comes later.
        server = subprocess.Popen(
            [sys.executable, "-c", GRPC_SERVER, "10.0.0.2:80", "[fd00::2]:80", *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with server:
        assert server.stdout
        assert await asyncio.to_thread(server.stdout.readline) == "ready\n"
        try:
            await ask()
        finally:
            assert server.stdin
            server.stdin.close()


def test_grpc_against_the_real_thing(pair: Pair) -> None:
    """Grpcio's own server and health service, in both families: serving, not serving, unknown, long names."""
    pytest.importorskip("grpc_health")
    pytest.importorskip("h2")
    cases = {
        "": Outcome(success=True),
        "long" * 100: Outcome(success=True),
        "down": fails('service unhealthy (responded with "NOT_SERVING")'),
        "nobody": fails("error: health rpc probe failed: code 5"),
    }

    async def ask() -> None:
        for service, expected in cases.items():
            for address in ADDRESSES:
                assert await once(probed(pair, address, grpc=GRPCAction(port=80, service=service))) == expected

    asyncio.run(with_grpc_server(pair, ask))


def test_grpc_without_the_health_service(pair: Pair) -> None:
    """The server says that it does not know the method."""
    pytest.importorskip("grpc_health")
    pytest.importorskip("h2")

    async def ask() -> None:
        assert await once(probed(pair, grpc=GRPCAction(port=80))) == fails(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        )

    asyncio.run(with_grpc_server(pair, ask, "bare"))


def raw(*parts: bytes, hold: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(24)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if hold:
            await reader.read()

    return serve


@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        (raw(), "the server closed the connection"),
        (raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10, hold=True), "this is not HTTP/2"),
        (raw(b"\0\0\0"), "the server closed the connection"),
        (raw(b"\0\0\0\4\0\0\0\0\0" + (b"\0\x40\0\x7f" + bytes(5 + 0x4000)) * 5, hold=True), "says too much"),
        (raw(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\1\5\0\0\0\1" * 2, hold=True), "the server breaks HTTP/2"),
        (raw(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\4\3\0\0\0\0\1\0\0\0\x08", hold=True), "reset the stream (CANCEL)"),
        (raw(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0\0\0\0\0\0\0\0\0", hold=True), "went away (NO_ERROR)"),
    ],
    ids=["nothing", "http", "little", "much", "frames", "reset", "goaway"],
)
def test_grpc_garbage(pair: Pair, serve: Serve, expected: str) -> None:
    """It is a failure, and nothing of it is repeated."""
    pytest.importorskip("h2")
    outcome = answering(pair, serve, probed(pair, grpc=GRPCAction(port=80)))
    assert isinstance(outcome, Outcome)
    assert outcome.success is False
    assert expected in outcome.message


def test_grpc_refused_and_silent(pair: Pair) -> None:
    """The kubelet's words; silence ends with the timeout."""
    pytest.importorskip("h2")
    wanted = probed(pair, grpc=GRPCAction(port=80))
    assert make(wanted) == fails('failed to connect service "10.0.0.2:80": connect: connection refused')
    assert answering(pair, raw(hold=True), wanted, timeout=0.2) == "timeout"


def test_libraries_that_are_not_there() -> None:
    """A probe without its library is not usable, and says what to install."""
    program = (
        "import asyncio, sys\n"
        "sys.modules |= dict.fromkeys(('aiohttp', 'h2', 'h2.config'))\n"
        "from svcnat.agent.attempts import Attempts\n"
        "from svcnat.agent.probes import Key, Probed\n"
        "from svcnat.model.objects import GRPCAction, HTTPGetAction, Probe\n"
        "for probe in (Probe(http_get=HTTPGetAction(port=1)), Probe(grpc=GRPCAction(port=1))):\n"
        "    print(asyncio.run(Attempts().make(Probed(Key('Pod', 'd', 'a', 'm'), probe, '127.0.0.1'))).message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "httpGet probes need the library aiohttp: pip install '.[agent]'",
        "grpc probes need the library h2: pip install '.[agent]'",
    ]


def test_a_prober_probes_for_real(pair: Pair) -> None:
    """The whole of it, in both families: one endpoint works, the other does not."""

    async def run() -> None:
        results: asyncio.Queue[tuple[str, bool, str]] = asyncio.Queue()

        async def report(result) -> None:
            await results.put((result.key.part, result.ready, result.message))

        probe = probe_with_defaults(Probe(tcp_socket=TCPSocketAction(), failure_threshold=1, timeout_seconds=30))
        with pair.listener(ADDRESSES[1], 80):
            async with Prober(report) as prober:
                await prober.update(
                    Probed(
                        Key("EndpointSlice", "default", "a", address),
                        probe,
                        address,
                        port=80,
                        netns=pair.node,
                    )
                    for address in ADDRESSES
                )
                found = {await results.get(), await results.get()}
        refused = "Readiness probe failed: dial tcp 10.0.0.2:80: connect: connection refused"
        assert found == {("10.0.0.2", False, refused), ("fd00::2", True, "")}

    before = sockets()
    asyncio.run(run())
    assert sockets() == before


def test_a_redirect_to_elsewhere_is_told_of_an_endpoint_that_is_ready(pair: Pair) -> None:
    """The result is a success, and worth a warning."""

    async def run() -> None:
        results: asyncio.Queue[Result] = asyncio.Queue()
        async with pair.serving(redirecting("http://192.0.2.1/")), Prober(results.put) as prober:
            await prober.update([probed(pair, http_get=http("/0"))])
            found = await results.get()
        assert found == Result(KEY, True, f"Readiness probe warning: {WARNED}", changed=True, reason="ProbeWarning")

    asyncio.run(run())
