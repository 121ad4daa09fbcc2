"""State files whose Pods somebody runs: deleting one begins its end, and endpoints say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from svcnat.errors import ConflictError
from svcnat.model.objects import (
    Condition,
    Container,
    EndpointSlice,
    Namespace,
    ObjectMeta,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
    Service,
    ServicePort,
    ServiceSpec,
)
from svcnat.store.sqlite import Store

BEGUN = "2026-05-17T10:00:00Z"


@pytest.fixture
def store(path: Path) -> Store:
    return Store.open(path, graceful=True, clock=lambda: BEGUN)


def pod(name: str, *, node: str = "n1", phase: str = "Running", grace: int | None = None) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default", labels={"app": "web"}),
        spec=PodSpec(
            containers=[Container(name="c", image="x")], node_name=node, termination_grace_period_seconds=grace
        ),
        status=PodStatus(
            phase=phase, pod_ips=[PodIP(ip="10.244.0.9")], conditions=[Condition(type="Ready", status="True")]
        ),
    )


def create(store: Store, *resources: Pod | Service | Namespace) -> None:
    with store.transaction() as transaction:
        for each in resources:
            transaction.create(each)


def delete(store: Store, name: str, grace: int | None = None) -> None:
    with store.transaction() as transaction:
        assert transaction.delete(Pod, "default", name, grace).action == "deleted"


def found(store: Store, name: str) -> Pod | None:
    with store.read() as snapshot:
        return snapshot.get(Pod, "default", name)


def times(store: Store, name: str) -> tuple[str | None, int | None]:
    pod = found(store, name)
    assert pod is not None
    return pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds


def test_a_pod_terminates(store: Store) -> None:
    """It stays, says until when, and is a terminating endpoint that serves; its name is not free."""
    service = ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80)])
    create(store, Service(metadata=ObjectMeta(name="web", namespace="default"), spec=service), pod("a"))
    delete(store, "a")
    assert times(store, "a") == ("2026-05-17T10:00:30Z", 30)
    with store.read() as snapshot:
        ((endpoint,),) = (each.endpoints for each in snapshot.list(EndpointSlice))
    conditions = endpoint.conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == (False, True, True)
    with pytest.raises(ConflictError, match='object is being deleted: pods "a" already exists'):
        create(store, pod("a"))


def test_less_time_counts_and_more_does_not(store: Store) -> None:
    """Whoever deletes it once more may only shorten its time, with 0 to nothing."""
    create(store, pod("a", grace=60))
    for grace, seconds in ((None, 60), (90, 60), (5, 5), (None, 5), (6, 5)):
        delete(store, "a", grace)
        assert times(store, "a")[1] == seconds
    delete(store, "a", 0)
    assert found(store, "a") is None


@pytest.mark.parametrize("fields", [{"node": ""}, {"phase": "Succeeded"}, {"phase": "Failed"}])
def test_pods_that_nobody_waits_for(store: Store, fields: dict[str, str]) -> None:
    """One that was never started, or has ended, goes at once."""
    create(store, pod("a", **fields))  # type: ignore[arg-type]
    delete(store, "a")
    assert found(store, "a") is None


def test_what_goes_with_others_terminates_too(store: Store) -> None:
    """Pods of a Namespace that is deleted have their time; what a replacement says does not end it."""
    create(store, Namespace(metadata=ObjectMeta(name="default")), pod("a"))
    with store.transaction() as transaction:
        transaction.remove(pod("a"))
        transaction.remove(pod("a"))
    before = times(store, "a")
    assert before[0]
    with store.transaction() as transaction:
        transaction.replace(replace(pod("a"), metadata=ObjectMeta(name="a", namespace="default", labels={"x": "y"})))
    assert times(store, "a") == before
