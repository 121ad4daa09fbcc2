"""Labs have DNS as clusters do: a Service, pods that answer, and pods whose programs find everything by name."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat import api
from svcnat.errors import ManifestError
from svcnat.lab import nameserver, process, state
from svcnat.lab.process import ProcessId
from svcnat.model.objects import Deployment, Pod, Service
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.dns import load
from tests.lab.conftest import NAMELESS, namespaces_of, unused_name

pytestmark = pytest.mark.packets

TWO_NODES = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: left}, {name: right}]
---
"""
MANIFESTS = (
    TWO_NODES
    + """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: east, labels: {app: web}}
spec: {nodeName: left, containers: [{name: main, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: west, labels: {app: web}}
spec: {nodeName: right, containers: [{name: main, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {hostname: db-0, subdomain: db, containers: [{name: main, image: x, ports: [{containerPort: 5432}]}]}
"""
)

Up = Callable[[str], api.Lab]


def build(folder: Path, manifests: str) -> api.Lab:
    file = folder / "lab.yml"
    file.write_text(manifests)
    return api.Lab.up(unused_name(), file)


def take_down(lab: api.Lab) -> None:
    servers = dns_processes(lab)
    lab.down()
    assert not any(process.is_alive(each) for each in servers)
    assert namespaces_of(lab.built.name) == []
    assert not lab.built.folder.exists()


@pytest.fixture(scope="module")
def lab(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Lab]:
    """Two nodes with a pod each, which no test changes."""
    lab = build(tmp_path_factory.mktemp("lab"), MANIFESTS)
    yield lab
    take_down(lab)


@pytest.fixture
def up(runtime: Path, tmp_path: Path) -> Iterator[Up]:
    """A function that builds labs of manifests; nothing of them is left after the test."""
    built: list[api.Lab] = []

    def up(manifests: str) -> api.Lab:
        built.append(build(tmp_path, manifests))
        return built[-1]

    yield up
    for lab in built:
        take_down(lab)


def run(lab: api.Lab, where: str, *command: str) -> subprocess.CompletedProcess[str]:
    return lab.exec(where, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def dig(lab: api.Lab, where: str, *words: str) -> list[str]:
    """Return what dig prints in a pod, in order."""
    done = run(lab, where, "dig", "+short", "+tries=1", "+time=5", *words)
    assert done.returncode == 0, done.stdout
    return sorted(done.stdout.split("\n")[:-1])


def service(lab: api.Lab, name: str, namespace: str = "default") -> Service:
    with lab.read() as snapshot:
        found = snapshot.get(Service, namespace, name)
    assert found
    return found


def servers(lab: api.Lab) -> list[Pod]:
    """The pods of the lab's DNS."""
    with lab.read() as snapshot:
        return [pod for pod in snapshot.list(Pod, "kube-system") if pod.metadata.labels.get("k8s-app") == "kube-dns"]


def dns_processes(lab: api.Lab) -> list[ProcessId]:
    return list(process.running(*nameserver.command(lab.built.name)[3:]))


def kill(victim: ProcessId) -> None:
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(victim), "its end")


def test_dns_is_a_service_like_any_other(lab: api.Lab) -> None:
    """It has the tenth address of each service range, UDP and TCP, and a Deployment's pod behind it."""
    dns = service(lab, "kube-dns", "kube-system")
    assert dns.spec.cluster_ips == ["10.96.0.10", "fd00:10:96::a"]
    assert [(each.port, each.protocol, each.name) for each in dns.spec.ports] == [
        (53, "UDP", "dns"),
        (53, "TCP", "dns-tcp"),
    ]
    (pod,) = servers(lab)
    assert pod.metadata.name.startswith("coredns-")
    assert is_ready(pod)
    # Addresses begin with the pods that somebody asked for.
    with lab.read() as snapshot:
        assert [pod.status.pod_ip for pod in snapshot.list(Pod, "default")] == ["10.244.0.2", "10.244.1.2"]


def test_what_a_pod_sees(lab: api.Lab) -> None:
    """A pod's resolv.conf is the kubelet's; nodes and clients keep the machine's, and so do the servers themselves."""
    assert run(lab, "east", "cat", "/etc/resolv.conf").stdout == (
        "nameserver 10.96.0.10\n"
        "nameserver fd00:10:96::a\n"
        "search default.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )
    assert "search shop.svc.cluster.local" in run(lab, "shop/db-0", "cat", "/etc/resolv.conf").stdout
    machines = Path("/etc/resolv.conf").read_text(encoding="utf-8")
    server = f"kube-system/{servers(lab)[0].metadata.name}"
    for where in ("left", "client", server):
        assert run(lab, where, "cat", "/etc/resolv.conf").stdout == machines


@pytest.mark.parametrize("where", ["east", "west", "the server itself"])
@pytest.mark.parametrize("server", ["10.96.0.10", "fd00:10:96::a"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_every_pod_reaches_it(lab: api.Lab, where: str, server: str, transport: str) -> None:
    """Through the cluster's addresses, over UDP and TCP, IPv4 and IPv6, from its node, another, and from itself."""
    if where == "the server itself":
        where = f"kube-system/{servers(lab)[0].metadata.name}"
    name = "web.default.svc.cluster.local"
    v4, v6 = service(lab, "web").spec.cluster_ips
    assert dig(lab, where, f"@{server}", transport, name, "A") == [v4]
    assert dig(lab, where, f"@{server}", transport, name, "AAAA") == [v6]


def test_names_as_programs_ask_for_them(lab: api.Lab) -> None:
    """By search paths: a Service, one of another namespace, a pod's own name, the API server, DNS itself; and back."""
    v4, v6 = service(lab, "web").spec.cluster_ips
    address = run(lab, "shop/db-0", "hostname", "-I").stdout.split()[0]
    for where, name, expected in (
        ("east", "web", {v4, v6}),
        ("west", "web.default", {v4, v6}),
        ("shop/db-0", "web.default.svc", {v4, v6}),
        ("east", "web.default.svc.cluster.local", {v4, v6}),
        ("east", "db-0.db.shop", {address}),
        ("east", "db.shop", {address}),
        ("shop/db-0", "db", {address}),
        ("east", "kubernetes", {"10.96.0.1"}),
        ("east", "kube-dns.kube-system", {"10.96.0.10", "fd00:10:96::a"}),
    ):
        done = run(lab, where, "getent", "ahosts", name)
        assert {line.split()[0] for line in done.stdout.splitlines()} == expected, name
    assert run(lab, "east", "getent", "hosts", v4).stdout.split() == [v4, "web.default.svc.cluster.local"]
    assert dig(lab, "east", "+search", "-t", "SRV", "_http._tcp.web") == ["0 100 80 web.default.svc.cluster.local."]
    assert run(lab, "east", "getent", "hosts", "web.shop").returncode == 2


def test_clients_connect_by_name(lab: api.Lab) -> None:
    """A program that knows nothing but a name gets answers from both pods."""
    script = "import socket; print(socket.create_connection(('web', 80)).recv(200).split()[0].decode())"
    said = {run(lab, "east", sys.executable, "-c", script).stdout.strip() for _ in range(12)}
    assert said == {"east", "west"}


def test_functions_look_names_up_as_programs_do(lab: api.Lab) -> None:
    """What is called in a pod finds a Service by name; elsewhere in this process, names are the machine's."""

    def look_up() -> set[str]:
        try:
            return {str(each[4][0]) for each in socket.getaddrinfo("web", 80)}
        except socket.gaierror:
            return set()

    addresses = set(service(lab, "web").spec.cluster_ips)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda where: lab.run(where, look_up), ["east", "shop/db-0", "west", "east"] * 4))
    assert found == [addresses, set(), addresses, addresses] * 4


def query(ident: int, name: str, kind: int) -> bytes:
    """A question as a resolver packs it, by hand."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return ident.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"


@pytest.mark.parametrize("server", [("10.96.0.10", 53), ("fd00:10:96::a", 53)])
def test_two_questions_at_once_from_one_socket(lab: api.Lab, server: tuple[str, int]) -> None:
    """As musl and glibc ask: A and AAAA of a name leave together; neither is lost to the rules' making of the flow."""
    name = "web.default.svc.cluster.local"

    def ask() -> int:
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(5)
            # Not connected, as musl's is not.
            asking.sendto(query(1, name, 1), server)
            asking.sendto(query(2, name, 28), server)
            return len({asking.recv(512)[:2] for _ in range(2)})

    assert lab.run("west", lambda: [ask() for _ in range(300)]) == [2] * 300


def test_an_answer_is_never_older_than_its_question(up: Up) -> None:
    """A service that is made is found as soon as the command has returned, and one that is deleted is not any more."""
    lab = up(MANIFESTS)
    made = "apiVersion: v1\nkind: Service\nmetadata: {name: new}\nspec: {clusterIP: 10.96.0.99, ports: [{port: 1}]}"
    name, server = "new.default.svc.cluster.local", ("10.96.0.10", 53)
    for transport in ("+notcp", "+tcp", "+notcp", "+tcp"):
        lab.apply(api.load(text=made))
        assert dig(lab, "east", transport, f"@{server[0]}", name) == ["10.96.0.99"]
        lab.delete([(Service, "default", "new")])
        assert dig(lab, "east", transport, f"@{server[0]}", name) == []


def test_servers_come_and_go(up: Up) -> None:
    """Scaled to two, each answers; one that is deleted, killed, or killed with its process, costs no question."""
    lab = up(MANIFESTS)
    lab.scale([(Deployment, "kube-system", "coredns")], 2)
    until(lambda: len(dns_processes(lab)) == 2, "two servers")
    asked, lost, enough = [], [], threading.Event()

    def ask() -> None:
        while not enough.is_set() and len(asked) < 100_000:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(5)
                asking.connect(("10.96.0.10", 53))
                asking.send(query(7, "web.default.svc.cluster.local", 1))
                try:
                    asked.append(asking.recv(512))
                except OSError as error:
                    lost.append(error)

    client = threading.Thread(target=lambda: lab.run("east", ask))
    client.start()
    try:
        for _ in range(2):
            before = {pod.metadata.name for pod in servers(lab)}
            lab.delete([(Pod, "kube-system", min(before))])
            until(lambda: len(dns_processes(lab)) == 2, "another server")
            assert len({pod.metadata.name for pod in servers(lab)} - before) == 1
        for victim in dns_processes(lab):
            kill(victim)
        until(lambda: len(dns_processes(lab)) == 2, "the same pods' next processes")
        count = len(asked)
        until(lambda: len(asked) > count, "their answers")
    finally:
        enough.set()
        client.join()
    # A process that is killed takes the questions with it that it has read.
    assert len(lost) <= 2, lost
    until(lambda: sum(pod.status.container_statuses[0].restart_count or 0 for pod in servers(lab)) == 2, "the count")


def test_no_question_is_lost_under_load(up: Up) -> None:
    """2,000 questions a second from a pod to a server on another node, each pair of them a flow: all are answered."""
    lab = up(load.manifest(50))
    tally = lab.run("asker", lambda: load.ask(2000, 3, 50))
    assert tally.asked >= 5000
    assert len(tally.took) == tally.asked


def test_a_lab_without(up: Up) -> None:
    """A Topology can do without DNS: pods have the machine's resolv.conf, and no process runs for it."""
    lab = up(
        NAMELESS + MANIFESTS.removeprefix(TWO_NODES).replace("nodeName: left, ", "").replace("nodeName: right, ", "")
    )
    assert servers(lab) == []
    assert dns_processes(lab) == []
    assert state.read(lab.built.folder).supervisor is None
    assert run(lab, "east", "cat", "/etc/resolv.conf").stdout == Path("/etc/resolv.conf").read_text(encoding="utf-8")


OWN = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
serviceCIDR: 10.128.0.0/24,fd00:10:128::/112
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {selector: {app: mine}, clusterIP: 10.128.0.53, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mine, namespace: kube-system, labels: {app: mine}}
spec: {dnsPolicy: Default, containers: [{name: main, image: svcnat/dns}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {containers: [{name: main, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  dnsConfig: {searches: [example.com], options: [{name: ndots, value: "2"}, {name: use-vc}]}
  containers: [{name: main, image: x}]
"""


def test_manifests_may_bring_their_own(up: Up) -> None:
    """Then pods ask that, wherever it is, and there is no other; the image svcnat/dns answers."""
    lab = up(OWN)
    assert [pod.metadata.name for pod in all_pods(lab)] == ["other", "plain", "mine"]
    assert run(lab, "plain", "cat", "/etc/resolv.conf").stdout.startswith("nameserver 10.128.0.53\nsearch ")
    for where in ("plain", "other"):  # one asks over UDP, the other over TCP, which that Service does not have
        found = run(lab, where, "getent", "ahostsv4", "kube-dns.kube-system.svc.cluster.local")
        assert found.stdout[:11] == ("10.128.0.53" if where == "plain" else "")
    assert "nameserver 10.128.0.53\nsearch default.svc.cluster.local svc.cluster.local cluster.local example.com\n" in (
        text := run(lab, "other", "cat", "/etc/resolv.conf").stdout
    )
    assert text.endswith("options ndots:2 use-vc\n")


def all_pods(lab: api.Lab) -> list[Pod]:
    with lab.read() as snapshot:
        return list(snapshot.list(Pod))


def test_an_address_that_dns_has_is_refused_to_others(up: Up) -> None:
    """A Service that asks for it is refused, with its line, and the lab is not built."""
    taken = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: 10.96.0.10, ports: [{port: 1}]}\n"
    with pytest.raises(ManifestError, match=r"lab.yml:4: Service default/x: .* 10.96.0.10: .* already allocated"):
        up(taken)


BESIDE = """
import subprocess, sys
from svcnat import api
from tests.dns.upstream import upstream
from tests.lab.test_names import MANIFESTS, build, run, take_down
from pathlib import Path

ALIAS = '''---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: plain.example.com}
'''

with upstream("/proc/thread-self/ns/net") as other:
    lab = build(Path(sys.argv[1]), MANIFESTS + ALIAS)
    try:
        for where in ("east", "west"):
            for name in ("plain.example.com", "outside", "missing.example.com", "web"):
                print(where, name, run(lab, where, "getent", "ahostsv4", name).stdout.partition(" ")[0])
        print(sorted(word for word, _ in other.asked if word in ("web", "east", "west")))
        print(run(lab, "client", "getent", "ahostsv4", "plain.example.com").returncode)
    finally:
        take_down(lab)
"""


def beside(folder: Path, program: str, *mounts: str) -> list[str]:
    """What a Python program prints on a machine of its own: network, mounts, processes and labs."""
    (folder / "program.py").write_text(program)
    script = "\n".join([*mounts, "ip link set lo up", f"exec {sys.executable} {folder}/program.py {folder}"])
    done = subprocess.run(
        ["unshare", "-rnm", "sh", "-ec", script],
        env=os.environ | {"SVCNAT_RUNTIME_DIR": f"{folder}/run", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_other_names_are_the_machines(tmp_path: Path) -> None:
    """They are asked of its servers, in its network, also for pods that cannot reach these; cluster names never are."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.9\n")
    lines = beside(tmp_path, BESIDE, f"mount --bind {tmp_path}/resolv.conf $(readlink -f /etc/resolv.conf)")
    web = lines[3].split()[2]
    assert lines == [
        f"{where} {name} {answer}"
        for where in ("east", "west")
        for name, answer in (
            ("plain.example.com", "192.0.2.1"),
            ("outside", "192.0.2.1"),
            ("missing.example.com", ""),
            ("web", web),
        )
    ] + ["[]", "2"]


BYPASSES = """
import socket, sys, threading
from pathlib import Path
from tests.lab.test_names import MANIFESTS, build, run, take_down

LOOK = "import socket; print(socket.socket(socket.AF_UNIX).connect_ex(%r))"
asked = {}

def refuse(listener, name):
    while True:
        listener.accept()[0].close()
        asked[name] += 1

for name in ("/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket"):
    Path(name).parent.mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen()
    asked[name] = 0
    threading.Thread(target=refuse, args=(listener, name), daemon=True).start()

lab = build(Path(sys.argv[1]), MANIFESTS)
try:
    for where in ("client", "east"):
        for name in asked:
            print(where, run(lab, where, sys.executable, "-c", LOOK % name).stdout.strip())
    before = asked["/run/nscd/socket"]
    print(run(lab, "east", "getent", "ahostsv4", "kubernetes").stdout.split()[0], asked["/run/nscd/socket"] - before)
finally:
    take_down(lab)
"""


def test_nobody_answers_in_place_of_the_clusters_dns(tmp_path: Path) -> None:
    """Pods do not see the sockets of nscd, nss-resolve and nss-mdns, through which glibc would ask the machine's."""
    lines = beside(tmp_path, BYPASSES, "mount -t tmpfs none /run")
    assert lines == ["client 0"] * 3 + ["east 111"] * 3 + ["10.96.0.1 0"]
