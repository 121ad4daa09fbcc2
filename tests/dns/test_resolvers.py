"""The resolvers that programs in pods have: glibc's, and one that asks for both families at once, as musl's does."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import dns.message
import pytest

from svcnat.dns import wire
from svcnat.kernel import netns
from tests.dns.cluster import cluster
from tests.dns.serving import loopback, serving, udp
from tests.dns.upstream import upstream

RESOLV_CONF = """\
nameserver 127.0.0.1
search default.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
"""


@pytest.fixture
def where(empty_netns: str) -> str:
    return loopback(empty_netns)


def getent(where: str, folder: Path, *words: str) -> list[list[str]]:
    """Ask glibc in a mount namespace with a resolv.conf of a pod's, and nobody that would answer in its place."""
    files = {"resolv.conf": RESOLV_CONF, "nsswitch.conf": "hosts: files dns\n", "hosts": "127.0.0.1 localhost\n"}
    lines = []
    for name, text in files.items():
        (folder / name).write_text(text)
        lines.append(f"mount --bind {shlex.quote(str(folder / name))} $(readlink -f /etc/{name})")
    lines += ["if [ -d /run/nscd ]; then mount -t tmpfs none /run/nscd; fi", f"exec getent {shlex.join(words)}"]
    with netns.entered(where):
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode in (0, 2), done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("getent"), reason="getent is glibc's")
def test_glibc(where: str, tmp_path: Path) -> None:
    """Short and long names, both families, the way back, CNAMEs, and names of others, over the search path."""
    good = ("127.0.0.9", 53)
    with upstream(where) as other, serving(where, cluster(), upstreams=lambda: (good,)):

        def first(*words: str) -> set[str]:
            return {line[0] for line in getent(where, tmp_path, *words)}

        for name in ("web", "web.default", "web.default.svc", "web.default.svc.cluster.local", "WEB"):
            assert first("ahostsv4", name) == {"10.96.0.20"}, name
        assert first("ahosts", "dual") == {"10.96.0.22", "fd00:10:96::22"}
        assert first("ahosts", "db") == {"10.244.0.1", "10.244.0.2", "10.244.0.3", "fd00:10:244::1"}
        assert first("ahosts", "db-0.db") == {"10.244.0.1", "fd00:10:244::1"}
        assert first("ahosts", "kube-dns.kube-system") == {"10.96.0.10"}
        assert first("ahostsv4", "alias") == {"10.96.0.20"}
        assert len(first("ahostsv4", "crowd")) == 200  # truncated, and asked again over TCP
        assert getent(where, tmp_path, "hosts", "10.96.0.20") == [["10.96.0.20", "web.default.svc.cluster.local"]]
        assert first("ahosts", "nobody") == {"192.0.2.1"}  # this upstream knows everything
        assert ("plain", "UDP") not in other.asked
        assert first("ahostsv4", "plain.example.com") == {"192.0.2.1"}
        assert ("plain", "UDP") in other.asked
        assert first("ahosts", "missing") == set()


def test_both_families_from_one_socket(where: str) -> None:
    """A and AAAA sent back to back from one port: each gets its own answer, with its own number."""
    with serving(where, cluster()), udp(where) as client:
        for name, four, six in (("web", 1, 0), ("dual", 1, 1), ("six", 0, 1), ("db", 3, 1), ("nobody", 0, 0)):
            for kind in (1, 28):
                question = wire.question_of((name, "default", "svc", "cluster", "local"), kind)
                client.send(wire.ask(kind, question, recurse=True, edns=False, do=False))
            found = {}
            for _ in range(2):
                message = dns.message.from_wire(client.recv(512))
                found[message.id] = (message.rcode(), sum(map(len, message.answer)))
            code = 3 if name == "nobody" else 0
            assert found == {1: (code, four), 28: (code, six)}


def test_a_burst_is_not_lost(where: str) -> None:
    """What a pod sends at once waits in the socket's buffer, and is answered."""
    question = wire.question_of(("web", "default", "svc", "cluster", "local"), 1)
    with serving(where, cluster()), udp(where) as client:
        for n in range(150):
            client.send(wire.ask(n, question, recurse=True, edns=False, do=False))
        assert {client.recv(512)[:2] for _ in range(150)} == {n.to_bytes(2, "big") for n in range(150)}
