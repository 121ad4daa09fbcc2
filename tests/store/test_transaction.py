from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from svcnat.controllers.merge import LAST_APPLIED
from svcnat.errors import ConflictError, ManifestError, NotFoundError
from svcnat.model.objects import (
    Condition,
    Deployment,
    EndpointSlice,
    Namespace,
    Node,
    ObjectMeta,
    Pod,
    PodStatus,
    Resource,
    Service,
)
from svcnat.store.sqlite import Store
from svcnat.store.transaction import Outcome
from tests.controllers.build import endpoints_of, pod, service, slices_of


def document(name: str = "back-end", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec},
    }


def web(replicas: int = 2, namespace: str = "default") -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "image"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


def apply(store: Store, *documents: dict[str, Any]) -> list[str]:
    with store.transaction() as transaction:
        return [transaction.apply(each).action for each in documents]


def get(store: Store, kind: type[Resource], name: str, namespace: str = "default") -> Any:
    with store.read() as snapshot:
        return snapshot.get(kind, namespace, name)


def revision(store: Store) -> int:
    with store.read() as snapshot:
        return snapshot.revision


def test_a_created_object_gets_what_the_system_gives(store: Store) -> None:
    """uid, resourceVersion, creationTimestamp, cluster addresses; the same when it is read again."""
    with store.transaction() as transaction:
        created = transaction.create(document())
    live = get(store, Service, "back-end")
    assert created == Outcome(live, "created")
    assert len(live.metadata.uid) == 36
    assert int(live.metadata.resource_version) > 0
    assert live.metadata.creation_timestamp.endswith("Z")
    assert live.spec.cluster_ip.startswith("10.")
    assert LAST_APPLIED not in live.metadata.annotations


def test_names_are_unique_and_messages_are_kubectls(store: Store) -> None:
    """Wording that people search for."""
    apply(store, document())
    with store.transaction() as transaction:
        with pytest.raises(ConflictError, match=r'^services "back-end" already exists$'):
            transaction.create(document())
        with pytest.raises(NotFoundError, match=r'^services "x" not found$'):
            transaction.delete(Service, "default", "x")
        with pytest.raises(NotFoundError, match=r'^deployments\.apps "x" not found$'):
            transaction.delete(Deployment, "default", "x")
        with pytest.raises(NotFoundError, match=r'^endpointslices\.discovery\.k8s\.io "x" not found$'):
            transaction.delete(EndpointSlice, "default", "x")
        with pytest.raises(NotFoundError, match=r'^services "x" not found$'):
            transaction.replace(document("x"))
        with pytest.raises(NotFoundError, match=r'^pods "x" not found$'):
            transaction.set_status(pod("x"))


def test_an_error_undoes_the_whole_command(store: Store) -> None:
    """All or nothing, over all documents; addresses and versions, too."""
    before = revision(store)
    with pytest.raises(ManifestError), store.transaction() as transaction:  # noqa: PT012 - the commit is in the exit
        transaction.apply(document("a", clusterIP="10.96.0.50"))
        transaction.apply(document("b", clusterIP="192.0.2.1"))
    assert get(store, Service, "a") is None
    assert revision(store) == before
    assert apply(store, document("c", clusterIP="10.96.0.50")) == ["created"]


def test_a_dry_run_does_everything_and_keeps_nothing(store: Store) -> None:
    """Outcomes as if; the file as before."""
    before = revision(store)
    with store.transaction(dry_run=True) as transaction:
        assert transaction.apply(document()).action == "created"
        transaction.settle()
        assert len(slices_of(transaction, "back-end")) == 1
    assert revision(store) == before
    assert get(store, Service, "back-end") is None


def test_apply_says_what_it_did(store: Store) -> None:
    """Created, then unchanged without a new version, then configured."""
    assert apply(store, document()) == ["created"]
    first = get(store, Service, "back-end")
    at = revision(store)
    assert apply(store, document()) == ["unchanged"]
    assert revision(store) == at
    assert apply(store, document(sessionAffinity="ClientIP")) == ["configured"]
    live = get(store, Service, "back-end")
    assert live.spec.cluster_ips == first.spec.cluster_ips
    assert (live.metadata.uid, live.metadata.creation_timestamp) == (
        first.metadata.uid,
        first.metadata.creation_timestamp,
    )
    assert apply(store, document()) == ["configured"]
    assert get(store, Service, "back-end").spec.session_affinity == "None"


def test_apply_keeps_what_others_set(store: Store) -> None:
    """A label from another hand, a node port from the allocator, a field nobody names."""
    apply(store, document(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    live = get(store, Service, "back-end")
    with store.transaction() as transaction:
        transaction.replace(replace(live, metadata=replace(live.metadata, labels={"theirs": "1"})))
    ports = [{"port": 80, "nodePort": 30080, "name": "http"}]
    assert apply(store, document(type="NodePort", ports=ports)) == ["configured"]
    assert apply(store, document(type="NodePort", ports=[{"port": 80, "name": "http"}])) == ["configured"]
    live = get(store, Service, "back-end")
    assert live.metadata.labels == {"theirs": "1"}
    assert live.spec.ports[0].node_port == 30080


def test_a_pods_addresses_can_be_changed_in_either_field(store: Store) -> None:
    """Outside a lab they stand in the manifest; the field that it leaves out, which was filled in, gives way."""
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    bare["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    for status in (
        {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        {"podIPs": [{"ip": "10.0.0.2"}]},
        {"podIP": "10.0.0.3"},
        {"podIP": "10.0.0.4"},
        {"podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]},
    ):
        apply(store, {**bare, "status": status})
        found = get(store, Pod, "p").status
        wanted = [each["ip"] for each in status.get("podIPs", [])] or [status["podIP"]]
        assert ([each.ip for each in found.pod_ips], found.pod_ip) == (wanted, wanted[0])


def test_an_address_cannot_be_changed_by_apply(store: Store) -> None:
    """Kubernetes' words, and nothing changed; naming the one that it has is no change."""
    apply(store, document())
    kept = get(store, Service, "back-end").spec.cluster_ip
    with pytest.raises(ManifestError, match=r"clusterIP.*Invalid value.*immutable|may not change once set"):
        apply(store, document(clusterIP="10.96.0.99"))
    assert apply(store, document(clusterIP=kept)) == ["configured"]
    assert apply(store, document()) == ["configured"]
    assert get(store, Service, "back-end").spec.cluster_ips == [kept]


def test_objects_are_found_by_all_their_labels(store: Store) -> None:
    """However common one of them is; no label at all finds the whole namespace."""
    with store.transaction() as transaction:
        for number in range(60):
            labels = {"all": "yes", "half": str(number % 2), "own": str(number)}
            transaction.create(pod(f"p{number:02}", labels=labels))
        every = transaction.labelled(Pod, "default", {})
        assert len(every) == 60
        for labels in (
            {"all": "yes"},
            {"all": "yes", "half": "1"},
            {"half": "0", "own": "4", "all": "yes"},
            {"own": "x"},
        ):
            expected = [each for each in every if labels.items() <= each.metadata.labels.items()]
            assert transaction.labelled(Pod, "default", labels) == expected


def test_apply_over_a_created_object_adopts_it(store: Store) -> None:
    """Without a last applied document nothing is removed."""
    with store.transaction() as transaction:
        transaction.create(document(sessionAffinity="ClientIP"))
    assert apply(store, document()) == ["configured"]
    assert get(store, Service, "back-end").spec.session_affinity == "ClientIP"
    assert apply(store, document()) == ["unchanged"]


def test_a_status_in_the_manifest_comes_and_goes_with_it(store: Store) -> None:
    """A load balancer's address may be given by hand, and taken back."""
    balanced = {**document(type="LoadBalancer"), "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    apply(store, balanced)
    assert get(store, Service, "back-end").status.load_balancer.ingress[0].ip == "192.0.2.1"
    with store.transaction() as transaction:
        transaction.replace(get(store, Service, "back-end"))
    assert apply(store, document(type="LoadBalancer")) == ["configured"]
    assert get(store, Service, "back-end").status.load_balancer.ingress == []


def test_another_version_is_a_conflict(store: Store) -> None:
    """Who edits an old copy is told so."""
    apply(store, document())
    live = get(store, Service, "back-end")
    apply(store, document(sessionAffinity="ClientIP"))
    with store.transaction() as transaction, pytest.raises(ConflictError, match="the object has been modified"):
        transaction.replace(live)
    stale = document()
    stale["metadata"]["resourceVersion"] = live.metadata.resource_version
    with store.transaction() as transaction, pytest.raises(ConflictError, match="the object has been modified"):
        transaction.apply(stale)


def test_replace_keeps_the_address_and_identity(store: Store) -> None:
    """Everything else is as the new manifest says."""
    apply(store, document(sessionAffinity="ClientIP"))
    before = get(store, Service, "back-end")
    with store.transaction() as transaction:
        assert transaction.replace(document()).action == "replaced"
    after = get(store, Service, "back-end")
    assert (after.metadata.uid, after.spec.cluster_ip) == (before.metadata.uid, before.spec.cluster_ip)
    assert (after.spec.session_affinity, after.metadata.annotations) == ("None", {})


def test_generations_count_as_kubernetes_does(store: Store) -> None:
    """A Deployment's spec, a Pod's spec and a slice's content; status and labels do not; Services have none."""
    apply(store, web(), document())
    assert get(store, Service, "back-end").metadata.generation is None
    assert get(store, Deployment, "web").metadata.generation == 1
    apply(store, web(3))
    assert get(store, Deployment, "web").metadata.generation == 2
    with store.transaction() as transaction:
        candidate = transaction.list(Pod)[0]
        transaction.set_status(replace(candidate, status=PodStatus(phase="Running", pod_ip="10.0.0.1")))
    assert get(store, Pod, candidate.metadata.name).metadata.generation == 1
    assert get(store, Deployment, "web").metadata.generation == 2
    with store.read() as snapshot:
        (found,) = slices_of(snapshot, "back-end")
    assert found.metadata.generation == 1


def test_addresses_of_deleted_services_are_free_again(store: Store) -> None:
    """But one at a time."""
    apply(store, document("a", clusterIP="10.96.0.50"))
    with store.transaction() as transaction, pytest.raises(ManifestError, match="provided IP is already allocated"):
        transaction.apply(document("b", clusterIP="10.96.0.50"))
    with store.transaction() as transaction:
        assert transaction.delete(Service, "default", "a").action == "deleted"
        assert transaction.apply(document("b", clusterIP="10.96.0.50")).action == "created"


def test_a_refused_service_keeps_no_address(store: Store) -> None:
    """Also when the first of its two was free, and the caller goes on after the error."""
    both = {"ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.96.0.50"}
    with store.transaction() as transaction:
        with pytest.raises(ManifestError, match="not in the valid range"):
            transaction.create(document("a", **both, clusterIPs=["10.96.0.50", "2001:db8::1"]))
        assert transaction.create(document("b", clusterIP="10.96.0.50")).action == "created"


def test_pods_become_endpoints_in_the_same_transaction(store: Store) -> None:
    """A reader never sees a Pod's status without its endpoint."""
    apply(store, document())
    with store.transaction() as transaction:
        transaction.create(pod("a", "10.0.0.1"))
    with store.read() as snapshot:
        assert endpoints_of(snapshot, "back-end") == {("10.0.0.1", 80, True)}


def test_the_status_of_a_pod_is_set_alone(store: Store) -> None:
    """Nothing else of the given object counts; a Pod of the same name made anew is another Pod."""
    apply(store, document())
    with store.transaction() as transaction:
        created = transaction.create(pod("a", ready=False)).resource
    status = PodStatus(phase="Running", pod_ip="10.0.0.7", conditions=[Condition(type="Ready", status="True")])
    with store.transaction() as transaction:
        changed = replace(created, status=status, metadata=replace(created.metadata, labels={}))
        assert transaction.set_status(changed).action == "configured"
        assert transaction.set_status(changed).action == "unchanged"
    assert get(store, Pod, "a").metadata.labels == {"app": "web"}
    with store.read() as snapshot:
        assert endpoints_of(snapshot, "back-end") == {("10.0.0.7", 80, True)}
    with store.transaction() as transaction:
        transaction.delete(Pod, "default", "a")
        transaction.create(pod("a"))
        with pytest.raises(ConflictError, match="made anew"):
            transaction.set_status(changed)


def test_deleting_an_owner_deletes_what_it_made(store: Store) -> None:
    """A Deployment's Pods, a Service's slices; in the same transaction."""
    apply(store, web(), document())
    with store.transaction() as transaction:
        transaction.delete(Deployment, "default", "web")
        transaction.delete(Service, "default", "back-end")
    with store.read() as snapshot:
        assert list(snapshot.list(Pod)) == []
        assert slices_of(snapshot, "back-end") == []


def test_deleting_a_namespace_deletes_what_is_in_it(store: Store) -> None:
    """Declared or only named; what the same command deletes by name is still found; `default` stays."""
    declared = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    for documents in ([declared], []):
        apply(store, *documents, document(namespace="shop"), web(namespace="shop"))
        with store.read() as snapshot:
            assert list(snapshot.namespaces()) == ["default", "shop"]
        with store.transaction() as transaction:
            assert transaction.delete(Namespace, "", "shop").action == "deleted"
            transaction.delete(Service, "shop", "back-end")
        with store.read() as snapshot:
            assert list(snapshot.namespaces()) == ["default"]
            assert list(snapshot.list(Pod)) == []
    with store.transaction() as transaction:
        with pytest.raises(NotFoundError, match='namespaces "shop" not found'):
            transaction.delete(Namespace, "", "shop")
        with pytest.raises(ConflictError, match="may not be deleted"):
            transaction.delete(Namespace, "", "default")


def test_objects_without_namespace_are_deleted_whatever_namespace_is_current(store: Store) -> None:
    """As with kubectl, deleting a Node works in any namespace."""
    with store.transaction() as transaction:
        transaction.create(Node(metadata=ObjectMeta(name="node-1")))
        assert transaction.delete(Node, "default", "node-1").action == "deleted"


def test_kubernetes_comes_back(store: Store) -> None:
    """default/kubernetes has the first address; deleted, it is there again."""
    before = get(store, Service, "kubernetes")
    assert before.spec.cluster_ip == "10.96.0.1"
    with store.transaction() as transaction:
        transaction.delete(Service, "default", "kubernetes")
    after = get(store, Service, "kubernetes")
    assert after.spec.cluster_ip == "10.96.0.1"
    assert after.metadata.uid != before.metadata.uid


def test_a_service_made_anew_in_one_command_has_slices_of_its_own(store: Store) -> None:
    """Deleted and created in one transaction, its slices name the new uid."""
    apply(store, document())
    with store.transaction() as transaction:
        transaction.delete(Service, "default", "back-end")
        new = transaction.create(document()).resource
    with store.read() as snapshot:
        (found,) = slices_of(snapshot, "back-end")
    assert found.metadata.owner_references[0].uid == new.metadata.uid


def test_services_of_a_changed_range_keep_their_addresses(store: Store) -> None:
    """The configuration decides about new ones only."""
    apply(store, document())
    kept = get(store, Service, "back-end").spec.cluster_ip
    with Store.open(store.path, service_cidrs=["172.30.0.0/24"]) as other:
        assert apply(other, document(sessionAffinity="ClientIP"), document("new")) == ["configured", "created"]
    assert get(store, Service, "back-end").spec.cluster_ip == kept
    assert get(store, Service, "new").spec.cluster_ip.startswith("172.30.0.")


def test_a_pod_with_many_services_around_costs_what_concerns_it(store: Store) -> None:
    """Statements for one Pod's change do not grow with the Services and Pods that share a label with it."""

    def statements(count: int) -> int:
        with store.transaction() as transaction:
            for number in range(count):
                labels = {"app": f"a{number}", "part-of": "shop"}
                transaction.create(service(f"s{count}-{number}", selector=labels))
                transaction.create(pod(f"p{count}-{number}", "10.0.0.1", labels=labels))
        seen: list[int] = []
        with store.transaction() as transaction:
            transaction._connection.set_progress_handler(lambda: seen.append(1) and None, 100)
            live = transaction.get(Pod, "default", f"p{count}-3")
            assert live
            transaction.set_status(replace(live, status=replace(live.status, conditions=[])))
            transaction.settle()
            transaction._connection.set_progress_handler(None, 0)
        return len(seen)

    few, many = statements(10), statements(600)
    assert many < 3 * few + 20


def balanced(name: str, **spec: Any) -> dict[str, Any]:
    return document(name, **{"type": "LoadBalancer", **spec})


def ingress(store: Store, name: str) -> list[str]:
    return [each.ip for each in get(store, Service, name).status.load_balancer.ingress]


def test_node_ports_are_kept_by_apply_and_replace(store: Store) -> None:
    """And are free again when the Service goes, or no longer has any."""
    exposed = document(type="NodePort")
    apply(store, exposed)
    (port,) = get(store, Service, "back-end").spec.ports
    assert port.node_port in range(30086, 32768)
    assert apply(store, exposed) == ["unchanged"]
    assert apply(store, document(type="NodePort", sessionAffinity="ClientIP")) == ["configured"]
    with store.transaction() as transaction:
        transaction.replace(exposed)
    assert get(store, Service, "back-end").spec.ports == [port]
    rival = document("rival", type="NodePort", ports=[{"port": 1, "protocol": "UDP", "nodePort": port.node_port}])
    message = f"spec.ports\\[0\\].nodePort: Invalid value: {port.node_port}: provided port is already allocated"
    with pytest.raises(ManifestError, match=message):
        apply(store, rival)
    apply(store, document(type="ClusterIP"))
    assert apply(store, rival) == ["created"]
    with store.transaction() as transaction:
        transaction.delete(Service, "default", "rival")
    assert apply(store, {**rival, "metadata": {"name": "another", "namespace": "default"}}) == ["created"]


def test_a_refused_service_keeps_no_node_port(store: Store) -> None:
    """Also when the caller goes on after the error."""
    ports = [{"name": "a", "port": 1, "nodePort": 30080}, {"name": "b", "port": 2, "nodePort": 99}]
    with store.transaction() as transaction:
        with pytest.raises(ManifestError, match="not in the valid range"):
            transaction.create(document("a", type="NodePort", ports=ports))
        assert transaction.create(document("b", type="NodePort", ports=ports[:1])).action == "created"


def test_the_pool_is_configured_when_it_is(store: Store) -> None:
    """Who waits for an address gets it with the next change; it stays when the pool moves."""
    apply(store, balanced("a"), balanced("b"))
    assert ingress(store, "a") == []
    with Store.open(store.path, load_balancer_pool=["192.0.2.7-192.0.2.7"]) as pooled:
        apply(pooled, document("c"))
        assert ingress(pooled, "a") == ["192.0.2.7"]
        assert ingress(pooled, "b") == []
        assert apply(pooled, balanced("a")) == ["unchanged"]
    with Store.open(store.path, load_balancer_pool=["198.51.100.0/24"]) as moved:
        apply(moved, document("d"))
        assert ingress(moved, "a") == ["192.0.2.7"]
        assert ingress(moved, "b")[0].startswith("198.51.100.")


def test_a_released_address_is_given_on(path: Path) -> None:
    """In the same command; a Service that waits is no reason for one to fail."""
    with Store.open(path, load_balancer_pool=["192.0.2.7/32"]) as store:
        apply(store, balanced("a"), balanced("b", loadBalancerIP="192.0.2.7"), balanced("c"))
        assert [ingress(store, name) for name in "abc"] == [["192.0.2.7"], [], []]
        apply(store, document("a", type="NodePort"))
        assert [ingress(store, name) for name in "abc"] == [[], ["192.0.2.7"], []]
        with store.transaction() as transaction:
            transaction.delete(Service, "default", "b")
        assert ingress(store, "c") == ["192.0.2.7"]
        created = []
        with store.transaction(dry_run=True) as transaction:
            transaction.delete(Service, "default", "c")
            created.append(transaction.create(balanced("new")).resource)
        assert ingress(store, "c") == ["192.0.2.7"]
        assert created[0].status.load_balancer.ingress[0].ip == "192.0.2.7"  # type: ignore[attr-defined]


def test_a_status_set_by_hand_is_claimed(path: Path) -> None:
    """Nobody else gets the address, and the one from the pool is free again."""
    with Store.open(path, load_balancer_pool=["192.0.2.7-192.0.2.8"]) as store:
        apply(store, balanced("a"))
        (given,) = ingress(store, "a")
        (other,) = {"192.0.2.7", "192.0.2.8"} - {given}
        live = get(store, Service, "a")
        entry = replace(live.status.load_balancer.ingress[0], ip=other)
        moved = replace(live.status, load_balancer=replace(live.status.load_balancer, ingress=[entry]))
        with store.transaction() as transaction:
            assert transaction.set_status(replace(live, status=moved)).action == "configured"
        apply(store, balanced("b"))
        assert (ingress(store, "a"), ingress(store, "b")) == ([other], [given])


def test_many_that_wait_cost_nothing(path: Path) -> None:
    """A full pool is not searched again and again: only a new pool or a released address is a reason."""
    with Store.open(path, load_balancer_pool=["192.0.2.7/32"]) as store:
        apply(store, *(balanced(f"s{number}") for number in range(50)))
        seen: list[str] = []
        with store.transaction() as transaction:
            transaction._connection.set_trace_callback(seen.append)
            transaction.apply(document())
            transaction.settle()
            transaction._connection.set_trace_callback(None)
        assert not [statement for statement in seen if "waiting JOIN" in statement]
        assert len(seen) < 60
