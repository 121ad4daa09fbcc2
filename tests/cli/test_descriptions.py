"""describe prints kubectl's lines in kubectl's order; goldens are what kubectl 1.32 printed for the same objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pytest

from svcnat.cli.descriptions import Context, describe
from svcnat.cli.terminal import aligned
from svcnat.model.kinds import from_document
from svcnat.model.objects import Resource

R = TypeVar("R", bound=Resource)
CREATED = "2026-05-17T10:00:00Z"


class Objects(list[Resource]):
    """Slices and pods that every service has."""

    def labelled(self, kind: type[R], namespace: str, labels: Mapping[str, str]) -> Sequence[R]:
        """All of a kind."""
        return [each for each in self if isinstance(each, kind)]


def made(kind: str, name: str, metadata: dict[str, Any] | None = None, **body: Any) -> Any:
    """An object from the fields of its manifest."""
    return from_document({"kind": kind, "metadata": {"name": name, **(metadata or {})}, **body})


def shown(
    resource: Resource, others: Sequence[Resource] = (), connections: Mapping[tuple[str, int], int | None] | None = None
) -> str:
    """The description as printed."""
    return "\n".join(aligned(describe(resource, Context(Objects(others), connections)))) + "\n"


ENDPOINTS = [
    {
        "addresses": [f"10.244.0.{index}"],
        "conditions": {"ready": index != 3},
        "nodeName": "n1",
        "zone": "z1",
        "targetRef": {"kind": "Pod", "name": f"p{index}"},
    }
    for index in range(1, 7)
]
PORTS = [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
SLICE = made(
    "EndpointSlice", "back-end-abc", {"namespace": "default"}, addressType="IPv4", endpoints=ENDPOINTS, ports=PORTS
)


def test_a_service_with_everything() -> None:
    """Labels and annotations on lines of their own, ports with their ready endpoints, then our own lines."""
    service = made(
        "Service",
        "back-end",
        {
            "namespace": "default",
            "labels": {"b": "2", "a": "1"},
            "annotations": {
                "x": "line1\nline2",
                "long": "w" * 150,
                "svcnat.io/scheduler": "maglev",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        },
        spec={
            "type": "NodePort",
            "clusterIP": "10.106.127.123",
            "clusterIPs": ["10.106.127.123", "fd00:10:96::1"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"type": "back-end", "app": "myapp"},
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
            "sessionAffinity": "ClientIP",
            "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Cluster",
            "externalIPs": ["1.2.3.4"],
        },
    )
    connections = {("10.244.0.2", 8080): 7, ("10.244.0.1", 8080): 12, ("fd00::1", 8080): 0}
    assert shown(service, [SLICE], connections) == (
        "Name:                     back-end\n"
        "Namespace:                default\n"
        "Labels:                   a=1\n"
        "                          b=2\n"
        f"Annotations:              long: {'w' * 140}...\n"
        "                          svcnat.io/scheduler: maglev\n"
        "                          x: line1\\u000aline2\n"
        "Selector:                 app=myapp,type=back-end\n"
        "Type:                     NodePort\n"
        "IP Family Policy:         RequireDualStack\n"
        "IP Families:              IPv4,IPv6\n"
        "IP:                       10.106.127.123\n"
        "IPs:                      10.106.127.123,fd00:10:96::1\n"
        "External IPs:             1.2.3.4\n"
        "Port:                     http  80/TCP\n"
        "TargetPort:               http/TCP\n"
        "NodePort:                 http  30080/TCP\n"
        "Endpoints:                10.244.0.1:8080,10.244.0.2:8080,10.244.0.4:8080 + 2 more...\n"
        "Port:                     dns  53/UDP\n"
        "TargetPort:               53/UDP\n"
        "Endpoints:                10.244.0.1:53,10.244.0.2:53,10.244.0.4:53 + 2 more...\n"
        "Session Affinity:         ClientIP\n"
        "External Traffic Policy:  Cluster\n"
        "Internal Traffic Policy:  Local\n"
        "Scheduler:                maglev\n"
        "Connections:\n"
        "  Endpoint         Count\n"
        "  --------         -----\n"
        "  10.244.0.1:8080  12\n"
        "  10.244.0.2:8080  7\n"
        "  [fd00::1]:8080   0\n"
        "Events:            <none>\n"
    )


def test_a_load_balancer() -> None:
    """Its addresses, health port and source ranges; counters that cannot be read are unknown, not nought."""
    service = made(
        "Service",
        "lb",
        {"namespace": "default"},
        spec={
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.9",
            "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80}],
            "healthCheckNodePort": 30999,
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "loadBalancerIP": "9.9.9.9",
            "trafficDistribution": "PreferClose",
        },
        status={"loadBalancer": {"ingress": [{"ip": "9.9.9.9", "ipMode": "VIP"}, {"hostname": "lb.example"}]}},
    )
    assert shown(service) == (
        "Name:                        lb\n"
        "Namespace:                   default\n"
        "Labels:                      <none>\n"
        "Annotations:                 <none>\n"
        "Selector:                    <none>\n"
        "Type:                        LoadBalancer\n"
        "IP Families:                 <none>\n"
        "IP:                          10.96.0.9\n"
        "IPs:                         10.96.0.9\n"
        "Desired LoadBalancer IP:     9.9.9.9\n"
        "LoadBalancer Ingress:        9.9.9.9 (VIP), lb.example\n"
        "Port:                        <unset>  80/TCP\n"
        "TargetPort:                  80/TCP\n"
        "Endpoints:                   <none>\n"
        "Session Affinity:            None\n"
        "Traffic Distribution:        PreferClose\n"
        "HealthCheck NodePort:        30999\n"
        "LoadBalancer Source Ranges:  10.0.0.0/8\n"
        "Scheduler:                   random\n"
        "Connections:                 <unknown>\n"
        "Events:                      <none>\n"
    )


READY = {"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("pods", "why"),
    [
        ([], "the selector matches no pod"),
        ([{"phase": "Succeeded"}], "the selector matches no pod"),
        ([{"podIP": "10.244.0.9"}], "the selector matches 1 pod, ready: none"),
        ([{}, {}], "the selector matches 2 pods, ready: none"),
        ([READY | {"podIP": ""}], "the selector matches 1 pod, with an address: none"),
        ([READY, {}], "the selector matches 2 pods, with a port named http: none"),
    ],
)
def test_no_endpoints_and_why(pods: list[dict[str, Any]], why: str) -> None:
    """Below "<none>" stands what the pods lack."""
    service = made("Service", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]})
    found = [made("Pod", f"p{index}", status=status) for index, status in enumerate(pods)]
    lines = [line.split(maxsplit=1) for line in shown(service, found).splitlines()]
    position = lines.index(["Endpoints:", "<none>"])
    assert " ".join(lines[position + 1]) == why


def test_endpoints_that_fail_their_probe_are_not_ready() -> None:
    """They are left out, as long as the service asks for probes."""
    failed = {"annotations": {"svcnat.io/probe-results": '{"10.244.0.2": false}'}}
    given = made("EndpointSlice", "web-1", failed, addressType="IPv4", endpoints=ENDPOINTS[:2], ports=PORTS[:1])
    for asks, expected in (
        ({"annotations": {"svcnat.io/probe": '{"tcpSocket": {}}'}}, "10.244.0.1:8080"),
        ({}, "10.244.0.1:8080,10.244.0.2:8080"),
    ):
        service = made("Service", "web", asks, spec={"ports": [{"name": "http", "port": 80}]})
        lines = [line.split(maxsplit=1) for line in shown(service, [given]).splitlines()]
        assert ["Endpoints:", expected] in lines
        assert (["10.244.0.2", "failed the probe: `svcnat get events` says why"] in lines) is bool(asks)


def test_connections_that_nobody_counts() -> None:
    """Without counters it does not say 0."""
    service = made("Service", "web", spec={"clusterIP": "10.96.0.9", "ports": [{"port": 80}]})
    assert "  10.244.0.1:8080  not counted\n" in shown(service, (), {("10.244.0.1", 8080): None})


def test_an_external_name_has_no_rules_to_describe() -> None:
    """Neither scheduler nor connections where there are no rules."""
    service = made(
        "Service", "ext", {"namespace": "default"}, spec={"type": "ExternalName", "externalName": "example.com"}
    )
    assert shown(service) == (
        "Name:              ext\n"
        "Namespace:         default\n"
        "Labels:            <none>\n"
        "Annotations:       <none>\n"
        "Selector:          <none>\n"
        "Type:              ExternalName\n"
        "IP Families:       <none>\n"
        "IP:                \n"
        "IPs:               <none>\n"
        "External Name:     example.com\n"
        "Session Affinity:  None\n"
        "Events:            <none>\n"
    )


def test_slices_and_endpoints() -> None:
    """Ports as a table, endpoints as a list; what is not there is <unset> or <none>."""
    assert shown(SLICE).startswith(
        "Name:         back-end-abc\n"
        "Namespace:    default\n"
        "Labels:       <none>\n"
        "Annotations:  <none>\n"
        "AddressType:  IPv4\n"
        "Ports:\n"
        "  Name  Port  Protocol\n"
        "  ----  ----  --------\n"
        "  http  8080  TCP\n"
        "  dns   53    UDP\n"
        "Endpoints:\n"
        "  - Addresses:  10.244.0.1\n"
        "    Conditions:\n"
        "      Ready:    true\n"
        "    Hostname:   <unset>\n"
        "    TargetRef:  Pod/p1\n"
        "    NodeName:   n1\n"
        "    Zone:       z1\n"
    )
    assert shown(made("EndpointSlice", "e", addressType="IPv6")).endswith(
        "AddressType:  IPv6\nPorts: <unset>\nEndpoints: <none>\nEvents:  <none>\n"
    )
    subset = {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "notReadyAddresses": [{"ip": "10.0.0.3"}]}
    endpoints = made("Endpoints", "back-end", {"namespace": "default"}, subsets=[{**subset, "ports": PORTS[:1]}])
    assert shown(endpoints) == (
        "Name:         back-end\n"
        "Namespace:    default\n"
        "Labels:       <none>\n"
        "Annotations:  <none>\n"
        "Subsets:\n"
        "  Addresses:          10.0.0.1,10.0.0.2\n"
        "  NotReadyAddresses:  10.0.0.3\n"
        "  Ports:\n"
        "    Name  Port  Protocol\n"
        "    ----  ----  --------\n"
        "    http  8080  TCP\n"
        "\n"
        "Events:  <none>\n"
    )


def test_a_pod() -> None:
    """Where it runs, its addresses and owner, what its containers are, and its conditions."""
    container = {"name": "web", "image": "nginx:1", "command": ["nginx", "-g"], "args": ["daemon off;"]}
    pod = made(
        "Pod",
        "p1",
        {"namespace": "default", "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": True}]},
        spec={"nodeName": "n1", "containers": [{**container, "ports": [{"containerPort": 80}, {"containerPort": 81}]}]},
        status={
            "phase": "Running",
            "startTime": CREATED,
            "hostIP": "172.30.0.2",
            "podIPs": [{"ip": "10.244.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        },
    )
    assert shown(pod) == (
        "Name:         p1\n"
        "Namespace:    default\n"
        "Node:         n1/172.30.0.2\n"
        "Start Time:   Sun, 17 May 2026 10:00:00 +0000\n"
        "Labels:       <none>\n"
        "Annotations:  <none>\n"
        "Status:       Running\n"
        "IP:           10.244.0.1\n"
        "IPs:\n"
        "  IP:           10.244.0.1\n"
        "  IP:           fd00::1\n"
        "Controlled By:  ReplicaSet/web-1\n"
        "Containers:\n"
        "  web:\n"
        "    Image:  nginx:1\n"
        "    Ports:  80/TCP, 81/TCP\n"
        "    Command:\n"
        "      nginx\n"
        "      -g\n"
        "    Args:\n"
        "      daemon off;\n"
        "Conditions:\n"
        "  Type          Status\n"
        "  Ready         True\n"
        "  PodScheduled  True\n"
        "Events:         <none>\n"
    )


def test_what_a_pod_waits_for() -> None:
    """Why a container does not start, and which readiness gates are open."""
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}
    pod = made(
        "Pod",
        "p1",
        spec={
            "containers": [{"name": "web", "image": "x"}],
            "readinessGates": [{"conditionType": "a/open"}, {"conditionType": "a/none"}],
        },
        status={
            "containerStatuses": [{"name": "web", "ready": False, "state": {"waiting": waiting}}],
            "conditions": [{"type": "a/open", "status": "True"}],
        },
    )
    text = shown(pod)
    assert "    State:          Waiting\n" in text
    assert "      Reason:       CreateContainerConfigError\n" in text
    assert '      Message:      secret "keys" not found\n' in text
    assert "Readiness Gates:\n  Type    Status\n  a/open  True\n  a/none  <none>\n" in text


def test_deployments_nodes_and_namespaces() -> None:
    """The other kinds, compact."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}}
    deployment = made(
        "Deployment",
        "web",
        {"namespace": "default", "creationTimestamp": CREATED},
        spec={"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        status={"replicas": 3, "updatedReplicas": 3, "availableReplicas": 2, "unavailableReplicas": 1},
    )
    assert shown(deployment) == (
        "Name:               web\n"
        "Namespace:          default\n"
        "CreationTimestamp:  Sun, 17 May 2026 10:00:00 +0000\n"
        "Labels:             <none>\n"
        "Annotations:        <none>\n"
        "Selector:           app=web\n"
        "Replicas:           3 desired | 3 updated | 3 total | 2 available | 1 unavailable\n"
        "StrategyType:       RollingUpdate\n"
        "MinReadySeconds:    0\n"
        "Pod Template:\n"
        "  Labels:  app=web\n"
        "  Containers:\n"
        "   web:\n"
        "     Image:      nginx:1\n"
        "     Port:       <none>\n"
        "OldReplicaSets:  <none>\n"
        "NewReplicaSet:   <none>\n"
        "Events:          <none>\n"
    )
    node = made(
        "Node",
        "n1",
        {"creationTimestamp": "no time"},
        spec={"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
        status={"addresses": [{"type": "InternalIP", "address": "172.30.0.2"}]},
    )
    assert shown(node) == (
        "Name:               n1\n"
        "Roles:              <none>\n"
        "Labels:             <none>\n"
        "Annotations:        <none>\n"
        "CreationTimestamp:  no time\n"
        "Unschedulable:      false\n"
        "Status:             Unknown\n"
        "Conditions:         <none>\n"
        "Addresses:\n"
        "  InternalIP:  172.30.0.2\n"
        "PodCIDR:       10.244.0.0/24\n"
        "PodCIDRs:      10.244.0.0/24\n"
        "Events:        <none>\n"
    )
    assert shown(made("Namespace", "default")) == (
        "Name:         default\nLabels:       <none>\nAnnotations:  <none>\nStatus:       Active\n"
    )


def test_config_maps_are_shown_whole() -> None:
    """Texts line by line, of what is binary the size."""
    found = made("ConfigMap", "settings", data={"b": "2", "a.conf": "one\ntwo\n"}, binaryData={"img": "iVBORw=="})
    assert shown(found).splitlines()[4:] == [
        *["Data", "====", "a.conf:", "----", "one", "two", "", ""],
        *["b:", "----", "2", "", "BinaryData", "====", "img: 4 bytes", "", "Events:  <none>"],
    ]


def test_of_secrets_only_the_sizes() -> None:
    """Neither the text nor its base64, nor what was applied."""
    metadata = {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"}}
    found = made("Secret", "keys", metadata, data={"token": "aHVudGVyMg==", "x": ""}, type="Opaque")
    assert shown(found).splitlines()[2:] == [
        "Annotations:  <none>",
        *["", "Type:  Opaque", "", "Data", "====", "token:  7 bytes", "x:      0 bytes"],
    ]
