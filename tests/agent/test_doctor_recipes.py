"""docs/recipes.md is right: its manifests, on a host with containers on one bridge, with real packets."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.agent.doctor.examine import examine
from svcnat.agent.doctor.findings import Finding
from svcnat.agent.doctor.gather import Where, gather
from svcnat.api import Cluster, load
from svcnat.errors import MissingError
from svcnat.kernel import netns, sysctl
from svcnat.kernel.links import Device, Route, Veth, build
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.nftables import render_cleanup
from tests.bed import PATIENCE, UNLIMITED, Ground

pytestmark = pytest.mark.packets

RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", RECIPES.read_text(), re.MULTILINE | re.DOTALL)
CONTAINERS = {"back-end-a": ("10.88.0.50", "fd00:88::50"), "back-end-b": ("10.88.0.51", "fd00:88::51")}
HOST, OUTSIDE = "192.0.2.1", "192.0.2.10"
NAMED = """\
apiVersion: v1
kind: Service
metadata: {name: back-end}
spec:
  externalIPs: [198.51.100.7]
  ports: [{port: 80}]
"""
EXTERNAL = "198.51.100.7"


class Machine(Ground):
    """A host, two containers on its bridge, a third that only asks, and somebody outside."""

    def __init__(self) -> None:
        super().__init__(CONTAINERS)

    def _build(self) -> None:
        members = {**{name: four for name, (four, _) in CONTAINERS.items()}, "asking": "10.88.0.60"}
        for name in ("host", "outside", *members):
            netns.create(self.netns(name))
        host = netns.path(self.netns("host"))
        run(self.netns("host"), "ip link add podman0 type bridge; ip addr add 10.88.0.1/16 dev podman0")
        with netns.entered(host):
            sysctl.write({"net/ipv4/ip_forward": 1, "net/ipv4/conf/all/send_redirects": 0, **UNLIMITED})
            sysctl.write({"net/ipv4/conf/podman0/send_redirects": 0, "net/netfilter/nf_conntrack_tcp_be_liberal": 1})
            for setting in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
                with contextlib.suppress(MissingError):
                    sysctl.write({f"net/bridge/{setting}": 0})
        links = [
            Veth(
                Device(host, f"v-{name}"),
                Device(netns.path(self.netns(name)), "eth0", (f"{four}/16",), (Route("0.0.0.0/0", "10.88.0.1"),)),
            )
            for name, four in members.items()
        ]
        outside = Device(netns.path(self.netns("outside")), "eth0", (f"{OUTSIDE}/24",), (Route("0.0.0.0/0", HOST),))
        build([Veth(Device(host, "eth0", (f"{HOST}/24",), (Route("0.0.0.0/0", OUTSIDE),)), outside), *links])
        joined = "; ".join(f"ip link set v-{name} master podman0" for name in members)
        run(self.netns("host"), f"{joined}; ip link set podman0 up")


def run(name: str, script: str) -> None:
    with netns.entered(name):
        subprocess.run(["sh", "-ec", script], check=True)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    made = Machine()
    made.listen("TCP", 8080, 4)
    yield made
    made.close()


@pytest.fixture
def cluster(machine: Machine, tmp_path: Path) -> Iterator[Cluster]:
    """A host without objects and rules."""
    config = tmp_path / "config.yaml"
    config.write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n")
    host = machine.netns("host")
    with Cluster.open(state=tmp_path / "state.db", netns=host, config=config) as opened:
        yield opened
    with Namespace(host) as namespace:
        namespace.commit(render_cleanup(namespace.families()))
    run(host, "nft list tables | while read t; do nft delete $t; done")


def reached(machine: Machine, source: str, address: str, times: int = 12) -> set[str]:
    """The containers that connections went to; "" for one that went nowhere."""
    return {machine.probe(source, address, 80, patience=PATIENCE).pod for _ in range(times)}


def address_of(cluster: Cluster) -> str:
    from svcnat.model.objects import Service

    with cluster.read() as snapshot:
        found = snapshot.get(Service, "default", "back-end")
    assert found is not None
    return found.spec.cluster_ip


def test_containers_on_a_bridge_are_a_service(machine: Machine, cluster: Cluster) -> None:
    """From the host, from containers (the endpoints themselves too), and from outside through an external address."""
    cluster.apply(load(text=BLOCKS[0]))
    address = address_of(cluster)
    for source in ("host", "asking", "back-end-a"):
        assert reached(machine, source, address) == set(CONTAINERS), source
    cluster.apply(load(text=NAMED))
    assert reached(machine, "outside", EXTERNAL) == set(CONTAINERS)


def test_a_container_drains(machine: Machine, cluster: Cluster) -> None:
    """New connections go to the other one."""
    cluster.apply(load(text=BLOCKS[0]))
    cluster.apply(load(text=BLOCKS[1]))
    assert reached(machine, "host", address_of(cluster)) == {"back-end-b"}


def findings(machine: Machine, tmp_path: Path) -> list[Finding]:
    facts = gather([Where("", machine.netns("host"))], tmp_path / "state.db", Configuration())
    return [
        each
        for each in examine(facts)
        if each.severity in ("error", "warning") and each.subject not in ("nft", "agent")
    ]


OTHERS = {
    "libvirt on nftables": (
        """
        nft add table ip libvirt_network
        nft 'add chain ip libvirt_network forward { type filter hook forward priority 0; policy accept; }'
        nft add chain ip libvirt_network guest_input
        nft add rule ip libvirt_network forward counter jump guest_input
        nft add rule ip libvirt_network guest_input oifname podman0 ct state established,related accept
        nft add rule ip libvirt_network guest_input oifname podman0 counter reject
        """,
        "nft insert rule ip libvirt_network guest_input ct status dnat accept",
    ),
    "libvirt on iptables": (
        """
        iptables-nft -N LIBVIRT_FWI
        iptables-nft -A FORWARD -j LIBVIRT_FWI
        iptables-nft -A LIBVIRT_FWI -o podman0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A LIBVIRT_FWI -o podman0 -j REJECT
        """,
        "iptables-nft -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
    ),
    "Docker": (
        """
        iptables-nft -P FORWARD DROP
        iptables-nft -N DOCKER-USER
        iptables-nft -N DOCKER
        iptables-nft -A FORWARD -j DOCKER-USER
        iptables-nft -A FORWARD -o podman0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A FORWARD -o podman0 -j DOCKER
        iptables-nft -A FORWARD -i podman0 -j ACCEPT
        iptables-nft -A DOCKER ! -i podman0 -o podman0 -j DROP
        """,
        "iptables-nft -I DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT",
    ),
}


@pytest.mark.parametrize(("script", "command"), OTHERS.values(), ids=OTHERS)
def test_what_other_programs_must_be_told(
    machine: Machine, cluster: Cluster, tmp_path: Path, script: str, command: str
) -> None:
    """Rules as they make them keep outsiders away; the doctor says what the recipe says, and that lets them through."""
    host = machine.netns("host")
    cluster.apply(load(text=BLOCKS[0]))
    cluster.apply(load(text=NAMED))
    run(host, script)
    assert reached(machine, "outside", EXTERNAL, times=2) == {""}
    assert reached(machine, "host", EXTERNAL) == set(CONTAINERS)
    (finding,) = findings(machine, tmp_path)
    assert finding.fix == f"ip netns exec {host} {command}"
    assert command.replace("-nft", "") in RECIPES.read_text()
    run(host, command)
    assert reached(machine, "outside", EXTERNAL) == set(CONTAINERS)
    assert findings(machine, tmp_path) == []
