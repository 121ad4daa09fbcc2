"""Network namespaces with listeners and probes that say where a flow went; a bed of one node, six pods and a client.

The address plan of the bed, which golden cases rely on::

    pod-1 .. pod-6   10.244.0.1 .. 10.244.0.6    fd00:10:244::1 .. ::6     behind the node, routed veth pairs
    node             172.30.0.11                 fd00:172:30::b
    client           192.0.2.10                  2001:db8:c::10            on the node's other side

Every pod answers on every port that is probed. A probe sends one flow and reports what its sender and the pods saw.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from svcnat.kernel import netns, sysctl
from svcnat.kernel.links import Device, Route, Veth, build

PODS = tuple(f"pod-{n}" for n in range(1, 7))
ADDRESSES = {
    **{name: (f"10.244.0.{n}", f"fd00:10:244::{n}") for n, name in enumerate(PODS, 1)},
    "node": ("172.30.0.11", "fd00:172:30::b"),
    "client": ("192.0.2.10", "2001:db8:c::10"),
}
NODE_ADDRESSES = {*ADDRESSES["node"], "192.0.2.1", "2001:db8:c::1", "169.254.1.1"}

PATIENCE = 2.0  # seconds for an answer that should come
_SILENCE = 0.25  # seconds without any answer that mean "dropped"
_SCTP = 132
_TYPES = {"TCP": (socket.SOCK_STREAM, 0), "UDP": (socket.SOCK_DGRAM, 0), "SCTP": (socket.SOCK_RAW, _SCTP)}


@dataclass(frozen=True)
class Seen:
    """How a flow ended: ``what`` is reached, refused or silence; then the pod, its port and the source that it saw.

    ``moved``: the pod saw another source port than the sender's, which is what a masqueraded flow looks like even where
    its address stays.
    """

    what: str
    pod: str = ""
    port: int = 0
    source: str = ""
    moved: bool = False


# One error a second at most is the kernel's default; a probe has to tell refusal from silence.
UNLIMITED = {"net/ipv4/icmp_ratelimit": 0, "net/ipv4/icmp_msgs_per_sec": 100000, "net/ipv6/icmp/ratelimit": 0}


class Ground:
    """Network namespaces by name, of which `servers`, given with their addresses, listen where it was needed so far."""

    def __init__(self, servers: dict[str, tuple[str, str]], prefix: str = "") -> None:
        self._prefix = prefix or f"svcnat-bed-{uuid.uuid4().hex[:8]}-"
        self._servers = servers
        self._listeners: dict[tuple[str, str, int, str], socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def netns(self, name: str) -> str:
        """The network namespace of a node, client or pod."""
        return self._prefix + name

    def close(self) -> None:
        """Close the sockets first: a namespace outlives its name while they are open."""
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()
        for name in netns.names():
            if name.startswith(self._prefix):
                netns.delete(name)

    def _build(self) -> None:
        raise NotImplementedError

    def listen(self, protocol: str, port: int, version: int) -> None:
        """Make every server answer on a port; SCTP, which this kernel may lack, on raw sockets and so on any port."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        kind, number = _TYPES[protocol]
        for pod, addresses in self._servers.items():
            key = (pod, protocol, 0 if protocol == "SCTP" else port, str(version))
            if key in self._listeners:
                continue
            with netns.entered(self.netns(pod)):
                listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, number)
            if protocol != "SCTP":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((addresses[version == 6], port))
            if protocol == "TCP":
                listener.listen(64)
            self._listeners[key] = listener
            self._selector.register(listener, selectors.EVENT_READ, key)

    def probe(
        self,
        source: str,
        destination: str,
        port: int,
        protocol: str = "TCP",
        *,
        patience: float = _SILENCE,
        bind: tuple[str, int] | None = None,
        answered: bool = True,
    ) -> Seen:
        """Send one flow from a pod, a node or a client, and say how it ended.

        Whoever expects an answer can afford `patience`; `bind` is the source's address and port, where they matter.
        A datagram need not be `answered` to have reached a pod.
        """
        family = socket.AF_INET6 if ":" in destination else socket.AF_INET
        kind, number = _TYPES[protocol]
        with netns.entered(self.netns(source)):
            sender = socket.socket(family, kind | socket.SOCK_NONBLOCK, number)
        with sender:
            if bind:
                sender.bind(bind)
            if protocol == "TCP":
                return self._probe_tcp(sender, destination, port, patience)
            return self._probe_datagram(sender, destination, port, protocol, patience, answered=answered)

    def accept(self) -> tuple[socket.socket, str, int, tuple[str, int]]:
        """The server's end of a TCP connection that was just made: socket, server's name and port, and who it sees."""
        for key, _ in self._selector.select(PATIENCE):
            pod, _, number, _ = key.data
            connection, peer = key.fileobj.accept()  # type: ignore[union-attr]
            return connection, pod, number, peer[:2]
        raise AssertionError("a connection was established that no pod accepted")

    def receive(self) -> str:
        """Answer one datagram that reached a server: which one it was, "" if none came."""
        for key, _ in self._selector.select(_SILENCE):
            _, peer = key.fileobj.recvfrom(2048)  # type: ignore[union-attr]
            key.fileobj.sendto(b"!", peer)  # type: ignore[union-attr]
            return str(key.data[0])
        return ""

    def _probe_tcp(self, sender: socket.socket, destination: str, port: int, patience: float) -> Seen:
        code = sender.connect_ex((destination, port))
        if code not in (0, errno.EINPROGRESS):
            return Seen("refused" if code in (errno.ECONNREFUSED, errno.EPERM) else "silence")
        with selectors.DefaultSelector() as waiting:
            waiting.register(sender, selectors.EVENT_WRITE)
            if not waiting.select(patience) and not waiting.select(patience):
                return Seen("silence")
        code = sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return Seen("refused" if code == errno.ECONNREFUSED else "silence")
        connection, pod, number, peer = self.accept()
        seen = Seen("reached", pod, number, peer[0], moved=peer[1] != sender.getsockname()[1])
        # By a reset of the client's: neither a socket nor conntrack waits for what is left of this flow when another
        # comes from the same port.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender.close()
        connection.close()
        return seen

    def _probe_datagram(
        self, sender: socket.socket, destination: str, port: int, protocol: str, patience: float, *, answered: bool
    ) -> Seen:
        try:
            sender.connect((destination, port))
            sender.send(_sctp_init(sender.fileno(), port) if protocol == "SCTP" else b"?")
        except ConnectionRefusedError:
            return Seen("refused")
        except PermissionError:
            pass  # what a node sees when its own datagram is rejected or dropped: an error follows only the first
        with selectors.DefaultSelector() as both:
            both.register(sender, selectors.EVENT_READ, None)
            both.register(self._selector, selectors.EVENT_READ, self._selector)
            if not both.select(patience):
                return Seen("silence")
        for key, _ in self._selector.select(0):
            return self._answer(key, sender, protocol, answered=answered)
        with contextlib.suppress(ConnectionRefusedError):
            sender.recv(2048)
            raise AssertionError("an answer that no pod gave")
        return Seen("refused")

    def _answer(self, key: selectors.SelectorKey, sender: socket.socket, protocol: str, *, answered: bool) -> Seen:
        pod, _, number, version = key.data
        data, peer = key.fileobj.recvfrom(2048)  # type: ignore[union-attr]
        if protocol == "SCTP":
            number = struct.unpack_from("!H", data, 22 if version == "4" else 2)[0]
            return Seen("reached", pod, number, peer[0])
        key.fileobj.sendto(b"!", peer)  # type: ignore[union-attr]
        with selectors.DefaultSelector() as waiting:
            waiting.register(sender, selectors.EVENT_READ)
            if answered:
                assert waiting.select(PATIENCE), "the answer did not come back"
                assert sender.recv(16) == b"!"
        return Seen("reached", pod, number, peer[0], moved=peer[1] != sender.getsockname()[1])


class Bed(Ground):
    """One node, with pods and a client."""

    def __init__(self) -> None:
        super().__init__({pod: ADDRESSES[pod] for pod in PODS})

    def _build(self) -> None:
        for name in ADDRESSES:
            netns.create(self.netns(name))
        node, links = netns.path(self.netns("node")), []
        with netns.entered(node):
            sysctl.write(
                {
                    "net/ipv4/ip_forward": 1,
                    "net/ipv6/conf/all/forwarding": 1,
                    "net/ipv4/conf/all/rp_filter": 0,
                    "net/ipv4/conf/default/rp_filter": 0,
                    "net/ipv4/conf/default/send_redirects": 0,
                    "net/ipv4/conf/all/send_redirects": 0,
                    "net/ipv6/conf/default/accept_dad": 0,
                    **UNLIMITED,
                }
            )
        (node4, node6), (client4, client6) = ADDRESSES["node"], ADDRESSES["client"]
        for name in PODS:
            four, six = ADDRESSES[name]
            near = Device(
                node,
                name,
                ("169.254.1.1/32", "fe80::1/64"),
                (Route(f"{four}/32", source=node4), Route(f"{six}/128", source=node6)),
            )
            far = Device(
                netns.path(self.netns(name)),
                "eth0",
                (f"{four}/32", f"{six}/128"),
                (Route("0.0.0.0/0", "169.254.1.1", on_link=True), Route("::/0", "fe80::1", on_link=True)),
            )
            links.append(Veth(near, far))
        near = Device(
            node,
            "eth0",
            (f"{node4}/32", f"{node6}/128", "192.0.2.1/24", "2001:db8:c::1/64"),
            (Route("0.0.0.0/0", client4, source=node4), Route("::/0", client6, source=node6)),
        )
        far = Device(
            netns.path(self.netns("client")),
            "eth0",
            (f"{client4}/24", f"{client6}/64"),
            (Route("0.0.0.0/0", "192.0.2.1"), Route("::/0", "2001:db8:c::1")),
        )
        # The node's own link comes first: routes to the pods name its address as their source.
        build([Veth(near, far), *links])


def _sctp_init(salt: int, port: int) -> bytes:
    """An SCTP packet with one INIT chunk: enough for conntrack to begin a flow (RFC 9260, section 3.3.2)."""
    source = 20000 + (salt * 7919 + uuid.uuid4().int) % 40000
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x12345678, 65535, 1, 1, 1)
    blank = struct.pack("!HHII", source, port, 0, 0) + chunk
    return struct.pack("!HHI", source, port, 0) + struct.pack("<I", _crc32c(blank)) + chunk


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@contextlib.contextmanager
def temporary_bed() -> Iterator[Bed]:
    """A bed that is gone after the block."""
    bed = Bed()
    try:
        yield bed
    finally:
        bed.close()
