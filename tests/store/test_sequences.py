from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.react import settled
from svcnat.controllers.slices import MANAGER_LABEL
from svcnat.controllers.world import Reader
from svcnat.errors import ManifestError
from svcnat.model.kinds import KINDS
from svcnat.model.objects import (
    EndpointAddress,
    Endpoints,
    EndpointSlicePort,
    EndpointSubset,
    Node,
    ObjectMeta,
    Pod,
    Resource,
    Service,
    ServicePort,
)
from svcnat.store.sqlite import Store
from tests.controllers.build import endpoints_of, pod, service, slices_of
from tests.store.invariants import check

names = st.sampled_from(["a", "b", "c"])
labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]), max_size=2)
ports = st.sampled_from([(80,), (ServicePort(name="n", port=80, target_port="named"), ServicePort(name="o", port=81))])

KINDS_OF_SERVICE: list[dict[str, Any]] = [
    {"type": "ClusterIP"},
    {"cluster_ip": "None"},
    {"type": "NodePort"},
    {"type": "LoadBalancer"},
    {"type": "LoadBalancer", "external_traffic_policy": "Local"},
    {"type": "LoadBalancer", "load_balancer_ip": "192.0.2.2"},
    {"type": "LoadBalancer", "allocate_load_balancer_node_ports": False},
    {"type": "ExternalName", "external_name": "example.org"},
]
POOL = ["192.0.2.1-192.0.2.2", "2001:db8::1-2001:db8::1"]


def a_service(name: str, kind: dict[str, Any], policy: str | None, number: int | None, **spec: Any) -> Service:
    """A Service of any kind; a node port and two families only where they may be."""
    exposed = kind.get("type") in ("NodePort", "LoadBalancer")
    first, *others = spec.pop("ports")
    if exposed and number:
        first = ServicePort(name="n" if others else "", port=80, node_port=number)
    policy = policy if kind.get("type") != "ExternalName" else None
    return service(name, ports=(first, *others), ip_family_policy=policy, **kind, **spec)


services: Any = st.builds(
    a_service,
    names,
    kind=st.sampled_from(KINDS_OF_SERVICE),
    policy=st.sampled_from([None, "PreferDualStack"]),
    number=st.sampled_from([None, None, 30080]),
    selector=labels,
    ports=ports,
    publish_not_ready_addresses=st.booleans(),
    traffic_distribution=st.sampled_from([None, "PreferSameNode"]),
)


def annotated(resource: Pod, weight: str) -> Pod:
    return replace(resource, metadata=replace(resource.metadata, annotations={"svcnat.io/weight": weight}))


pods: Any = st.builds(
    lambda name, number, weight, **more: annotated(pod(name, f"10.0.0.{number}", f"fd00::{number}", **more), weight),
    st.sampled_from(["p", "q", "r", "s"]),
    st.integers(1, 4),
    st.sampled_from(["1", "1", "0", "7"]),
    labels=labels,
    ready=st.booleans(),
    phase=st.sampled_from(["Running", "Running", "Failed"]),
    deleted=st.sampled_from([None, None, "2026-01-01T00:00:00Z"]),
    ports=st.sampled_from([(), (("named", 8080, "TCP"),), (("named", 9090, "TCP"),)]),
    node_name=st.just("node"),
)
endpoints: Any = st.builds(
    lambda name, ip, skip: Endpoints(
        metadata=ObjectMeta(
            name=name, namespace="default", labels={"endpointslice.kubernetes.io/skip-mirror": "true"} if skip else {}
        ),
        subsets=[EndpointSubset(addresses=[EndpointAddress(ip=ip)], ports=[EndpointSlicePort(port=8080)])],
    ),
    names,
    st.sampled_from(["192.0.2.1", "2001:db8::1"]),
    st.booleans(),
)
nodes = st.builds(
    lambda zone: Node(metadata=ObjectMeta(name="node", labels={"topology.kubernetes.io/zone": zone})),
    st.sampled_from(["east", "west"]),
)
edits = st.lists(
    st.tuples(services | pods | pods | endpoints | nodes, st.sampled_from(["put", "put", "delete"])), max_size=14
)


def weights_of(world: Reader, name: str) -> dict[str, int]:
    texts = [each.metadata.annotations.get("svcnat.io/weights", "{}") for each in slices_of(world, name)]
    return {ip: weight for text in texts for ip, weight in json.loads(text).items()}


def places_of(world: Reader, name: str) -> set[tuple[str, str | None, str]]:
    """Where each endpoint is, and for whom."""
    return {
        (end.addresses[0], end.zone, repr(end.hints))
        for one in slices_of(world, name)
        for end in one.endpoints
        if end.node_name
    }


def edit(store: Store, new: Resource, verb: str) -> None:
    place = (new.metadata.namespace, new.metadata.name)
    with store.transaction() as transaction:
        old = transaction.get(type(new), *place)
        if old and isinstance(old, Service) and isinstance(new, Service) and verb == "put":
            # Headless or not is for life: as in a cluster, another one of the same name takes its place.
            verb = "anew" if old.spec.cluster_ip == "None" or new.spec.cluster_ip == "None" else verb
        # A Pod's containers are immutable: as in a cluster, another one of the same name takes its place.
        if old and (verb in ("delete", "anew") or (isinstance(new, Pod) and new.spec != getattr(old, "spec", None))):
            transaction.delete(type(new), *place)
            old = None
        if verb != "delete":
            transaction.replace(new) if old else transaction.create(new)


@settings(derandomize=True, max_examples=60, database=None)
@given(st.lists(edits, min_size=1, max_size=2).map(lambda parts: [each for part in parts for each in part]))
def test_edits_end_where_a_fresh_world_begins(steps: list[tuple[Resource, str]]) -> None:
    """Whatever happened on the way, every Service has the endpoints and addresses that its final objects ask for.

    Nobody waits for a load balancer's address that nobody has.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        with Store.open(path, load_balancer_pool=POOL) as store:
            for new, verb in steps:
                with contextlib.suppress(ManifestError):  # Two Services ask for one node port: the second gets nothing.
                    edit(store, new, verb)
            with store.read() as snapshot:
                final: list[Resource] = [each for kind in KINDS for each in snapshot.list(kind.type)]
                written = [each for each in final if MANAGER_LABEL not in each.metadata.labels]
                fresh = settled(
                    [replace(each, metadata=replace(each.metadata, uid="")) for each in written],
                    load_balancer_pool=POOL,
                )
                for each in fresh.list(Service):
                    name = each.metadata.name
                    stored = snapshot.get(Service, "default", name)
                    assert stored
                    assert (stored.spec, stored.status) == (each.spec, each.status)
                    assert endpoints_of(snapshot, name) == endpoints_of(fresh, name)
                    assert weights_of(snapshot, name) == weights_of(fresh, name)
                    assert places_of(snapshot, name) == places_of(fresh, name)
        check(path)
