"""Defaults are Kubernetes', and filling them in twice changes nothing."""

from typing import Any

import pytest

from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import to_document
from svcnat.model.validation import validate
from tests.model.build import DEPLOYMENT, ENDPOINTS, GOOD, NAMESPACE, POD, SLICE, resource, service


def defaulted(text: str) -> dict[str, Any]:
    return to_document(with_defaults(resource(text)))


@pytest.mark.parametrize("text", GOOD)
def test_twice_is_once(text: str) -> None:
    """Defaults are idempotent, and a sound object stays sound with them."""
    once = with_defaults(resource(text))
    assert with_defaults(once) == once
    assert validate(once) == []


def test_cluster_ip_service() -> None:
    """TCP, the port as target, no affinity, traffic from anywhere to anywhere."""
    spec = defaulted(
        service("{ports: [{port: 80}, {name: b, port: 81, targetPort: http}], clusterIP: 10.96.0.9}").replace(
            "{port: 80}", "{name: a, port: 80}"
        )
    )["spec"]
    assert spec["ports"][0] == {"name": "a", "protocol": "TCP", "port": 80, "targetPort": 80}
    assert spec["ports"][1]["targetPort"] == "http"
    assert spec["clusterIPs"] == ["10.96.0.9"]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")
    assert "externalTrafficPolicy" not in spec


def test_exposed_services() -> None:
    """External traffic has a policy wherever it can come in."""
    balancer = defaulted(service("{type: LoadBalancer, ports: [{port: 80}]}"))["spec"]
    assert balancer["externalTrafficPolicy"] == "Cluster"
    assert balancer["allocateLoadBalancerNodePorts"] is True
    assert defaulted(service("{externalIPs: [1.2.3.4], ports: [{port: 80}]}"))["spec"]["externalTrafficPolicy"]
    local = defaulted(service("{type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80}]}"))["spec"]
    assert local["externalTrafficPolicy"] == "Local"


def test_external_name_has_no_policies() -> None:
    """ExternalName is DNS alone."""
    spec = defaulted(service("{type: ExternalName, externalName: example.com}"))["spec"]
    assert "internalTrafficPolicy" not in spec


def test_affinity_lasts_three_hours() -> None:
    """ClientIP without a timeout, and with one."""
    given = "{sessionAffinity: ClientIP, ports: [{port: 80}]}"
    assert defaulted(service(given))["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    given = "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}, ports: [{port: 80}]}"
    assert defaulted(service(given))["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 5}}


def test_load_balancer_addresses_are_vips() -> None:
    """IpMode is VIP for an address; a host name has none."""
    text = service("{type: LoadBalancer, ports: [{port: 80}]}")
    text += "status: {loadBalancer: {ingress: [{ip: 192.0.2.9}, {hostname: lb.example.com}]}}\n"
    assert defaulted(text)["status"]["loadBalancer"]["ingress"] == [
        {"ip": "192.0.2.9", "ipMode": "VIP"},
        {"hostname": "lb.example.com"},
    ]


def test_endpoints_are_tcp() -> None:
    """Ports of slices and of Endpoints have a protocol and a name, which may be empty."""
    assert defaulted(SLICE)["ports"] == [{"name": "", "protocol": "TCP", "port": 80}]
    assert defaulted(ENDPOINTS)["subsets"][0]["ports"] == [{"name": "", "protocol": "TCP", "port": 80}]


def test_pods() -> None:
    """Both spellings of a Pod's address agree, whichever is written; host networks open the port on the host."""
    assert defaulted(POD)["status"] == {"phase": "Pending"}
    for status in ("{podIP: 10.0.0.1}", "{podIPs: [{ip: 10.0.0.1}]}"):
        assert defaulted(f"{POD}status: {status}\n")["status"] == {
            "phase": "Pending",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
        }
    host = POD.replace("{containers", "{hostNetwork: true, containers").replace(
        "image: b", "image: b, ports: [{containerPort: 80}]"
    )
    assert defaulted(host)["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}
    ]


def test_deployments() -> None:
    """One replica, rolled over a quarter at a time; its Pods have a Pod's defaults."""
    spec = defaulted(DEPLOYMENT.replace("  replicas: 2\n", ""))["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"]["type"] == "RollingUpdate"
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    assert defaulted(DEPLOYMENT.replace("replicas: 2", "replicas: 0"))["spec"]["replicas"] == 0


def test_nodes_and_namespaces() -> None:
    """Pod ranges agree in both spellings; a Namespace carries its name as a label."""
    for spec in ("{podCIDR: 10.0.0.0/24}", "{podCIDRs: [10.0.0.0/24]}"):
        text = f"apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\nspec: {spec}\n"
        assert defaulted(text)["spec"] == {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}
    assert "podCIDR" not in defaulted("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n").get("spec", {})
    namespace = defaulted(NAMESPACE)
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert namespace["status"] == {"phase": "Active"}
    assert defaulted(NAMESPACE + "spec: {finalizers: [a.b/c]}\n")["spec"] == {"finalizers": ["a.b/c"]}
