"""A small cluster with one object for each rule of the specification, and questions asked of it with dig."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field

import pytest

from svcnat.dns.records import Records
from svcnat.kernel import netns
from svcnat.model.extensions import PROBE, PROBE_RESULTS
from svcnat.model.objects import (
    Endpoint,
    EndpointConditions,
    EndpointSlice,
    EndpointSlicePort,
    ObjectMeta,
    Pod,
    Service,
    ServicePort,
    ServiceSpec,
)

needs_dig = pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed (bind9-dnsutils)")


def service(name: str, *ports: ServicePort, namespace: str = "default", annotations=None, **spec) -> Service:
    meta = ObjectMeta(name=name, namespace=namespace, annotations=annotations or {})
    return Service(metadata=meta, spec=ServiceSpec(ports=list(ports), **spec))


def headless(name: str, *ports: ServicePort, **spec) -> Service:
    return service(name, *ports, cluster_ip="None", cluster_ips=["None"], **spec)


def port(name: str, number: int, protocol: str = "TCP") -> ServicePort:
    return ServicePort(name=name, port=number, protocol=protocol)


def endpoint(address: str, hostname: str | None = None, *, ready: bool | None = True) -> Endpoint:
    return Endpoint(addresses=[address], hostname=hostname, conditions=EndpointConditions(ready=ready))


def piece(
    name: str, *endpoints: Endpoint, ports: tuple[tuple[str, int, str], ...] = (), namespace="default", annotations=None
) -> EndpointSlice:
    version = "IPv6" if endpoints and ":" in endpoints[0].addresses[0] else "IPv4"
    return EndpointSlice(
        metadata=ObjectMeta(name=name, namespace=namespace, annotations=annotations or {}),
        address_type=version,
        endpoints=list(endpoints),
        ports=[EndpointSlicePort(name=name, port=number, protocol=protocol) for name, number, protocol in ports],
    )


WEB = (("http", 8080, "TCP"),)
CLUSTER: tuple[tuple[Service, tuple[EndpointSlice, ...]], ...] = (
    (service("web", port("http", 80), port("dns", 53, "UDP"), cluster_ip="10.96.0.20"), ()),
    (service("unnamed", port("", 80), cluster_ip="10.96.0.21"), ()),
    (service("dual", port("http", 80), cluster_ips=["10.96.0.22", "fd00:10:96::22"]), ()),
    (service("six", port("http", 80), cluster_ip="fd00:10:96::23"), ()),
    (service("pending", port("http", 80)), ()),
    (
        headless("db", port("http", 80)),
        (
            piece("db-a", endpoint("10.244.0.2", "db-1"), endpoint("10.244.0.1", "db-0"), ports=WEB),
            piece("db-b", endpoint("10.244.0.3"), endpoint("10.244.0.9", "db-9", ready=False), ports=WEB),
            piece("db-c", endpoint("fd00:10:244::1", "db-0"), ports=WEB),
        ),
    ),
    (headless("empty", port("http", 80)), (piece("empty-a", endpoint("10.244.0.9", ready=False), ports=WEB),)),
    (
        headless("eager", port("http", 80), publish_not_ready_addresses=True),
        (piece("eager-a", endpoint("10.244.0.9", "late", ready=False), ports=WEB),),
    ),
    (
        headless("probed", port("http", 80), annotations={PROBE: '{"tcpSocket": {}}'}),
        (
            piece(
                "probed-a",
                endpoint("10.244.1.1"),
                endpoint("10.244.1.2"),
                ports=WEB,
                annotations={PROBE_RESULTS: '{"10.244.1.2": false}'},
            ),
        ),
    ),
    (headless("six-only", port("http", 80)), (piece("six-a", endpoint("fd00:10:244::7"), ports=WEB),)),
    (
        headless("crowd", port("http", 80)),
        tuple(piece(f"c-{n}", *(endpoint(f"10.244.{n}.{i}") for i in range(1, 101)), ports=WEB) for n in (10, 11)),
    ),
    (service("named", cluster_ip="10.96.0.24"), (piece("named-a", endpoint("10.244.0.40", "only")),)),
    (service("elsewhere", type="ExternalName", external_name="www.example.com"), ()),
    (service("alias", type="ExternalName", external_name="Web.default.svc.cluster.local."), ()),
    (service("gone", type="ExternalName", external_name="nobody.default.svc.cluster.local"), ()),
    (service("circle", type="ExternalName", external_name="circle.default.svc.cluster.local"), ()),
    (service("digits", type="ExternalName", external_name="192.0.2.1"), ()),
    (
        service("kube-dns", port("dns", 53, "UDP"), namespace="kube-system", cluster_ip="10.96.0.10"),
        (),
    ),
)


def cluster() -> Records:
    records = Records()
    for each, slices in CLUSTER:
        records.put(each, slices)
    records.put_pod(Pod(metadata=ObjectMeta(name="lonely", namespace="quiet")))
    return records


@dataclass
class Dug:
    """What dig showed: the status, the flags, and the records of each section without their TTLs."""

    status: str = ""
    flags: frozenset[str] = frozenset()
    answer: list[str] = field(default_factory=list)
    authority: list[str] = field(default_factory=list)
    additional: list[str] = field(default_factory=list)
    text: str = ""


def dig(where: str, server: str, *words: str, number: int = 53) -> Dug:
    command = ["dig", f"@{server}", "-p", str(number), "+tries=2", "+time=5", *words]
    with netns.entered(where):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = Dug(text=done.stdout)
    section = None
    for line in done.stdout.splitlines():
        if line.startswith(";; ->>HEADER<<-"):
            found.status = line.split("status: ")[1].split(",")[0]
        elif line.startswith(";; flags:"):
            found.flags = frozenset(line.split(":")[1].split(";")[0].split())
        elif line.startswith(";; ") and line.endswith("SECTION:"):
            section = {"ANSWER": found.answer, "AUTHORITY": found.authority, "ADDITIONAL": found.additional}.get(
                line.split()[1]
            )
        elif line and not line.startswith(";") and section is not None:
            owner, ttl, _, kind, *data = line.split()
            del ttl
            section.append(" ".join((owner, kind, *data)))
    return found
