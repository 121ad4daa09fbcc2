"""A server of other names, in a thread, that answers as its questions' first label says.

``plain``: an address. ``big``: too much for UDP. ``silent``: nothing. ``forged``: wrong answers first, from a wrong
number, with a wrong question and with garbage, then the right one. ``broken``: SERVFAIL. ``missing``: NXDOMAIN.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from svcnat.kernel import netns


class Upstream:
    """What was asked, and from which ports and with which numbers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.numbers: list[int] = []
        self.ports: list[int] = []

    def replies(self, packet: bytes, *, stream: bool) -> list[bytes]:
        query = dns.message.from_wire(packet)
        name, kind = query.question[0].name, query.question[0].rdtype
        word = name.labels[0].decode().lower()
        self.asked.append((word, "TCP" if stream else "UDP"))
        self.numbers.append(query.id)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        count = 200 if word == "big" else 1
        if word == "silent":
            return []
        if word == "broken":
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif word == "missing":
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif kind == 1:
            texts = [f"192.0.2.{n + 1}" for n in range(count)]
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *texts))
        if word == "big" and not stream:
            reply.answer, reply.flags = [], reply.flags | dns.flags.TC
        wire = reply.to_wire(max_size=65535)
        if word == "forged":
            other = dns.message.make_response(dns.message.make_query("other.example.com", "A", id=query.id)).to_wire()
            wrong = (query.id ^ 1).to_bytes(2, "big") + wire[2:]
            return [wrong, other, b"", wire[:2], wire[: len(wire) - 3], packet, wire]
        return [wire]


@contextlib.contextmanager
def upstream(where: str, address: str = "127.0.0.9") -> Iterator[Upstream]:
    """Answer in a namespace at that address, port 53."""
    with netns.entered(where):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found, ending = Upstream(), threading.Event()
    udp.bind((address, 53))
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((address, 53))
    tcp.listen()

    def work() -> None:
        with selectors.DefaultSelector() as selector:
            for each in (udp, tcp):
                selector.register(each, selectors.EVENT_READ)
            while not ending.is_set():
                for key, _ in selector.select(0.05):
                    if key.fileobj is udp:
                        packet, client = udp.recvfrom(4096)
                        found.ports.append(client[1])
                        for reply in found.replies(packet, stream=False):
                            udp.sendto(reply, client)
                    else:
                        connection, _ = tcp.accept()
                        with connection:
                            packet = connection.recv(4096)[2:]
                            for reply in found.replies(packet, stream=True):
                                connection.sendall(len(reply).to_bytes(2, "big") + reply)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        ending.set()
        thread.join()
        udp.close()
        tcp.close()
