"""Tables are kubectl's: its columns for every kind, its gaps, its words for what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from svcnat.cli.listing import Style, tables
from svcnat.cli.references import in_creation_order
from svcnat.model.kinds import BY_NAME, from_document
from svcnat.model.objects import Resource

NOW = datetime(2026, 5, 17, 10, 2, tzinfo=UTC)
CREATED = "2026-05-17T10:00:00Z"


def made(
    kind: str, name: str, *, labels: dict[str, str] | None = None, created: str = CREATED, **body: object
) -> Resource:
    """An object of a kind, from the fields of its manifest."""
    metadata = {"name": name, "creationTimestamp": created, "labels": labels or {}}
    if BY_NAME[kind].namespaced:
        metadata["namespace"] = "default"
    return from_document({"kind": kind, "metadata": metadata, **body})


def shown(kind: str, resources: Sequence[Resource], **style: bool) -> str:
    """The table of one kind."""
    return "\n".join(tables([(BY_NAME[kind], resources)], Style(**style), NOW))


def service(name: str, address: str = "10.96.0.1", created: str = CREATED, **spec: object) -> Resource:
    """A Service with one address."""
    return made("Service", name, created=created, spec={"clusterIPs": [address], "clusterIP": address, **spec})


HTTPS = {"name": "https", "port": 443, "protocol": "TCP"}
HTTP = {"port": 80, "protocol": "TCP", "nodePort": 30080}


def test_the_courses_table() -> None:
    """The worked example's two lines, in the order of creation, byte for byte."""
    services = [
        service("back-end", "10.106.127.123", ports=[{"port": 80}], selector={"app": "myapp"}),
        service("kubernetes", created="2026-05-01T10:00:00Z", ports=[HTTPS]),
    ]
    assert shown("Service", in_creation_order(services)) == (
        "NAME         TYPE        CLUSTER-IP       EXTERNAL-IP   PORT(S)   AGE\n"
        "kubernetes   ClusterIP   10.96.0.1        <none>        443/TCP   16d\n"
        "back-end     ClusterIP   10.106.127.123   <none>        80/TCP    2m"
    )


def test_services_of_every_type() -> None:
    """External addresses and ports by type, as pkg/printers has them."""
    ingress = {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}, {"hostname": "lb.example"}]}}
    services = [
        service("np", type="NodePort", ports=[HTTP, {"port": 53, "protocol": "UDP", "nodePort": 30053}]),
        service("out", externalIPs=["203.0.113.1"], ports=[HTTPS]),
        service("lb", type="LoadBalancer", ports=[HTTP], externalIPs=["203.0.113.1"]),
        service("waits", type="LoadBalancer", ports=[HTTPS]),
        made("Service", "has-lb", spec={"type": "LoadBalancer", "clusterIP": "10.96.0.9"}, status=ingress),
        service("headless", "None", selector={"b": "2", "a": "1"}),
        made("Service", "elsewhere", spec={"type": "ExternalName", "externalName": "example.com"}),
    ]
    assert shown("Service", services, wide=True) == (
        "NAME        TYPE           CLUSTER-IP   EXTERNAL-IP               PORT(S)                     AGE   SELECTOR\n"
        "np          NodePort       10.96.0.1    <none>                    80:30080/TCP,53:30053/UDP   2m    <none>\n"
        "out         ClusterIP      10.96.0.1    203.0.113.1               443/TCP                     2m    <none>\n"
        "lb          LoadBalancer   10.96.0.1    203.0.113.1               80:30080/TCP                2m    <none>\n"
        "waits       LoadBalancer   10.96.0.1    <pending>                 443/TCP                     2m    <none>\n"
        "has-lb      LoadBalancer   10.96.0.9    198.51.100.7,lb.example   <none>                      2m    <none>\n"
        "headless    ClusterIP      None         <none>                    <none>                      2m    a=1,b=2\n"
        "elsewhere   ExternalName   <none>       example.com               <none>                      2m    <none>"
    )


def test_pods() -> None:
    """READY and STATUS come from what the status says: containers, else the Ready condition, else nothing."""
    containers = {"containers": [{"name": "a"}, {"name": "b"}]}
    ready = [{"type": "Ready", "status": "True"}, {"type": "gate", "status": "True"}]
    pods = [
        made("Pod", "new", spec=containers),
        made(
            "Pod",
            "up",
            spec={
                **containers,
                "nodeName": "n1",
                "readinessGates": [{"conditionType": "gate"}, {"conditionType": "x"}],
            },
            status={"phase": "Running", "podIPs": [{"ip": "10.244.0.2"}, {"ip": "fd00::2"}], "conditions": ready},
        ),
        made(
            "Pod",
            "ill",
            spec=containers,
            status={
                "phase": "Running",
                "podIP": "10.244.0.3",
                "containerStatuses": [
                    {"ready": True, "restartCount": 1, "state": {"running": {}}},
                    {"ready": False, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                ],
            },
        ),
    ]
    assert shown("Pod", pods, wide=True) == (
        "NAME   READY   STATUS             RESTARTS   AGE   IP           NODE     NOMINATED NODE   READINESS GATES\n"
        "new    0/2     Pending            0          2m    <none>       <none>   <none>           <none>\n"
        "up     2/2     Running            0          2m    10.244.0.2   n1       <none>           1/2\n"
        "ill    1/2     CrashLoopBackOff   5          2m    10.244.0.3   <none>   <none>           <none>"
    )


def test_a_pod_that_is_going_is_terminating() -> None:
    """A deletion timestamp outweighs the phase."""
    document = {
        "kind": "Pod",
        "metadata": {"name": "p", "deletionTimestamp": CREATED, "creationTimestamp": CREATED},
        "status": {"phase": "Running"},
    }
    assert "Terminating" in shown("Pod", [from_document(document)])


def test_endpoints_and_slices() -> None:
    """Three are shown and the rest counted; IPv6 is bracketed with a port; nothing is <none> or <unset>."""
    addresses = [{"ip": f"10.0.0.{index}"} for index in range(1, 6)]
    ports = [{"name": "http", "port": 80}]
    endpoints = [
        made("Endpoints", "many", subsets=[{"addresses": addresses, "ports": ports}]),
        made("Endpoints", "six", subsets=[{"addresses": [{"ip": "fd00::1"}], "ports": ports}]),
        made("Endpoints", "bare", subsets=[{"addresses": [{"ip": "fd00::1"}]}]),
        made("Endpoints", "none"),
    ]
    assert shown("Endpoints", endpoints) == (
        "NAME   ENDPOINTS                                         AGE\n"
        "many   10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...   2m\n"
        "six    [fd00::1]:80                                      2m\n"
        "bare   fd00::1                                           2m\n"
        "none   <none>                                            2m"
    )
    slices = [
        made(
            "EndpointSlice",
            "many",
            addressType="IPv4",
            endpoints=[{"addresses": [address["ip"]]} for address in addresses],
            ports=[{"port": 80}, {"name": "any"}, {}, {"port": 81}],
        ),
        made("EndpointSlice", "none", addressType="IPv6"),
    ]
    assert shown("EndpointSlice", slices) == (
        "NAME   ADDRESSTYPE   PORTS                  ENDPOINTS                                AGE\n"
        "many   IPv4          80,any,* + 1 more...   10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...   2m\n"
        "none   IPv6          <unset>                <unset>                                  2m"
    )


def test_deployments() -> None:
    """Ready over wanted; replicas that nobody set are one; the selector as -l takes it."""
    template = {"spec": {"containers": [{"name": "web", "image": "nginx:1"}, {"name": "log", "image": "busybox"}]}}
    expressions = [
        {"key": "tier", "operator": "In", "values": ["b", "a"]},
        {"key": "env", "operator": "NotIn", "values": ["dev"]},
        {"key": "up", "operator": "Exists"},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": expressions}
    deployments = [
        made(
            "Deployment",
            "web",
            spec={"replicas": 3, "selector": selector, "template": template},
            status={"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
        ),
        made("Deployment", "new"),
    ]
    assert shown("Deployment", deployments) == (
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\n"
        "web    2/3     3            1           2m\n"
        "new    0/1     0            0           2m"
    )
    assert "web,log      nginx:1,busybox   app=web,env notin (dev),!old,tier in (a,b),up" in shown(
        "Deployment", deployments, wide=True
    )


def test_nodes_and_namespaces() -> None:
    """Roles from labels, conditions and cordoning in STATUS; these kinds are in no namespace."""
    nodes = [
        made(
            "Node",
            "n1",
            labels={"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""},
            status={
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [
                    {"type": "InternalIP", "address": "172.30.0.2"},
                    {"type": "InternalIP", "address": "::2"},
                ],
                "nodeInfo": {"kubeletVersion": "v1.32.0"},
            },
        ),
        made("Node", "n2", spec={"unschedulable": True}),
        made("Node", "n3", status={"conditions": [{"type": "Ready", "status": "Unknown"}]}),
    ]
    assert shown("Node", nodes, all_namespaces=True) == (
        "NAME   STATUS                       ROLES                  AGE   VERSION\n"
        "n1     Ready                        control-plane,worker   2m    v1.32.0\n"
        "n2     Unknown,SchedulingDisabled   <none>                 2m    <unknown>\n"
        "n3     NotReady                     <none>                 2m    <unknown>"
    )
    assert "v1.32.0     172.30.0.2    <none>" in shown("Node", nodes, wide=True)
    assert shown("Namespace", [made("Namespace", "default")]) == ("NAME      STATUS   AGE\ndefault   Active   2m")


def test_flags_of_tables() -> None:
    """-A puts a column before the others, --show-labels one after, --no-headers leaves the names out."""
    services = [made("Service", "a", labels={"y": "2", "x": "1"}, spec={"clusterIP": "None"})]
    assert shown("Service", services, all_namespaces=True, show_labels=True) == (
        "NAMESPACE   NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE   LABELS\n"
        "default     a      ClusterIP   None         <none>        <none>    2m    x=1,y=2"
    )
    assert shown("Service", services, headers=False) == "a     ClusterIP   None   <none>   <none>   2m"


def test_several_kinds_are_blocks_with_prefixed_names() -> None:
    """Each kind has its table and blank lines between; an empty kind has none; names carry their kind."""
    blocks = [
        (BY_NAME["Pod"], []),
        (BY_NAME["Deployment"], [made("Deployment", "web")]),
        (BY_NAME["Namespace"], [made("Namespace", "default")]),
    ]
    assert tables(blocks, Style(), NOW) == [
        "NAME                  READY   UP-TO-DATE   AVAILABLE   AGE",
        "deployment.apps/web   0/1     0            0           2m",
        "",
        "NAME                STATUS   AGE",
        "namespace/default   Active   2m",
    ]


@pytest.mark.parametrize("field", ["name", "creationTimestamp"])
def test_hostile_text_stays_in_its_row(field: str) -> None:
    """An object from elsewhere cannot add lines to a table, or send escape sequences."""
    document = {"kind": "Service", "metadata": {"name": "a", field: "x\n\x1b[2J"}, "spec": {"externalName": "\x9b"}}
    lines = shown("Service", [from_document(document)]).split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_config_maps_and_secrets() -> None:
    """How many entries they have."""
    both = made("ConfigMap", "settings", data={"a": "1"}, binaryData={"b": ""})
    assert shown("ConfigMap", [both]) == "NAME       DATA   AGE\nsettings   2      2m"
    keys = made("Secret", "keys", type="Opaque", data={"a": ""})
    assert shown("Secret", [keys], wide=True) == "NAME   TYPE     DATA   AGE\nkeys   Opaque   1      2m"
