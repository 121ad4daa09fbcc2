"""Workloads in a state file: what follows from them is there when the transaction ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from svcnat.model.kinds import from_document
from svcnat.model.labels import HASH_LABEL
from svcnat.model.objects import Condition, Deployment, OwnerReference, Pod, PodStatus, ReplicaSet
from svcnat.store.sqlite import Store
from tests.store.invariants import check

WEB: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "nginx"}]},
        },
    },
}


def test_a_state_file_of_before_replica_sets_goes_on(tmp_path: Path) -> None:
    """Pods that a Deployment owns itself keep their names, nodes and addresses, and are scaled and replaced as ever."""
    path = tmp_path / "state.db"
    with Store.open(path) as store:
        with store.transaction() as transaction:
            transaction.create(WEB)
        with store.transaction() as transaction:
            owner = transaction.get(Deployment, "default", "web")
            assert owner
            transaction.put(replace(owner, status=replace(owner.status, conditions=[])))
            for each in transaction.list(Pod):
                reference = OwnerReference(
                    api_version="apps/v1", kind="Deployment", name="web", uid=owner.metadata.uid, controller=True
                )
                transaction.put(
                    replace(
                        each,
                        metadata=replace(each.metadata, owner_references=[reference]),
                        spec=replace(each.spec, node_name="n1"),
                        status=PodStatus(
                            phase="Running", pod_ip="10.0.0.1", conditions=[Condition(type="Ready", status="True")]
                        ),
                    )
                )
            for own in transaction.list(ReplicaSet):
                transaction.remove(own)
            transaction._changes.clear()  # as if a former version had written this
        with store.read() as snapshot:
            before = {each.metadata.name: each.metadata.uid for each in snapshot.list(Pod)}
            assert {each.metadata.owner_references[0].kind for each in snapshot.list(Pod)} == {"Deployment"}
            assert snapshot.list(ReplicaSet) == []
        with store.transaction() as transaction:
            again = from_document({**WEB, "spec": {**WEB["spec"], "replicas": 3}})
            transaction.replace(again)
        with store.read() as snapshot:
            after = {each.metadata.name: each.metadata.uid for each in snapshot.list(Pod)}
            assert before.items() <= after.items()
            assert len(after) == 3
            assert len({each.metadata.labels[HASH_LABEL] for each in snapshot.list(Pod)}) == 1
            (own,) = snapshot.list(ReplicaSet)
            assert (own.spec.replicas, own.status.ready_replicas) == (3, 2)
        with store.transaction() as transaction:
            transaction.delete(Deployment, "default", "web")
        with store.read() as snapshot:
            assert (snapshot.list(Pod), snapshot.list(ReplicaSet)) == ([], [])
    check(path)


def test_a_second_apply_changes_nothing(tmp_path: Path) -> None:
    """The controllers' own writing is no change of the object, and moves no generation."""
    with Store.open(tmp_path / "state.db") as store:
        with store.transaction() as transaction:
            transaction.apply(WEB)
        with store.read() as snapshot:
            revision = snapshot.revision
        with store.transaction() as transaction:
            assert transaction.apply(WEB).action == "unchanged"
        with store.read() as snapshot:
            live = snapshot.get(Deployment, "default", "web")
            assert live
            assert snapshot.revision == revision
            assert (live.metadata.generation, live.status.observed_generation) == (1, 1)
            assert live.metadata.annotations["deployment.kubernetes.io/revision"] == "1"
