"""The doctor in real namespaces: conditions are found, fixes work as they stand, and looking changes nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.agent.doctor.examine import examine
from svcnat.agent.doctor.facts import Agent
from svcnat.agent.doctor.findings import Finding
from svcnat.agent.doctor.gather import Where, gather
from svcnat.agent.reconcile import reconcile
from svcnat.api import Cluster, load
from svcnat.errors import MissingError
from svcnat.kernel import netns, sysctl
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.plan import Settings, plan
from tests.bed import Bed, Seen, temporary_bed
from tests.ruleset.build import service, slice_of

pytestmark = pytest.mark.packets

VIP = {4: "10.96.0.10", 6: "fd00:10:96::a"}
SLACK = 5.0  # seconds for an answer that should come


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        for version in (4, 6):
            made.listen("TCP", 80, version)
        yield made


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, bed: Bed) -> Path:
    """A state file with a service of both families, whose rules the bed's node has."""
    file = tmp_path_factory.mktemp("state") / "state.db"
    with Cluster.open(state=file, netns=bed.netns("node"), config=_config(file)) as cluster:
        cluster.apply(load(text=MANIFESTS))
    return file


def _config(file: Path) -> Path:
    path = file.with_suffix(".yaml")
    path.write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n")
    return path


MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {svcnat.io/on-endpoint-removal: terminate}}
spec:
  clusterIPs: ["10.96.0.10", "fd00:10:96::a"]
  clusterIP: 10.96.0.10
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.244.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{port: 80}]
endpoints: [{addresses: ["fd00:10:244::1"]}]
"""


@pytest.fixture
def node(bed: Bed) -> Iterator[str]:
    """The node's namespace, with other programs' rules and settings as they were when the test is over."""
    name = bed.netns("node")
    before = _settings(name)
    yield name
    script = "nft list tables | grep -v svcnat | while read t; do nft delete $t; done"
    script += "; for t in iptables-legacy ip6tables-legacy; do $t -P FORWARD ACCEPT; $t -F; $t -X; done"
    run(name, script)
    with netns.entered(name):
        sysctl.write(before)


def _settings(name: str) -> dict[str, str]:
    keys = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "netfilter/nf_conntrack_tcp_loose")
    keys += ("netfilter/nf_conntrack_tcp_be_liberal", "ipv4/conf/all/rp_filter", "ipv4/conf/eth0/forwarding")
    with netns.entered(name):
        return {f"net/{key}": sysctl.read(f"net/{key}") for key in keys}


def run(name: str, script: str) -> None:
    """Run a shell's script in a network namespace."""
    with netns.entered(name):
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def look(name: str | None, state: Path, config: Configuration | None = None) -> list[Finding]:
    """The findings of a namespace, but for those that this machine may well have, and the test cannot change."""
    facts = gather([Where("", name)], state, config or Configuration(), ask=lambda _: Agent(alive=True))
    return [each for each in examine(facts) if each.severity != "ok" and each.subject not in ("tcp_be_liberal", "nft")]


def do(finding: Finding) -> None:
    """Do what a finding says, word for word."""
    done = subprocess.run(["sh", "-c", finding.fix], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (finding.fix, done.stderr)


def answered(bed: Bed, version: int, source: str = "client") -> bool:
    """True if the service answers."""
    return bed.probe(source, VIP[version], 80).what == "reached"


def test_a_node_that_works_has_nothing_to_fix(bed: Bed, node: str, state: Path) -> None:
    """The bed of all the other tests is sound, and so the doctor says."""
    assert look(node, state) == []
    assert answered(bed, 4)
    assert answered(bed, 6)


_FW = "{} {{ type filter hook forward priority {}; policy {}; }}"


def _chain(table: str, priority: int, policy: str) -> str:
    return f"nft add table {table}; nft 'add chain {table} " + _FW.format("fw", priority, policy) + "'"


DROPS = {
    "a policy of nft": (4, _chain("inet mine", 0, "drop")),
    "a policy of nft, for IPv6": (6, _chain("ip6 mine", 7, "drop")),
    "a last rule that refuses": (4, _chain("inet mine", 10, "accept") + "; nft add rule inet mine fw counter reject"),
    "a policy of iptables": (4, "iptables-nft -P FORWARD DROP"),
    "a policy of ip6tables": (6, "ip6tables-nft -P FORWARD DROP"),
    "a last rule of iptables": (4, "iptables-nft -A FORWARD -j REJECT"),
    "as Docker does": (
        4,
        "iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -P FORWARD DROP",
    ),
    "as Docker does with iptables-legacy": (
        4,
        "iptables-legacy -N DOCKER-USER; iptables-legacy -A FORWARD -j DOCKER-USER; iptables-legacy -P FORWARD DROP",
    ),
    "a policy of iptables-legacy": (4, "iptables-legacy -P FORWARD DROP"),
    "a policy of ip6tables-legacy": (6, "ip6tables-legacy -P FORWARD DROP"),
    "a last rule of iptables-legacy": (
        4,
        "iptables-legacy -N X; iptables-legacy -A X -j DROP; iptables-legacy -A FORWARD -j X",
    ),
}


@pytest.mark.parametrize(("version", "script"), DROPS.values(), ids=DROPS)
def test_rules_that_drop_are_found_and_the_fix_lets_services_through(
    bed: Bed, node: str, state: Path, version: int, script: str
) -> None:
    """With real packets: dropped, one finding, its command run as it stands, reached, no finding."""
    run(node, script)
    assert not answered(bed, version)
    (finding,) = look(node, state)
    assert finding.severity == "error"
    do(finding)
    assert bed.probe("client", VIP[version], 80, patience=SLACK).what == "reached"
    assert look(node, state) == []


def test_a_chain_with_exceptions_is_a_warning(bed: Bed, node: str, state: Path) -> None:
    """What some of its rules let pass cannot be told, so it is not called an error."""
    accept = "nft add rule inet mine fw ip {} 10.244.0.0/16 accept"
    run(node, "; ".join((_chain("inet mine", 0, "drop"), accept.format("saddr"), accept.format("daddr"))))
    assert answered(bed, 4)
    (finding,) = look(node, state)
    assert finding.severity == "warning"


def test_a_dormant_table_drops_nothing(bed: Bed, node: str, state: Path) -> None:
    """Its chains see no packet."""
    chain = "add chain inet mine fw { type filter hook forward priority 0; policy drop; }"
    run(node, f"nft 'add table inet mine {{ flags dormant; }}'; nft '{chain}'")
    assert look(node, state) == []


def test_forwarding_is_found_and_switched_on(bed: Bed, node: str, state: Path) -> None:
    """In both families, since the service has both."""
    with netns.entered(node):
        sysctl.write({"net/ipv4/ip_forward": 0, "net/ipv6/conf/all/forwarding": 0})
    assert bed.probe("client", VIP[4], 80) == Seen("silence")
    findings = look(node, state)
    assert {(each.subject, each.severity) for each in findings} == {("forwarding", "error")}
    assert len(findings) == 2
    for finding in findings:
        do(finding)
    assert look(node, state) == []
    assert bed.probe("client", VIP[4], 80, patience=SLACK).what == "reached"


@pytest.mark.parametrize(
    ("key", "value", "subject"),
    [
        ("net/ipv4/conf/eth0/forwarding", 0, "forwarding"),
        ("net/netfilter/nf_conntrack_tcp_loose", 0, "tcp_loose"),
    ],
)
def test_settings_are_found_and_set(node: str, state: Path, key: str, value: int, subject: str) -> None:
    """One finding for one setting, and its command sets it."""
    with netns.entered(node):
        sysctl.write({key: value})
    (finding,) = look(node, state)
    assert (finding.subject, finding.severity) == (subject, "warning")
    do(finding)
    assert look(node, state) == []


def test_windows_are_strict_by_default_and_that_is_said(node: str, state: Path) -> None:
    """tcp_be_liberal of a new namespace is 0."""
    with netns.entered(node):
        sysctl.write({"net/netfilter/nf_conntrack_tcp_be_liberal": 0})
    facts = gather([Where("", node)], state, Configuration())
    (finding,) = (each for each in examine(facts) if each.subject == "tcp_be_liberal")
    do(finding)
    with netns.entered(node):
        assert sysctl.read("net/netfilter/nf_conntrack_tcp_be_liberal") == "1"


def test_a_strict_reverse_path_matters_where_there_are_two_ways(bed: Bed, node: str, state: Path) -> None:
    """With one default route it drops only what is forged."""
    with netns.entered(node):
        sysctl.write({"net/ipv4/conf/all/rp_filter": 1})
    assert look(node, state) == []
    run(node, "ip route add default dev pod-2 metric 500")
    try:
        (finding,) = look(node, state)
        assert finding.subject == "rp_filter"
        do(finding)
        assert look(node, state) == []
    finally:
        run(node, "ip route del default dev pod-2 metric 500")


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_without_a_way_to_services_gets_one(bed: Bed, node: str, state: Path, version: int) -> None:
    """Its own connections fail at once without a route; the one that is named makes them work."""
    with netns.entered(node):
        told = subprocess.run(
            ["ip", f"-{version}", "route", "show", "default"], capture_output=True, text=True, check=True
        )
    run(node, f"ip -{version} route del default")
    extra = ""
    try:
        assert bed.probe("node", VIP[version], 80) == Seen("silence")
        (finding,) = look(node, state)
        assert (finding.subject, finding.severity) == ("routes", "error")
        do(finding)
        extra = finding.fix.replace(" add ", " del ")
        assert bed.probe("node", VIP[version], 80, patience=SLACK).what == "reached"
        assert look(node, state) == []
    finally:
        if extra:
            subprocess.run(["sh", "-c", extra], check=True)
        run(node, f"ip -{version} route add {told.stdout.splitlines()[0]}")


def test_networks_in_the_range_of_services_are_found(node: str, state: Path) -> None:
    """A route that takes a service's address is an error; one beside it a warning."""
    run(node, "ip route add 10.97.0.0/16 dev eth0; ip route add 10.96.0.0/24 dev eth0")
    try:
        found = {(each.subject, each.severity) for each in look(node, state)}
        assert found == {("serviceCIDR", "error"), ("serviceCIDR", "warning")}
    finally:
        run(node, "ip route del 10.97.0.0/16; ip route del 10.96.0.0/24")


def test_bridges_that_netfilter_does_not_see_matter_without_masquerade(empty_netns: str, tmp_path: Path) -> None:
    """With bridgeMasquerade off only; a device's name cannot become a command."""
    run(empty_netns, "ip link add 'br$(id)' type bridge; ip link set lo up; ip route add default dev lo")
    with contextlib.suppress(MissingError), netns.entered(empty_netns):
        sysctl.write({"net/bridge/bridge-nf-call-iptables": 0, "net/bridge/bridge-nf-call-ip6tables": 0})
    file = tmp_path / "state.db"
    assert [each.subject for each in look(empty_netns, file)] == ["forwarding"]
    findings = look(empty_netns, file, Configuration(bridge_masquerade="off"))
    (finding,) = (each for each in findings if each.subject == "bridges")
    assert "br$(id)" in finding.message
    assert "br$(id)" not in finding.fix


def test_a_devices_name_is_quoted_in_a_command(make_netns, tmp_path: Path) -> None:
    """Names of devices are anybody's; a pasted fix must not run them."""
    here = make_netns()
    device, proof = "a;id>x", tmp_path / "x"
    run(here, f"ip link add '{device}' type bridge; ip addr add 192.0.2.1/24 dev '{device}'; ip link set '{device}' up")
    with netns.entered(here):
        sysctl.write({f"net/ipv4/conf/{device}/forwarding": 0, "net/ipv4/ip_forward": 1})
        sysctl.write({f"net/ipv4/conf/{device}/forwarding": 0})
    findings = {each.subject: each for each in look(here, tmp_path / "state.db")}
    for subject in ("forwarding", "routes"):
        done = subprocess.run(
            ["sh", "-c", findings[subject].fix], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (findings[subject].fix, done.stderr)
    assert not proof.exists()
    assert look(here, tmp_path / "state.db") == []


def test_rules_of_another_state_file_and_missing_rules(empty_netns: str, state: Path, bed: Bed, tmp_path: Path) -> None:
    """The rules say whose they are."""
    other = tmp_path / "other.db"
    with Cluster.open(state=other, netns=empty_netns, config=_config(other)) as cluster:
        cluster.apply(load(text=MANIFESTS))
    (finding,) = (each for each in look(bed.netns("node"), other) if each.subject == "rules")
    assert finding.severity == "error"
    with Namespace(empty_netns) as namespace:
        namespace.commit("delete table ip svcnat\ndelete table ip6 svcnat\n")
    (finding,) = (each for each in look(empty_netns, other) if each.subject == "rules")
    assert (finding.severity, finding.fix) == (
        "warning",
        f"svcnat --netns {empty_netns} --state {other} run --once",
    )
    with Namespace(empty_netns) as namespace:
        reconcile(namespace, compile_plan(plan([service("a", "10.96.0.1")], [slice_of("a", "10.244.0.1")], Settings())))
    assert not [each for each in look(empty_netns, other) if each.subject == "rules"]


def test_looking_changes_nothing(bed: Bed, node: str, state: Path) -> None:
    """Generation, settings, tables of both kinds, routes, file descriptors and namespaces are as before."""
    run(node, "iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP")

    def seen() -> tuple[object, ...]:
        with netns.entered(node):
            values = {}
            for folder, _, files in os.walk(sysctl.ROOT / "net"):
                for file in files:
                    path = Path(folder, file)
                    with contextlib.suppress(OSError):
                        values[path] = path.read_text()
            shown = subprocess.run(["ip", "route", "show", "table", "all"], capture_output=True, check=True).stdout
            tables = [
                Path("/proc/thread-self/net", name).read_text() for name in ("ip_tables_names", "ip6_tables_names")
            ]
        with Namespace(node) as namespace:
            generation = namespace.generation()
        changing = ("nf_conntrack_count", "lo_hwaddr")
        values = {path: value for path, value in values.items() if path.name not in changing}
        return generation, values, shown, tables, sorted(state.parent.iterdir()), state.read_bytes()

    before = seen()
    gc.collect()
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    look(node, state)
    assert seen() == before
    gc.collect()
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors


def test_a_look_makes_no_table_of_iptables(empty_netns: str, tmp_path: Path) -> None:
    """Asking the kernel for a legacy table by name would make it."""
    look(empty_netns, tmp_path / "state.db")
    with netns.entered(empty_netns):
        assert Path("/proc/thread-self/net/ip_tables_names").read_text() == ""


def test_who_has_no_privilege_sees_what_is_open_to_all(empty_netns: str, tmp_path: Path) -> None:
    """Without any capability: what could not be looked at is named, the rest is judged."""
    program = (
        "import sys; from pathlib import Path; from svcnat.agent.doctor.examine import examine\n"
        "from svcnat.agent.doctor.gather import Where, gather\n"
        "from svcnat.model.configuration import Configuration\n"
        "for each in examine(gather([Where()], Path(sys.argv[1]), Configuration())): print(each.severity, each.subject)"
    )
    with netns.entered(empty_netns):
        done = subprocess.run(
            [
                "setpriv",
                "--bounding-set=-all",
                "--inh-caps=-all",
                sys.executable,
                "-c",
                program,
                str(tmp_path / "s.db"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
    lines = done.stdout.splitlines()
    assert {"unknown kernel", "unknown rules", "unknown other rules"} <= set(lines), done.stderr
    assert {"ok libnftables", "warning forwarding", "warning routes", "ok bridges", "ok state file"} <= set(lines)


def test_who_may_not_enter_a_namespace_is_told_so(empty_netns: str, tmp_path: Path) -> None:
    """Every look at it is unknown, with the reason; the machine is judged all the same, and it is no failure."""
    command = [
        sys.executable,
        "-m",
        "svcnat",
        "doctor",
        "-v",
        "--netns",
        empty_netns,
        "--state",
        str(tmp_path / "s.db"),
    ]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
    for subject in ("sysctl", "routes", "bridges", "rules", "other rules"):
        assert f"unknown: {subject}: " in done.stdout
    assert "run as root" in done.stdout
    assert "ok: libnftables" in done.stdout


def test_a_namespace_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """A typo is no sick host."""
    with pytest.raises(MissingError, match="svcnat-nowhere"):
        gather([Where("", "svcnat-nowhere")], tmp_path / "s.db", Configuration())
