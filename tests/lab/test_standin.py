"""Stand-in servers: HTTP to those who speak it, a line to all others, and nothing left when they close."""

from __future__ import annotations

import http.client
import os
import select
import socket
import threading
from pathlib import Path

import pytest

from svcnat.errors import LabError
from svcnat.lab import kubelet, process, state
from svcnat.lab.control import Control, Port, StandIn
from svcnat.lab.labs import Lab
from tests.lab.conftest import BuildLab
from tests.lab.pods import PATIENCE, addresses, ask_tcp, ask_udp, create, pod, read_all

pytestmark = pytest.mark.packets


@pytest.fixture(scope="module")
def lab(module_labs: BuildLab) -> Lab:
    """One node and one pod, ``web``, which is asked from its node."""
    lab = module_labs()
    create(lab, pod("web"))
    kubelet.start(lab)
    return lab


def connect(lab: Lab, port: int = 80) -> socket.socket:
    """A connection from the node to the pod."""
    target = addresses(lab, "web")[0]
    return lab.run("node-1", lambda: socket.create_connection((target, port), PATIENCE))


def line(lab: Lab, client: socket.socket) -> str:
    """The answer that belongs to a connection."""
    host, port = client.getsockname()
    return f"web {addresses(lab, 'web')[0]} saw {host} {port}\n"


def read_exactly(client: socket.socket, size: int) -> str:
    """The next `size` bytes."""
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        assert part, data
        data += part
    return data.decode()


def response(body: str, *, keep: bool, bodiless: bool = False) -> str:
    """An HTTP response."""
    connection = "keep-alive" if keep else "close"
    head = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: {connection}"
    return f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{'' if bodiless else body}"


def test_a_silent_client_gets_its_line_without_asking(lab: Lab) -> None:
    """A raw client that only reads has the line after a moment, and then the end."""
    with connect(lab) as client:
        assert read_all(client) == line(lab, client)


@pytest.mark.parametrize("say", [b"", b"half a line", b"\x16\x03\x01\x00\xa5\xff"])
def test_a_client_that_has_said_all_gets_one_line(lab: Lab, say: bytes) -> None:
    """Half-closing asks, whatever was said before."""
    with connect(lab) as client:
        client.sendall(say)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == line(lab, client)


def test_every_line_is_answered_and_the_connection_stays(lab: Lab) -> None:
    """A client may hold one connection and ask again and again; a line that never ends is answered, too."""
    with connect(lab) as client:
        answer = line(lab, client)
        client.sendall(b"one\ntwo\n")
        assert read_exactly(client, 2 * len(answer)) == answer * 2
        for say in (b"no end", b"still here\n"):
            client.sendall(say)
            assert read_exactly(client, len(answer)) == answer


def test_http_keeps_the_connection_alive(lab: Lab) -> None:
    """GET, HEAD and POST on one connection, told apart by Content-Length, as browsers and curl do."""
    with connect(lab) as client:
        connection = http.client.HTTPConnection("web")
        connection.sock = client
        for method, body in (("GET", None), ("POST", b"x" * 200_000), ("HEAD", None), ("GET", None)):
            connection.request(method, "/a/path?query", body=body, headers={"Host": "web"})
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read().decode() == ("" if method == "HEAD" else line(lab, client))


def test_http_requests_may_come_in_any_pieces(lab: Lab) -> None:
    """Two requests in one packet, and one request in many, are each answered once."""
    with connect(lab) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\n\n")
        for byte in b"POST / HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc":
            client.sendall(bytes([byte]))
        body = line(lab, client)
        expected = response(body, keep=True) + response(body, keep=True, bodiless=True) + response(body, keep=False)
        assert read_all(client) == expected


@pytest.mark.parametrize(
    "request_text",
    ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"],
    ids=["http-1.0", "connection-close"],
)
def test_http_closes_when_the_client_wants(lab: Lab, request_text: str) -> None:
    """HTTP/1.0 and Connection: close end after one answer."""
    with connect(lab) as client:
        client.sendall(request_text.encode())
        assert read_all(client) == response(line(lab, client), keep=False)


def test_bodies_without_a_length_do_not_break_the_answer(lab: Lab) -> None:
    """A chunked body is not parsed, but the answer arrives whole; a length that is no number is a bad request."""
    with connect(lab) as client:
        client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")
        assert read_all(client) == response(line(lab, client), keep=False)
    for length in (b"-1", b"many", b"1e3"):
        with connect(lab) as client:
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\nabc")
            assert read_all(client).startswith("HTTP/1.1 400 Bad Request\r\n")


def test_a_client_that_expects_100_continue_gets_it(lab: Lab) -> None:
    """Curl waits for it before a large body."""
    with connect(lab) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        interim = "HTTP/1.1 100 Continue\r\n\r\n"
        assert read_exactly(client, len(interim)) == interim
        client.sendall(b"abc")
        assert read_all(client) == response(line(lab, client), keep=False)


def test_endless_heads_are_cut_off(lab: Lab) -> None:
    """A client cannot fill the memory with a header that never ends."""
    with connect(lab) as client, pytest.raises(ConnectionError):
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (40 << 20))


def test_a_client_that_never_reads_stops_being_read(lab: Lab) -> None:
    """Pipelined requests whose answers nobody takes are held back by TCP, not kept in memory."""
    with connect(lab) as client:
        client.setblocking(False)
        while select.select([], [client], [], 0.5)[1]:
            client.send(b"GET / HTTP/1.1\r\n\r\n" * 1000)
    pid = running(lab).pid
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert resident < 200 << 20
    assert lab.run("node-1", lambda: ask_tcp(addresses(lab, "web")[0])).startswith("web ")


def test_udp_answers_come_from_the_address_that_was_asked(lab: Lab) -> None:
    """A second address of the pod answers as itself, although the kernel would choose another."""
    # Without nodad the kernel makes an IPv6 address usable a little later, even on lo.
    for family, extra, *flags in (("-4", "198.51.100.7/32"), ("-6", "2001:db8:77::7/128", "nodad")):
        lab.exec("web", ["ip", family, "address", "add", extra, "dev", "lo", *flags])
        address = extra.partition("/")[0]
        assert lab.run("web", lambda address=address: ask_udp(address)).startswith(f"web {address} saw ")  # type: ignore[misc]
        lab.exec("web", ["ip", family, "address", "del", extra, "dev", "lo"])


def test_many_clients_at_once(lab: Lab) -> None:
    """Five hundred connections open at the same time are all answered, each with its own line."""
    target = addresses(lab, "web")[0]

    def ask_all() -> None:
        clients = [socket.create_connection((target, 80), PATIENCE) for _ in range(500)]
        for client in clients:
            client.sendall(b"now\n")
        for client in clients:
            with client:
                assert client.recv(4096).decode() == line(lab, client)

    lab.run("node-1", ask_all)


def running(lab: Lab) -> process.ProcessId:
    """The lab's stand-in process."""
    found = state.read(lab.folder).standin
    assert found is not None
    return found


def test_ports_that_cannot_be_opened_are_reported(lab: Lab) -> None:
    """A port that is in use is named, the pod's other ports are served."""
    web = str(lab.netns_of("web"))
    ports = (Port("TCP", 80), Port("UDP", 53), Port("TCP", 8080), Port("TCP", 8080))
    with Control(lab.folder) as control:
        failures = control.open([StandIn("twin", web, "twin", ports)])
        assert failures == {
            "twin": (
                "port 80/TCP: Address already in use",
                "port 53/UDP: Address already in use",
                "port 8080/TCP: Address already in use",
            )
        }
        target = addresses(lab, "web")[0]
        assert lab.run("node-1", lambda: ask_tcp(target, 8080)).startswith("twin ")
        control.close_pods(["twin"])
        with pytest.raises(ConnectionRefusedError):
            lab.run("node-1", lambda: ask_tcp(target, 8080))


def test_requests_that_make_no_sense_are_refused(lab: Lab) -> None:
    """A namespace that does not exist is an answer, not the end of the process; nor is noise."""
    with Control(lab.folder) as control:
        with pytest.raises(LabError, match='"/run/netns/svcnat-nowhere" does not exist'):
            control.open([StandIn("x", "/run/netns/svcnat-nowhere", "x", (Port("TCP", 80),))])
        control._socket.send(b"noise")
        assert b"error" in control._socket.recv(4096)
        assert len(control.served()) == 1


def test_closing_a_pod_lets_requests_in_hand_finish(build_lab: BuildLab) -> None:
    """Connections made before are answered, those that idle between requests are closed, and no new one is made."""
    lab = build_lab()
    create(lab, pod("web"))
    kubelet.start(lab)
    with connect(lab) as waiting, connect(lab) as idle:
        idle.sendall(b"done\n")
        assert idle.recv(4096).decode() == line(lab, idle)
        (started,) = state.read(lab.folder).pods.values()
        answers: list[str] = []
        reading = threading.Thread(target=lambda: answers.append(read_all(waiting)))
        reading.start()
        with Control(lab.folder) as control:
            control.close_pods([started.device])
        reading.join()
        assert answers == [line(lab, waiting)]
        assert idle.recv(4096) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(lab)


def test_the_process_ends_with_its_lab_s_folder(build_lab: BuildLab) -> None:
    """A lab whose files were removed by hand leaves no process behind."""
    lab = build_lab()
    with os.fdopen(os.pidfd_open(running(lab).pid)) as pidfd:
        (lab.folder / "standin.sock").unlink()
        assert select.select([pidfd], [], [], 30)[0]
