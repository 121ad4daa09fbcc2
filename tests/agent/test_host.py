"""What a node needs beside its rules, with real packets: addresses answered on a link, node ports on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
from msgspec import structs

from svcnat.agent.host import prepare, unprepare
from svcnat.agent.reconcile import reconcile
from svcnat.errors import MissingError
from svcnat.kernel import netns, sysctl
from svcnat.kernel.links import Device, Veth, build, take_down
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.needs import Needs
from svcnat.ruleset.nftables import render_cleanup
from svcnat.ruleset.plan import Plan, Settings, plan
from tests.bed import ADDRESSES, Bed, temporary_bed
from tests.ruleset.build import service, slice_of

pytestmark = pytest.mark.packets

BALANCED = {4: "192.0.2.100", 6: "2001:db8:c::64"}  # on the link of node and client, which has the route of the link
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PORTS = {"TCP": (80, 30080), "UDP": (53, 30053)}  # of the service: on its addresses, and as a node port
SLICE_PORTS = (("p80", 8080, "TCP"), ("p53", 5353, "UDP"))
POD = "pod-1"
OWN_PORT = 2222  # of the node's own service, on all its addresses

ON_LINK = Configuration(load_balancer_interfaces=["eth0"])


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        for version in (4, 6):
            made.listen("TCP", 8080, version)
            made.listen("UDP", 5353, version)
        yield made


@pytest.fixture
def node(bed: Bed) -> Iterator[str]:
    """The node's namespace, without rules and preparations when the test is over."""
    name = bed.netns("node")
    yield name
    unprepare(name)
    with Namespace(name) as namespace:
        namespace.commit(render_cleanup(namespace.families()))
    with netns.entered(name):
        sysctl.write({"net/ipv4/conf/all/route_localnet": 0})
    forget(bed)


@contextlib.contextmanager
def own_service(where: str) -> Iterator[None]:
    """A server of the node itself on 0.0.0.0 and ::, which no pod is."""
    with netns.entered(where):
        listener = socket.create_server(("::", OWN_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener:
        yield


def answers(where: str, address: str, *, patience: float = 5.0) -> bool:
    """True if the node's own service answers there; whoever expects that can afford `patience`, in seconds."""
    with netns.entered(where):
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with client:
        client.settimeout(patience)
        with contextlib.suppress(OSError):
            client.connect((address, OWN_PORT))
            return True
    return False


def silent(where: str, address: str) -> bool:
    """True if the node's own service does not answer there."""
    return not answers(where, address, patience=0.3)


def forget(bed: Bed) -> None:
    """Make the client ask again who has which address."""
    ip(bed.netns("client"), "neigh", "flush", "all")


def ip(namespace: str, *arguments: str) -> str:
    """What iproute2 says in a namespace."""
    return subprocess.run(["ip", "-netns", namespace, *arguments], capture_output=True, text=True, check=True).stdout


def web(**more) -> Service:
    """A load balancer on both families' addresses, TCP and UDP, with node ports."""
    ports = tuple((number, protocol) for protocol, (number, _) in PORTS.items())
    one = service("web", "10.96.0.10", "fd00:10:96::a", type="LoadBalancer", ports=ports, **more)
    numbered = [structs.replace(port, node_port=PORTS[port.protocol][1]) for port in one.spec.ports]
    ingress = [LoadBalancerIngress(ip=ip) for ip in BALANCED.values()]
    return structs.replace(
        one,
        spec=structs.replace(one.spec, ports=numbered),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress)),
    )


def planned(*services: Service, localhost: bool = False) -> Plan:
    """The services' plan, all of them with the one pod behind them."""
    settings = Settings(
        node_name="node",
        cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"),
        addresses=("172.30.0.11", "192.0.2.1", "fd00:172:30::b", "2001:db8:c::1"),
        node_port_addresses=tuple(LOOPBACK.values()) if localhost else (),
        localhost_node_ports=localhost,
        announces=True,
    )
    slices = [
        slice_of("web", ADDRESSES[POD][0], ports=SLICE_PORTS),
        slice_of("web", ADDRESSES[POD][1], ports=SLICE_PORTS, kind="IPv6"),
    ]
    return plan(services, slices, settings)


def follow(node: str, wanted: Plan, config: Configuration = Configuration()) -> list[str]:  # noqa: B008 - frozen
    """Commit the rules, then prepare the host, as the agent does."""
    with Namespace(node) as namespace:
        reconcile(namespace, compile_plan(wanted))
    return prepare(node, Needs.of(wanted), config)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_neighbour_on_the_link_reaches_the_service(bed, node, version, protocol) -> None:
    """No route but the link's own leads there: with the answer the flow arrives, without it nothing does."""
    port, _ = PORTS[protocol]
    assert follow(node, planned(web())) == []
    assert bed.probe("client", BALANCED[version], port, protocol).what == "silence"
    forget(bed)
    assert follow(node, planned(web()), ON_LINK) == []
    seen = bed.probe("client", BALANCED[version], port, protocol, patience=5)
    assert (seen.what, seen.pod) == ("reached", POD)
    # The node itself and its pods reach it as before.
    for source in ("node", "pod-2"):
        assert bed.probe(source, BALANCED[version], port, protocol, patience=5).pod == POD


@pytest.mark.parametrize("version", [4, 6])
def test_it_ends_with_the_service_and_with_the_configuration(bed, node, version) -> None:
    """Whichever goes first, nobody answers any more."""
    for rest in ((planned(), ON_LINK), (planned(web()), Configuration())):
        follow(node, planned(web()), ON_LINK)
        assert bed.probe("client", BALANCED[version], 80, patience=5).what == "reached"
        follow(node, *rest)
        forget(bed)
        assert bed.probe("client", BALANCED[version], 80).what == "silence"
    follow(node, planned(web()), ON_LINK)
    unprepare(node)
    forget(bed)
    assert bed.probe("client", BALANCED[version], 80).what == "silence"


@pytest.mark.parametrize("version", [4, 6])
def test_the_nodes_own_services_are_not_exposed(bed, node, version) -> None:
    """A server on 0.0.0.0 and :: answers on the node's address, and not on the load balancer's."""
    follow(node, planned(web()), ON_LINK)
    own = {4: "192.0.2.1", 6: "2001:db8:c::1"}
    with own_service(node):
        for source in ("client", "pod-2", "node"):
            assert answers(bed.netns(source), own[version])
            assert silent(bed.netns(source), BALANCED[version])
    assert bed.probe("client", BALANCED[version], 80, patience=5).what == "reached"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_node_ports_answer_on_loopback(bed, node, version, protocol) -> None:
    """From the node itself, with localhostNodePorts, whose rules alone are not enough; not without the option."""
    _, port = PORTS[protocol]
    on = planned(web(), localhost=True)
    follow(node, planned(web()))
    assert bed.probe("node", LOOPBACK[version], port, protocol).what == "refused"
    with Namespace(node) as namespace:
        reconcile(namespace, compile_plan(on))
    with contextlib.suppress(OSError):  # IPv4: the first datagram is refused, EINVAL
        # IPv6: datagrams arrive, but their answers do not.
        arrived = (protocol, version) == ("UDP", 6)
        seen = bed.probe("node", LOOPBACK[version], port, protocol, answered=False)
        assert seen.what == ("reached" if arrived else "silence")
    assert prepare(node, Needs.of(on), Configuration()) == []
    seen = bed.probe("node", LOOPBACK[version], port, protocol, patience=5)
    assert (seen.what, seen.pod) == ("reached", POD)
    assert bed.probe("pod-2", ADDRESSES["node"][version == 6], port, protocol).what == "refused"


def test_loopback_is_left_as_it_was(bed, node) -> None:
    """The node's own services on it still answer, and the routes to ::1 are lo's first, and alone again at the end."""
    follow(node, planned(web(), localhost=True))
    with own_service(node):
        for address in LOOPBACK.values():
            assert answers(node, address)
        follow(node, planned(web()))
        for address in LOOPBACK.values():
            assert answers(node, address)
    assert routes_to_loopback(node) == ["local ::1 dev lo proto kernel metric 0 pref medium"]


def test_a_pod_cannot_reach_the_nodes_loopback(bed, node) -> None:
    """Without the option the kernel refuses such packets, with it the guard does: the hole of CVE-2020-8558 stays shut.

    The pod sends to the node's own service at 127.0.0.1 and at ::1, which an ordinary host would never put on a wire.
    To prove that the packets do arrive, the guard is taken away at the end: then IPv4 gets through. In IPv6 the kernel
    drops them whatever the rules say.
    """
    with crooked_pod(bed) as pod, own_service(node):
        assert answers(pod, "198.18.0.1")
        for localhost in (False, True):
            follow(node, planned(web(), localhost=localhost))
            for address in LOOPBACK.values():
                assert silent(pod, address)
        with Namespace(node) as namespace:
            namespace.commit("delete chain ip svcnat guard\ndelete chain ip6 svcnat guard\n")
        assert answers(pod, LOOPBACK[4])
        assert silent(pod, LOOPBACK[6])
        assert follow(node, planned(web(), localhost=True)) == []
        assert silent(pod, LOOPBACK[4])


def test_nothing_is_opened_where_no_rules_guard_it(node) -> None:
    """A family without node ports may have no table, and so no guard: its loopback stays shut until one comes."""
    only6 = service("web", "fd00:10:96::a", type="NodePort")
    only6 = structs.replace(
        only6, spec=structs.replace(only6.spec, ports=[structs.replace(only6.spec.ports[0], node_port=30080)])
    )
    follow(node, planned(only6, localhost=True))
    assert setting(node) == "0"
    assert len(routes_to_loopback(node)) > 1
    follow(node, planned(localhost=True))
    assert setting(node) == "0"
    assert len(routes_to_loopback(node)) == 1


def test_a_setting_that_outlives_its_guard_is_said(node) -> None:
    """The setting may have come to be needed by others, so it stays; who removes svcnat is told."""
    follow(node, planned(web(), localhost=True))
    (warning,) = unprepare(node)
    assert warning.startswith("sysctl net/ipv4/conf/all/route_localnet is 1, and svcnat no longer keeps others away")
    assert setting(node) == "1"
    with netns.entered(node):
        sysctl.write({"net/ipv4/conf/all/route_localnet": 0})
    assert unprepare(node) == []


def test_a_namespace_that_does_not_exist_is_an_error() -> None:
    """A typo must not prepare the current one."""
    nothing = Needs.of(planned())
    for action in (lambda: prepare("no-such-namespace", nothing, ON_LINK), lambda: unprepare("no-such-namespace")):
        with pytest.raises(MissingError, match="no-such-namespace"):
            action()


def setting(node: str) -> str:
    with netns.entered(node):
        return sysctl.read("net/ipv4/conf/all/route_localnet")


def routes_to_loopback(node: str) -> list[str]:
    listed = ip(node, "-6", "route", "show", "table", "local", "to", "::1/128")
    return [" ".join(line.split()) for line in listed.splitlines()]


@contextlib.contextmanager
def crooked_pod(bed: Bed) -> Iterator[str]:
    """A pod that sends what is for 127.0.0.1 and ::1 to the node, at 198.18.0.1, instead of to itself."""
    pod, node = bed.netns("crooked"), bed.netns("node")
    netns.create(pod)
    try:
        with netns.entered(pod):
            sysctl.write({"net/ipv4/conf/all/route_localnet": 1, "net/ipv4/conf/all/rp_filter": 0})
        far = Device(netns.path(pod), "eth0", ("198.18.0.2/24", "fd00:198::2/64"))
        build([Veth(Device(netns.path(node), "crooked", ("198.18.0.1/24", "fd00:198::1/64")), far)])
        ip(pod, "addr", "del", "127.0.0.1/8", "dev", "lo")
        ip(pod, "-6", "route", "del", "local", "::1", "dev", "lo", "table", "local")
        ip(pod, "route", "add", "127.0.0.1/32", "via", "198.18.0.1")
        ip(pod, "-6", "route", "add", "::1/128", "via", "fd00:198::1")
        yield pod
    finally:
        take_down(netns.path(node), ["crooked"])
        netns.delete(pod)
