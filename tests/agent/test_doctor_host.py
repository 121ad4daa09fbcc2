"""Ports and routers of the host itself, with real sockets and packets: what the doctor says, and that its fix helps."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat.agent.doctor.examine import examine
from svcnat.agent.doctor.facts import Agent
from svcnat.agent.doctor.findings import Finding
from svcnat.agent.doctor.gather import Where, gather
from svcnat.api import Cluster, load
from svcnat.errors import MissingError
from svcnat.kernel import links, netns, sysctl
from svcnat.kernel.host import Network
from svcnat.kernel.links import Device, Veth
from svcnat.model.configuration import Configuration
from tests.agent.test_doctor_places import MANIFESTS
from tests.agent.test_doctor_recipes import BLOCKS, EXTERNAL, NAMED, Machine, cluster, findings, machine, run
from tests.bed import PATIENCE

__all__ = ["cluster", "machine"]  # fixtures
pytestmark = pytest.mark.packets

PORT = 30080
SPEC = f"{NAMED}  type: NodePort\n".replace("[{port: 80}]", f"[{{port: 80, nodePort: {PORT}}}]")
HOST = "192.0.2.1"
_BEFORE_ANOTHER = 0.5  # seconds: after one, the kernel asks again, and may come to another endpoint


@pytest.fixture
def host(machine: Machine, cluster: Cluster) -> str:
    """The host's namespace, with a service that has a node port."""
    cluster.apply(load(text=BLOCKS[0]))
    cluster.apply(load(text=SPEC))
    return machine.netns("host")


def listening(name: str, family: int, kind: int, address: str, port: int) -> socket.socket:
    """A program of the namespace that waits on a port."""
    with netns.entered(name):
        opened = socket.socket(family, kind)
    opened.bind((address, port))
    if kind == socket.SOCK_STREAM:
        opened.listen()
    return opened


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET, HOST), (socket.AF_INET6, "::")]
)
def test_a_program_on_a_node_port_is_found(
    machine: Machine, host: str, tmp_path: Path, family: int, address: str
) -> None:
    """Outsiders reach the service, and not the program; without it, there is nothing to say."""
    with listening(host, family, socket.SOCK_STREAM, address, PORT):
        assert machine.probe("outside", HOST, PORT, patience=PATIENCE).pod
        (finding,) = findings(machine, tmp_path)
        assert (finding.subject, finding.severity) == ("node ports", "warning")
        assert f"{PORT}/tcp" in finding.message
    assert findings(machine, tmp_path) == []


def test_programs_that_nobody_misses_are_no_finding(machine: Machine, host: str, tmp_path: Path) -> None:
    """On the loopback, with another protocol, or with an established connection from the port."""
    with (
        listening(host, socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", PORT),
        listening(host, socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0", PORT),
    ):
        assert findings(machine, tmp_path) == []


@pytest.fixture
def narrow(host: str) -> Iterator[str]:
    """The host, giving its programs only ports that node ports are taken from."""
    keys = ("net/ipv4/ip_local_port_range", "net/ipv4/ip_local_reserved_ports")
    with netns.entered(host):
        before = {key: sysctl.read(key) for key in keys}
        sysctl.write({keys[0]: "30000 32800", keys[1]: "8080"})
    yield host
    with netns.entered(host):
        sysctl.write({key: value or "\n" for key, value in before.items()})


def test_ports_that_the_host_gives_away_are_found(machine: Machine, narrow: str, tmp_path: Path) -> None:
    """Its programs get such ports; after the fix none does, and what was reserved before still is."""

    def given() -> int:
        with listening(narrow, socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", 0) as opened:
            return int(opened.getsockname()[1])

    assert any(given() <= 32767 for _ in range(20))
    (finding,) = (each for each in findings(machine, tmp_path) if "may be given" in each.message)
    subprocess.run(["sh", "-ec", finding.fix], check=True)
    assert all(given() > 32767 for _ in range(20))
    assert findings(machine, tmp_path) == []
    with netns.entered(narrow):
        assert sysctl.read("net/ipv4/ip_local_reserved_ports") == "8080,30000-32767"


@pytest.fixture
def seen(host: str) -> Iterator[str]:
    """The host, whose bridge netfilter sees."""
    key = "net/bridge/bridge-nf-call-iptables"
    with netns.entered(host):
        try:
            sysctl.write({key: 1})
        except MissingError:
            pytest.skip("br_netfilter is not loaded")
    yield host
    with netns.entered(host):
        sysctl.write({key: 0})
    run(host, "for each in back-end-a back-end-b asking; do bridge link set dev v-$each hairpin off isolated off; done")


def served(machine: Machine, source: str, times: int = 16, patience: float = PATIENCE) -> Iterator[bool]:
    """For each of some connections, whether somebody answered."""
    return (bool(machine.probe(source, EXTERNAL, 80, patience=patience).pod) for _ in range(times))


def test_an_endpoint_that_cannot_reach_itself_is_found(machine: Machine, seen: str, tmp_path: Path) -> None:
    """What a bridge translates, it does not send back where it came from; once told to, it does."""
    assert not all(served(machine, "back-end-a", patience=_BEFORE_ANOTHER))
    (finding,) = findings(machine, tmp_path)
    assert (finding.subject, finding.severity) == ("bridges", "warning")
    subprocess.run(["sh", "-ec", finding.fix], check=True)
    assert all(served(machine, "back-end-a"))
    assert findings(machine, tmp_path) == []


def test_endpoints_that_are_kept_apart_are_found(machine: Machine, seen: str, tmp_path: Path) -> None:
    """Of two isolated ports, none reaches what is behind the other."""
    run(seen, "for each in back-end-a back-end-b asking; do bridge link set dev v-$each hairpin on isolated on; done")
    try:
        assert not any(served(machine, "asking", times=2, patience=_BEFORE_ANOTHER))
        (finding,) = findings(machine, tmp_path)
        assert "v-back-end-a, v-back-end-b" in finding.message
    finally:
        run(seen, "for each in back-end-a back-end-b asking; do bridge link set dev v-$each isolated off; done")
    assert all(served(machine, "asking"))
    assert findings(machine, tmp_path) == []


ROUTER = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)  # RFC 4861, 4.2: no options but the prefix below
PREFIX = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:aa::")


def advertise(router: str) -> None:
    """Send one router's advertisement."""
    with netns.entered(router), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.sendto(ROUTER + PREFIX, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))


def hears(here: str, router: str) -> bool:
    """True if an advertisement gives a default route, or keeps one."""
    for _ in range(50):
        with contextlib.suppress(OSError):  # the link is not up yet
            advertise(router)
        with Network(here) as network:
            if any(each.destination == "::/0" and each.usable for each in network.survey().routes):
                return True
        time.sleep(0.1)
    return False


def test_a_host_that_begins_to_forward_keeps_its_router(make_netns: Callable[[], str], tmp_path: Path) -> None:
    """When forwarding begins, the kernel drops what routers gave, and hears no more; the fix sees to it."""
    here, router = make_netns(), make_netns()
    links.build([Veth(Device(netns.path(here), "eth0"), Device(netns.path(router), "eth0"))])
    with netns.entered(here):
        sysctl.write({"net/ipv4/ip_forward": 1, "net/netfilter/nf_conntrack_tcp_be_liberal": 1})
        sysctl.write({"net/ipv6/conf/eth0/accept_ra": 1, "net/ipv6/conf/all/forwarding": 0})
    run(here, "ip addr add 192.0.2.1/24 dev eth0; ip route add default via 192.0.2.2; ip link set lo up")
    state, config = tmp_path / "state.db", tmp_path / "config.yaml"
    config.write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n")
    with Cluster.open(state=state, netns=here, config=config) as opened:
        opened.apply(load(text=MANIFESTS))

    def look() -> list[Finding]:
        facts = gather([Where("", here)], state, Configuration(), ask=lambda _: Agent(alive=True))
        return [each for each in examine(facts) if each.severity in ("error", "warning") and each.subject != "nft"]

    # What somebody does without the doctor: the route is gone, and no advertisement brings it back.
    assert hears(here, router)
    with netns.entered(here):
        sysctl.write({"net/ipv6/conf/all/forwarding": 1})
    assert {each.subject for each in look()} == {"forwarding", "routes"}
    do(next(each for each in look() if each.subject == "forwarding"))
    assert hears(here, router)
    assert look() == []
    with netns.entered(here):
        sysctl.write({"net/ipv6/conf/eth0/accept_ra": 1, "net/ipv6/conf/all/forwarding": 0})
    assert hears(here, router)
    (finding,) = look()
    assert finding.severity == "error"
    do(finding)
    assert look() == []
    with Network(here) as network:
        assert [each.device for each in network.survey().routes if each.destination == "::/0"] == ["eth0"]


def do(finding: Finding) -> None:
    """Do what a finding says, word for word."""
    subprocess.run(["sh", "-ec", finding.fix], check=True, stdout=subprocess.DEVNULL)
