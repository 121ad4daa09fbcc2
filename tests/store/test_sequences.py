from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.react import settled
from svcnat.controllers.slices import MANAGER_LABEL
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

services: Any = st.builds(
    service,
    names,
    selector=labels,
    ports=ports,
    publish_not_ready_addresses=st.booleans(),
    ip_family_policy=st.sampled_from([None, "PreferDualStack"]),
)
pods: Any = st.builds(
    lambda name, number, **more: pod(name, f"10.0.0.{number}", f"fd00::{number}", **more),
    st.sampled_from(["p", "q", "r", "s"]),
    st.integers(1, 4),
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


def edit(store: Store, new: Resource, verb: str) -> None:
    place = (new.metadata.namespace, new.metadata.name)
    with store.transaction() as transaction:
        old = transaction.get(type(new), *place)
        # A Pod's containers are immutable: as in a cluster, another one of the same name takes its place.
        if old and (verb == "delete" or (isinstance(new, Pod) and new.spec != getattr(old, "spec", None))):
            transaction.delete(type(new), *place)
            old = None
        if verb == "put":
            transaction.replace(new) if old else transaction.create(new)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.lists(edits, min_size=1, max_size=2).map(lambda parts: [each for part in parts for each in part]))
def test_edits_end_where_a_fresh_world_begins(steps: list[tuple[Resource, str]]) -> None:
    """Whatever happened on the way, every Service has the endpoints that its final objects ask for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        with Store.open(path) as store:
            for new, verb in steps:
                edit(store, new, verb)
            with store.read() as snapshot:
                final: list[Resource] = [each for kind in KINDS for each in snapshot.list(kind.type)]
                written = [each for each in final if MANAGER_LABEL not in each.metadata.labels]
                fresh = settled([replace(each, metadata=replace(each.metadata, uid="")) for each in written])
                for each in fresh.list(Service):
                    name = each.metadata.name
                    assert endpoints_of(snapshot, name) == endpoints_of(fresh, name)
                    zones = {end.zone for one in slices_of(snapshot, name) for end in one.endpoints if end.node_name}
                    assert zones == {
                        end.zone for one in slices_of(fresh, name) for end in one.endpoints if end.node_name
                    }
        check(path)
