"""Every record of the specification, and what is not there, asked with dig."""

from __future__ import annotations

import pytest

from svcnat.kernel import netns
from tests.dns.cluster import Dug, cluster, dig, needs_dig
from tests.dns.serving import loopback, serving

pytestmark = needs_dig
NX, OK = "NXDOMAIN", "NOERROR"
SVC = "svc.cluster.local"
SOA = "SOA ns.dns.cluster.local. hostmaster.cluster.local."

# Name, type, status, the answers' data in any order.
ROWS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # The schema's version, the zone itself
    ("dns-version.cluster.local", "TXT", OK, ('TXT "1.1.0"',)),
    ("dns-version.cluster.local", "A", OK, ()),
    ("cluster.local", "SOA", OK, (SOA,)),
    ("cluster.local", "NS", OK, ("NS ns.dns.cluster.local.",)),
    ("cluster.local", "A", OK, ()),
    ("ns.dns.cluster.local", "A", OK, ("A 10.96.0.10",)),
    ("ns.dns.cluster.local", "AAAA", OK, ()),
    ("dns.cluster.local", "A", OK, ()),
    ("other.cluster.local", "A", NX, ()),
    # Services with cluster IPs: A, AAAA
    (f"web.default.{SVC}", "A", OK, ("A 10.96.0.20",)),
    (f"web.default.{SVC}", "AAAA", OK, ()),
    (f"web.default.{SVC}", "TXT", OK, ()),
    (f"web.default.{SVC}", "MX", OK, ()),
    (f"web.default.{SVC}", "HTTPS", OK, ()),
    (f"web.default.{SVC}", "ANY", OK, ("A 10.96.0.20",)),
    ("WEB.Default.sVC.Cluster.LOCAL", "A", OK, ("A 10.96.0.20",)),
    (f"dual.default.{SVC}", "A", OK, ("A 10.96.0.22",)),
    (f"dual.default.{SVC}", "AAAA", OK, ("AAAA fd00:10:96::22",)),
    (f"six.default.{SVC}", "A", OK, ()),
    (f"six.default.{SVC}", "AAAA", OK, ("AAAA fd00:10:96::23",)),
    (f"pending.default.{SVC}", "A", OK, ()),
    (f"nobody.default.{SVC}", "A", NX, ()),
    (f"web.other.{SVC}", "A", NX, ()),
    (f"kube-dns.kube-system.{SVC}", "A", OK, ("A 10.96.0.10",)),
    # SRV
    (f"_http._tcp.web.default.{SVC}", "SRV", OK, (f"SRV 0 100 80 web.default.{SVC}.",)),
    (f"_dns._udp.web.default.{SVC}", "SRV", OK, (f"SRV 0 100 53 web.default.{SVC}.",)),
    (f"_dns._tcp.web.default.{SVC}", "SRV", NX, ()),
    (f"_http._tcp.web.default.{SVC}", "A", OK, ()),
    (f"_tcp.web.default.{SVC}", "SRV", OK, ()),
    (f"_none._tcp.web.default.{SVC}", "SRV", NX, ()),
    (f"_80._tcp.unnamed.default.{SVC}", "SRV", NX, ()),
    (f"unnamed.default.{SVC}", "SRV", OK, (f"SRV 0 100 80 unnamed.default.{SVC}.",)),
    (
        f"web.default.{SVC}",
        "SRV",
        OK,
        (f"SRV 0 100 80 web.default.{SVC}.", f"SRV 0 100 53 web.default.{SVC}."),
    ),
    # PTR
    ("20.0.96.10.in-addr.arpa", "PTR", OK, (f"PTR web.default.{SVC}.",)),
    ("20.0.96.10.in-addr.arpa", "A", OK, ()),
    ("22.0.96.10.in-addr.arpa", "PTR", OK, (f"PTR dual.default.{SVC}.",)),
    (
        "2.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
        "PTR",
        OK,
        (f"PTR dual.default.{SVC}.",),
    ),
    ("99.0.96.10.in-addr.arpa", "PTR", NX, ()),
    # Headless Services
    (f"db.default.{SVC}", "A", OK, ("A 10.244.0.1", "A 10.244.0.2", "A 10.244.0.3")),
    (f"db.default.{SVC}", "AAAA", OK, ("AAAA fd00:10:244::1",)),
    (f"db-0.db.default.{SVC}", "A", OK, ("A 10.244.0.1",)),
    (f"db-0.db.default.{SVC}", "AAAA", OK, ("AAAA fd00:10:244::1",)),
    (f"DB-1.db.default.{SVC}", "A", OK, ("A 10.244.0.2",)),
    (f"db-1.db.default.{SVC}", "AAAA", OK, ()),
    (f"db-9.db.default.{SVC}", "A", NX, ()),
    (f"10-244-0-3.db.default.{SVC}", "A", OK, ("A 10.244.0.3",)),
    (f"10-244-0-1.db.default.{SVC}", "A", NX, ()),
    (
        f"_http._tcp.db.default.{SVC}",
        "SRV",
        OK,
        tuple(f"SRV 0 33 8080 {host}.db.default.{SVC}." for host in ("db-0", "db-1", "10-244-0-3")),
    ),
    ("1.0.244.10.in-addr.arpa", "PTR", OK, (f"PTR db-0.db.default.{SVC}.",)),
    ("3.0.244.10.in-addr.arpa", "PTR", OK, (f"PTR 10-244-0-3.db.default.{SVC}.",)),
    (f"empty.default.{SVC}", "A", NX, ()),
    (f"_http._tcp.empty.default.{SVC}", "SRV", NX, ()),
    (f"eager.default.{SVC}", "A", OK, ("A 10.244.0.9",)),
    (f"late.eager.default.{SVC}", "A", OK, ("A 10.244.0.9",)),
    (f"probed.default.{SVC}", "A", OK, ("A 10.244.1.1",)),
    (f"six-only.default.{SVC}", "A", OK, ()),
    (f"six-only.default.{SVC}", "AAAA", OK, ("AAAA fd00:10:244::7",)),
    (f"fd00-10-244--7.six-only.default.{SVC}", "AAAA", OK, ("AAAA fd00:10:244::7",)),
    # Hostnames of endpoints behind a cluster IP
    (f"only.named.default.{SVC}", "A", OK, ("A 10.244.0.40",)),
    ("40.0.244.10.in-addr.arpa", "PTR", OK, (f"PTR only.named.default.{SVC}.",)),
    # ExternalName
    (f"elsewhere.default.{SVC}", "CNAME", OK, ("CNAME www.example.com.",)),
    (f"elsewhere.default.{SVC}", "A", OK, ("CNAME www.example.com.",)),
    (f"alias.default.{SVC}", "A", OK, (f"CNAME Web.default.{SVC}.", "A 10.96.0.20")),
    (f"alias.default.{SVC}", "AAAA", OK, (f"CNAME Web.default.{SVC}.",)),
    (f"gone.default.{SVC}", "A", NX, (f"CNAME nobody.default.{SVC}.",)),
    (f"digits.default.{SVC}", "A", OK, ()),
    # Pods
    ("10-244-0-1.default.pod.cluster.local", "A", OK, ("A 10.244.0.1",)),
    ("10-244-0-1.default.pod.cluster.local", "AAAA", OK, ()),
    ("192-0-2-77.quiet.pod.cluster.local", "A", OK, ("A 192.0.2.77",)),
    ("fd00-10-244--1.default.pod.cluster.local", "AAAA", OK, ("AAAA fd00:10:244::1",)),
    ("--1.default.pod.cluster.local", "AAAA", OK, ("AAAA ::1",)),
    ("10-244-0-256.default.pod.cluster.local", "A", NX, ()),
    ("web.default.pod.cluster.local", "A", NX, ()),
    ("10-244-0-1.other.pod.cluster.local", "A", NX, ()),
    ("a.10-244-0-1.default.pod.cluster.local", "A", NX, ()),
    # What is between names, and wildcards
    (f"{SVC}", "A", OK, ()),
    ("pod.cluster.local", "A", OK, ()),
    (f"default.{SVC}", "A", OK, ()),
    (f"quiet.{SVC}", "A", OK, ()),
    ("quiet.pod.cluster.local", "A", OK, ()),
    (f"other.{SVC}", "A", NX, ()),
    (f"*.default.{SVC}", "A", NX, ()),
    (f"any.default.{SVC}", "A", NX, ()),
    (f"a.b.c.web.default.{SVC}", "A", NX, ()),
    (f"web\\.default.{SVC}", "A", NX, ()),
    ("www.example.com", "A", "SERVFAIL", ()),
)


@pytest.fixture(scope="module")
def where():
    """A namespace in which the cluster's names are answered."""
    import os
    import uuid

    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    name = f"svcnat-test-{uuid.uuid4().hex[:12]}"
    netns.create(name)
    try:
        with serving(loopback(name), cluster(), "127.0.0.1", "::1"):
            yield name
    finally:
        netns.delete(name)


def test_the_table_is_as_long_as_promised() -> None:
    """At least sixty questions, none of them twice."""
    assert len({row[:2] for row in ROWS}) == len(ROWS) >= 60


@pytest.mark.parametrize(("name", "kind", "status", "data"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_answer(where: str, name: str, kind: str, status: str, data: tuple[str, ...]) -> None:
    """Status and data are the specification's; whatever there is none of is proved by the zone's SOA."""
    found = dig(where, "127.0.0.1", "-q", name, "-t", kind)
    assert found.status == status, found.text
    got = sorted(line.split(" ", 1)[1] for line in found.answer)
    if kind == "SOA":
        assert len(got) == 1
        assert got[0].startswith(SOA)
    else:
        assert got == sorted(data)
    if status != "SERVFAIL" and not (status == NX and name.endswith("arpa")):
        assert "aa" in found.flags
    ours = name.rstrip(".").lower().endswith("cluster.local")
    missing = kind != "SOA" and ours and not any(line.startswith(kind) or kind == "ANY" for line in got)
    if missing and data != ("CNAME www.example.com.",):
        assert [line.startswith(f"cluster.local. {SOA}") for line in found.authority] == [True]


def test_case_of_the_question_is_kept(where: str) -> None:
    """The owner in the answer is spelled as it was asked for."""
    found = dig(where, "127.0.0.1", f"Web.deFAULT.{SVC}")
    assert found.answer == [f"Web.deFAULT.{SVC}. A 10.96.0.20"]


def test_srv_brings_the_addresses_of_its_targets(where: str) -> None:
    """Clients need not ask again for what an SRV record points to."""
    found = dig(where, "127.0.0.1", f"_http._tcp.db.default.{SVC}", "SRV")
    assert sorted(found.additional) == [
        f"10-244-0-3.db.default.{SVC}. A 10.244.0.3",
        f"db-0.db.default.{SVC}. A 10.244.0.1",
        f"db-0.db.default.{SVC}. AAAA fd00:10:244::1",
        f"db-1.db.default.{SVC}. A 10.244.0.2",
    ]


def test_addresses_are_rotated(where: str) -> None:
    """Who asks again gets another address first, and each comes first as often as any other."""
    orders = [dig(where, "127.0.0.1", f"db.default.{SVC}", "+short").text.split() for _ in range(6)]
    firsts = sorted(order[0] for order in orders)
    assert firsts == sorted(["10.244.0.1", "10.244.0.2", "10.244.0.3"] * 2)
    assert all(sorted(order) == ["10.244.0.1", "10.244.0.2", "10.244.0.3"] for order in orders)


def test_ttl_is_five_seconds(where: str) -> None:
    """As CoreDNS' default, for what is there and for what is not."""
    assert "\t5\tIN\tA\t" in dig(where, "127.0.0.1", f"web.default.{SVC}").text.replace(" ", "\t")
    assert "\t5\tIN\tSOA\t" in dig(where, "127.0.0.1", f"nobody.default.{SVC}").text.replace(" ", "\t")


def test_both_families_and_tcp(where: str) -> None:
    """The same over IPv6 and over TCP."""
    for server, flag in (("::1", "+notcp"), ("::1", "+tcp"), ("127.0.0.1", "+tcp")):
        assert dig(where, server, f"web.default.{SVC}", flag).answer == [f"web.default.{SVC}. A 10.96.0.20"]


def test_truncation_by_the_size_that_the_client_takes(where: str) -> None:
    """What does not fit says so, with as much as fits, and is whole over TCP."""

    def asked(*flags: str) -> Dug:
        return dig(where, "127.0.0.1", f"crowd.default.{SVC}", *flags)

    small, larger = asked("+noedns", "+ignore"), asked("+bufsize=1000", "+ignore")
    assert "tc" in small.flags
    assert "tc" in larger.flags
    assert 0 < len(small.answer) <= 30 < len(larger.answer) < 200
    whole = asked()  # dig asks again over TCP by itself
    assert "tc" not in whole.flags
    assert len(whole.answer) == 200


def test_what_is_refused(where: str) -> None:
    """Zone transfers, other classes, other operations, other versions of EDNS: each has its own word."""
    server = "127.0.0.1"
    assert "Transfer failed" in dig(where, server, "cluster.local", "AXFR").text
    assert dig(where, server, "version.bind", "TXT", "CH").status == "REFUSED"
    assert dig(where, server, f"web.default.{SVC}", "+opcode=UPDATE").status == "NOTIMP"
    assert dig(where, server, f"web.default.{SVC}", "+opcode=NOTIFY").status == "NOTIMP"
    assert dig(where, server, f"web.default.{SVC}", "+edns=1", "+noednsneg").status == "BADVERS"


def test_edns_is_answered_with_edns(where: str) -> None:
    """With the size that we take; options that we do not know, cookies among them, are passed over."""
    found = dig(where, "127.0.0.1", f"web.default.{SVC}", "+nsid", "+ednsopt=65001:beef", "+subnet=192.0.2.0/24")
    assert found.status == "NOERROR"
    assert "EDNS: version: 0, flags:; udp: 1232" in found.text
    assert "EDNS" not in dig(where, "127.0.0.1", f"web.default.{SVC}", "+noedns").text
