"""Other names are asked of other servers, and only their answers are believed."""

from __future__ import annotations

import time

import pytest

from svcnat.dns.forwarding import ResolvConf, name_servers
from svcnat.dns.records import Records
from tests.dns.cluster import cluster, dig, needs_dig, service
from tests.dns.serving import loopback, serving
from tests.dns.upstream import upstream

pytestmark = needs_dig
SERVER = "127.0.0.1"
GOOD, ABSENT = ("127.0.0.9", 53), ("127.0.0.8", 53)


@pytest.fixture
def where(empty_netns: str) -> str:
    return loopback(empty_netns)


def test_other_names_are_forwarded(where: str) -> None:
    """The answer is the upstream's, RA is set, and ours are never asked of it."""
    with upstream(where) as other, serving(where, cluster(), upstreams=lambda: (GOOD,)):
        found = dig(where, SERVER, "Plain.example.com")
        assert (found.status, found.answer) == ("NOERROR", ["Plain.example.com. A 192.0.2.1"])
        assert "ra" in found.flags
        assert "aa" not in found.flags
        assert dig(where, SERVER, "plain.example.com", "+tcp").answer == ["plain.example.com. A 192.0.2.1"]
        assert dig(where, SERVER, "missing.example.com").status == "NXDOMAIN"
        assert dig(where, SERVER, "9.9.9.9.in-addr.arpa", "PTR").status == "NOERROR"
        asked = len(other.asked)
        assert dig(where, SERVER, "nobody.default.svc.cluster.local").status == "NXDOMAIN"
        assert len(other.asked) == asked


def test_what_does_not_fit_comes_over_tcp(where: str) -> None:
    """A truncated answer is asked for again over TCP, and cut again for who asked over UDP."""
    with upstream(where) as other, serving(where, cluster(), upstreams=lambda: (GOOD,)):
        assert len(dig(where, SERVER, "big.example.com", "+tcp").answer) == 200
        assert other.asked == [("big", "UDP"), ("big", "TCP")]
        assert "tc" in dig(where, SERVER, "big.example.com", "+ignore").flags
        assert len(dig(where, SERVER, "big.example.com").answer) == 200


def test_forged_answers_are_not_believed(where: str) -> None:
    """Another number, another question, garbage, the question itself: the one true answer comes after them."""
    with upstream(where), serving(where, cluster(), upstreams=lambda: (GOOD,)):
        assert dig(where, SERVER, "forged.example.com").answer == ["forged.example.com. A 192.0.2.1"]


def test_numbers_and_ports_are_random(where: str) -> None:
    """Who wants to forge an answer has to guess both."""
    with upstream(where) as other, serving(where, cluster(), upstreams=lambda: (GOOD,)):
        dig(where, SERVER, *(f"plain.n{n}.example.com" for n in range(40)))
    assert len(set(other.numbers)) > 35
    assert len(set(other.ports)) > 35
    assert sorted(other.ports) != other.ports


def test_a_server_that_is_silent_or_absent_is_passed_over(where: str) -> None:
    """The next one answers; if none does, SERVFAIL says so."""
    with (
        upstream(where),
        upstream(where, ABSENT[0]),
        serving(where, cluster(), upstreams=lambda: (("127.0.0.7", 53), GOOD), patience=0.2),
    ):
        assert dig(where, SERVER, "plain.example.com").answer
        assert dig(where, SERVER, "silent.example.com").status == "SERVFAIL"
        assert dig(where, SERVER, "broken.example.com").status == "SERVFAIL"
        assert dig(where, SERVER, "web.default.svc.cluster.local").answer


def test_without_upstream_servers(where: str) -> None:
    """SERVFAIL, at once; names of addresses, which nobody else would know, are NXDOMAIN."""
    with serving(where, cluster(), upstreams=lambda: ()):
        began = time.monotonic()
        assert dig(where, SERVER, "plain.example.com").status == "SERVFAIL"
        assert dig(where, SERVER, "9.9.9.9.in-addr.arpa", "PTR").status == "NXDOMAIN"
        assert time.monotonic() - began < 20


def test_external_names_are_completed(where: str) -> None:
    """A stub resolver gets the addresses behind the CNAME with it, and the code of what it leads to."""
    records = Records()
    for name in ("plain", "missing", "broken"):
        records.put(service(name, type="ExternalName", external_name=f"{name}.example.com"), ())
    with upstream(where), serving(where, records, upstreams=lambda: (GOOD,)):
        name = "plain.default.svc.cluster.local"
        assert dig(where, SERVER, name).answer == [
            f"{name}. CNAME plain.example.com.",
            "plain.example.com. A 192.0.2.1",
        ]
        assert dig(where, SERVER, name, "AAAA").answer == [f"{name}. CNAME plain.example.com."]
        found = dig(where, SERVER, "missing.default.svc.cluster.local")
        assert found.status == "NXDOMAIN"
        assert len(found.answer) == 1
        assert dig(where, SERVER, "broken.default.svc.cluster.local").status == "SERVFAIL"


def test_resolv_conf(tmp_path) -> None:
    """The first three servers of the file, as it is at the time."""
    file, now = tmp_path / "resolv.conf", [0.0]
    servers = ResolvConf(file, clock=lambda: now[0])
    assert servers() == ()
    file.write_text("search example.org\nnameserver 127.0.0.1\n#nameserver 192.0.2.9\nnameserver 192.0.2.1 \n")
    assert servers() == ()
    now[0] += 1
    assert servers() == (("127.0.0.1", 53), ("192.0.2.1", 53))
    text = "nameserver fe80::1%eth0\nnameserver ::1\nnameserver 300.1.1.1\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n"
    assert name_servers(text) == (("fe80::1%eth0", 53), ("::1", 53), ("1.1.1.1", 53))
