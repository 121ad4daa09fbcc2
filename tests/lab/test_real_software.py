"""Programs that people really run, behind services: redis, MariaDB, nginx and iperf3, each with its own clients.

The servers are containers of a lab. They share this machine's files; what each writes is in its pod's own folder.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
import redis

from svcnat.testing.lab import LabFixture, Place

pytestmark = [pytest.mark.packets, pytest.mark.slow]

NEEDED = ("redis-cli", "mariadbd", "mariadb", "nginx", "curl", "ab", "iperf3")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = Path(__file__).parents[2] / "netns-lab/three-tier"
REQUESTS = 300

NGINX = """
daemon off;
worker_processes 1;
user root;
pid /data/nginx.pid;
error_log stderr;
events {}
http {
    access_log /data/access.log;
    client_body_temp_path /data/body;
    proxy_temp_path /data/proxy;
    fastcgi_temp_path /data/fastcgi;
    uwsgi_temp_path /data/uwsgi;
    scgi_temp_path /data/scgi;
    server {
        listen 80;
        listen [::]:80;
        location / { return 200 "$hostname $remote_addr\\n"; }
    }
}
"""

TOPOLOGY = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{{name: east}}, {{name: west}}]
images:
  redis: [{programs}/run-redis, --save, "", --syslog-ident, $(HOSTNAME)]
  mariadb: [{programs}/run-mariadb]
  nginx: [nginx, -e, stderr, -c, {nginx}]
  iperf3: iperf3 --server
---
apiVersion: v1
kind: Pod
metadata: {{name: app}}
spec: {{containers: [{{name: app, image: app}}]}}
"""

SERVER = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {{app: {name}}}
  ports: [{{name: tcp, port: {port}}}, {{name: udp, port: {port}, protocol: UDP}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: {name}
        image: {name}
        env: [{env}]
        readinessProbe: {{{probe}, periodSeconds: 1}}
        volumeMounts: [{{name: data, mountPath: {folder}}}]
      volumes: [{{name: data, emptyDir: {{}}}}]
"""
PASSWORD = "it's a \\ secret"
ACCOUNT = f"""
{{name: MARIADB_DATABASE, value: shop}}, {{name: MARIADB_USER, value: guest}},
{{name: MARIADB_PASSWORD, value: {json.dumps(PASSWORD)}}}
"""


def require_programs(*names: str) -> None:
    """Skip a test on a machine without them; `make test` installs them."""
    missing = [name for name in names if not shutil.which(name, path=PATH)]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def server(name: str, port: int, *, replicas: int = 1, env: str = "", probe: str = "", folder: str = "/data") -> str:
    """A service over both families, TCP and UDP, and its pods, which are ready when they listen."""
    probe = probe or f"tcpSocket: {{port: {port}}}"
    return SERVER.format(name=name, port=port, replicas=replicas, env=env, probe=probe, folder=folder)


@pytest.fixture(scope="module")
def lab(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabFixture]:
    """Two nodes, a pod that asks, and the servers, which are ready."""
    require_programs(*NEEDED)
    nginx = tmp_path_factory.mktemp("nginx") / "nginx.conf"
    nginx.write_text(NGINX)
    lab = LabFixture()
    try:
        # iperf3 would take a probe's connection for a client's.
        listens = f"exec: {{command: [grep, -q, ':{5201:X} ', /proc/net/tcp6]}}"
        lab.apply(
            TOPOLOGY.format(programs=PROGRAMS, nginx=nginx)
            + server("redis", 6379, replicas=2)
            + server("mariadb", 3306, env=ACCOUNT, folder="/var/lib/mysql")
            + server("nginx", 80, replicas=3)
            + server("iperf3", 5201, probe=listens),
            ready=True,
        )
        yield lab
    finally:
        lab.close()


@pytest.fixture
def app(lab: LabFixture) -> Place:
    """The pod that asks."""
    return lab.pod("app")


@pytest.fixture(params=["IPv4", "IPv6", "name"])
def way(request: pytest.FixtureRequest) -> str:
    """How a client asks for a service."""
    return str(request.param)


def url(lab: LabFixture, service: str, way: str) -> str:
    """The same within a URL."""
    return f"[{host(lab, service, way)}]" if way == "IPv6" else host(lab, service, way)


def host(lab: LabFixture, service: str, way: str) -> str:
    """What a client is told to ask for."""
    v4, v6 = lab.services[service].spec.cluster_ips
    return {"IPv4": v4, "IPv6": v6, "name": service}[way]


def test_redis_and_its_command_line(lab: LabFixture, app: Place, way: str) -> None:
    """One connection has one server: what it sets it gets."""
    script = "printf 'set %s 42\\nincr %s\\nconfig get syslog-ident\\n' $1 $1 | redis-cli -h $2"
    said = app.run(["sh", "-c", script, "sh", way, host(lab, "redis", way)]).stdout.split()
    assert said[:3] == ["OK", "43", "syslog-ident"]
    assert said[3] in {each.name for each in lab.pods("app=redis")}


def test_redis_and_its_python_client(lab: LabFixture, app: Place, way: str) -> None:
    """Clients keep their server, and forty of them have both."""

    def ask(number: int) -> str:
        with redis.Redis(host(lab, "redis", way), decode_responses=True, socket_timeout=5) as client:
            client.set(f"{way}-{number}", number)
            assert client.get(f"{way}-{number}") == str(number)
            name: str = client.config_get("syslog-ident")["syslog-ident"]
            return name

    assert {app.call(lambda number=number: ask(number)) for number in range(40)} == {  # type: ignore[misc]
        each.name for each in lab.pods("app=redis")
    }


def test_mariadb_and_its_clients(lab: LabFixture, app: Place, way: str) -> None:
    """What its own client writes, a Python client reads; the server has its pod's name, sees the client's address."""
    server = host(lab, "mariadb", way)
    script = f"CREATE TABLE {way} (n INT); INSERT INTO {way} VALUES (1), (2), (3); SELECT @@hostname, USER()"
    command = ["mariadb", "--no-defaults", "-h", server, "-u", "guest", f"-p{PASSWORD}", "-BN", "-e", script, "shop"]
    name, user = app.run(command).stdout.split()
    assert name == lab.pods("app=mariadb")[0].name
    assert user in {f"guest@{address}" for address in app.addresses}

    def ask() -> tuple[tuple[int, ...], ...]:
        account = {"user": "guest", "password": PASSWORD, "database": "shop", "ssl_disabled": True}
        with pymysql.connect(host=server, **account) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT SUM(n), COUNT(*) FROM {way}")
            found: tuple[tuple[int, ...], ...] = cursor.fetchall()
            return found

    assert app.call(ask) == ((6, 3),)


def test_nginx_and_curl(lab: LabFixture, app: Place, way: str) -> None:
    """A page from one of the pods, which sees the client's address."""
    name, address = app.run(["curl", "-sS", "--fail", f"http://{url(lab, 'nginx', way)}/"]).stdout.split()
    assert name in {each.name for each in lab.pods("app=nginx")}
    assert address in app.addresses


def test_nginx_and_a_load_generator(lab: LabFixture, app: Place, way: str) -> None:
    """Every request of ab's is answered, and each pod answers its share of them."""
    before = {each.name: requests(each) for each in lab.pods("app=nginx")}
    said = app.run(["ab", "-q", "-l", "-n", str(REQUESTS), "-c", "8", f"http://{url(lab, 'nginx', way)}/"]).stdout
    numbers = dict(re.findall(r"(?m)^(Complete requests|Failed requests|Non-2xx responses): +(\d+)", said))
    assert numbers == {"Complete requests": str(REQUESTS), "Failed requests": "0"}
    shares = [requests(each) - before[each.name] for each in lab.pods("app=nginx")]
    assert sum(shares) == REQUESTS
    assert all(REQUESTS / 6 < share < REQUESTS / 2 for share in shares), shares  # by chance: one run in 10**9


def requests(pod: Place) -> int:
    """How many requests a pod's nginx has noted."""
    return int(pod.run(["sh", "-c", "wc -l </data/access.log"]).stdout)


def test_iperf3(lab: LabFixture, app: Place, way: str) -> None:
    """A megabyte over TCP, either way, and a hundred datagrams, none of which is lost."""

    def measure(*options: str) -> dict[str, dict[str, int]]:
        said = app.run(["iperf3", "--client", host(lab, "iperf3", way), "--json", *options])
        end: dict[str, dict[str, int]] = json.loads(said.stdout)["end"]
        return end

    for direction in ((), ("--reverse",)):
        end = measure("--bytes", "1M", *direction)
        assert end["sum_sent"]["bytes"] >= 1_000_000
        assert end["sum_received"]["bytes"] > 0  # counted when the last was sent, not when it came
    end = measure("--udp", "--bitrate", "2M", "--length", "1000", "--bytes", "100K")
    assert end["sum"]["packets"] >= 90  # the same
    assert end["sum"]["lost_packets"] == 0
