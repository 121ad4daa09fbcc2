"""A Service is refused where Kubernetes would refuse it, in its words."""

from __future__ import annotations

import pytest

from svcnat.model.objects import Service
from svcnat.model.validation import validate, validate_update
from tests.model.build import COURSE, errors, resource, service

LABEL_1035 = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic"
LABEL_1123 = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start"
ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
BALANCERS = "may only be used when `type` is 'LoadBalancer'"
P = "ports: [{port: 80}]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", ["spec.ports: Required value"]),
        ("{ports: [{}]}", ["spec.ports[0].port: Required value"]),
        ("{ports: [{port: 0}]}", ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        ("{ports: [{port: 65536}]}", ["spec.ports[0].port: Invalid value: 65536: must be between 1 and 65535, incl"]),
        (
            "{ports: [{port: 80, targetPort: 70000}]}",
            ["spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        (
            "{ports: [{port: 80, targetPort: Web--server-01234-}]}",
            [
                'spec.ports[0].targetPort: Invalid value: "Web--server-01234-": must be no more than 15 characters',
                'spec.ports[0].targetPort: Invalid value: "Web--server-01234-": must contain only alpha-numeric',
                'spec.ports[0].targetPort: Invalid value: "Web--server-01234-": must not contain consecutive hyphens',
                'spec.ports[0].targetPort: Invalid value: "Web--server-01234-": must not begin or end with a hyphen',
            ],
        ),
        (
            '{ports: [{port: 80, targetPort: "80"}]}',
            ['spec.ports[0].targetPort: Invalid value: "80": must contain at least one letter (a-z)'],
        ),
        ("{ports: [{port: 80, targetPort: http}]}", []),
        (
            "{ports: [{port: 80, protocol: tcp}]}",
            ['spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"'],
        ),
        ("{ports: [{port: 80, name: Web}]}", [f'spec.ports[0].name: Invalid value: "Web": {LABEL_1123}']),
        (
            '{ports: [{port: 80, appProtocol: "a b"}]}',
            ['spec.ports[0].appProtocol: Invalid value: "a b": name part must consist of alphanumeric characters'],
        ),
        ("{ports: [{port: 80, appProtocol: example.com/h2}]}", []),
        (
            "{ports: [{port: 80}, {port: 81}]}",
            ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        ),
        (
            "{ports: [{name: a, port: 80}, {name: a, port: 81}]}",
            ['spec.ports[1].name: Duplicate value: "a"'],
        ),
        (
            "{ports: [{name: a, port: 80}, {name: b, port: 80}]}",
            ['spec.ports[1]: Duplicate value: "TCP 80"'],
        ),
        ("{ports: [{name: a, port: 80}, {name: b, port: 80, protocol: UDP}]}", []),
        (
            "{ports: [{name: a}, {name: b}]}",
            ["spec.ports[0].port: Required value", "spec.ports[1].port: Required value"],
        ),
        (
            f"{{{P}, selector: {{-a: b, c: -d, e/: x, /f: x, a/b/c: x}}}}",
            [
                'spec.selector: Invalid value: "-a": name part must consist of',
                'spec.selector[c]: Invalid value: "-d": a valid label must be an empty string or consist of',
                'spec.selector: Invalid value: "e/": name part must be non-empty',
                'spec.selector: Invalid value: "/f": prefix part must be non-empty',
                'spec.selector: Invalid value: "a/b/c": a qualified name must consist of alphanumeric characters',
            ],
        ),
        (
            f"{{{P}, selector: {{{'k' * 64}: {'v' * 64}, A_b/c: ''}}}}",
            [
                f'spec.selector: Invalid value: "{"k" * 64}": name part must be no more than 63 characters',
                f'spec.selector[{"k" * 64}]: Invalid value: "{"v" * 64}": must be no more than 63 characters',
                'spec.selector: Invalid value: "A_b/c": prefix part a lowercase RFC 1123 subdomain must consist of',
            ],
        ),
        (
            f"{{{P}, type: Loadbalancer}}",
            ['spec.type: Unsupported value: "Loadbalancer": supported values: "ClusterIP", "ExternalName", "LoadB'],
        ),
    ],
)
def test_ports_selector_and_type(spec: str, expected: list[str]) -> None:
    """Names, numbers, protocols; names are required when there are several ports, and unique, as are the pairs."""
    check(spec, expected)


def check(spec: str, expected: list[str]) -> None:
    found = errors(service(spec))
    assert len(found) == len(expected), found
    for text, beginning in zip(found, expected, strict=True):
        assert text.startswith(f"4: {beginning}")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (f"{{{P}, clusterIP: 10.96.0.10}}", []),
        ("{clusterIP: None}", []),
        ("{clusterIP: None, clusterIPs: [None]}", []),
        (f"{{{P}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilyPolicy: PreferDualStack}}", []),
        (f"{{{P}, clusterIP: ''}}", []),
        (
            f"{{{P}, clusterIP: 10.96.0.300}}",
            ["spec.clusterIP: Invalid value: \"10.96.0.300\": must be empty, 'None', or a valid IP address"],
        ),
        (
            f"{{{P}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, x]}}",
            ["spec.clusterIPs[1]: Invalid value: \"x\": must be empty, 'None', or a valid IP address"],
        ),
        (
            f"{{{P}, clusterIPs: [10.96.0.1]}}",
            ['spec.clusterIPs: Invalid value: "10.96.0.1": must be empty when `clusterIP` is not specified'],
        ),
        (
            f"{{{P}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2]}}",
            ['spec.clusterIPs: Invalid value: "10.96.0.2": first value must match `clusterIP`'],
        ),
        (
            f"{{{P}, clusterIP: None, clusterIPs: [None, 10.96.0.2]}}",
            ["spec.clusterIPs: Invalid value: \"None, 10.96.0.2\": 'None' must be the first and only value"],
        ),
        (
            f"{{{P}, type: NodePort, clusterIP: None}}",
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            f"{{{P}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 10.96.0.2, 'fd00::1'],"
            " ipFamilyPolicy: RequireDualStack}",
            [
                'spec.clusterIPs: Invalid value: "10.96.0.1, 10.96.0.2, fd00::1": may only hold up to 2 values',
                'spec.clusterIPs: Invalid value: "10.96.0.1, 10.96.0.2, fd00::1": may specify no more than one IP for',
            ],
        ),
        (
            f"{{{P}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']}}",
            ["spec.ipFamilyPolicy: Invalid value: null: must be RequireDualStack or PreferDualStack when multiple clu"],
        ),
        (
            f"{{{P}, clusterIP: 10.96.0.1, ipFamilies: [IPv6]}}",
            ['spec.clusterIPs[0]: Invalid value: "10.96.0.1": expected an IPv6 value as indicated by `ipFamilies[0]`'],
        ),
        (
            f"{{{P}, clusterIP: 10.96.0.1, ipFamilies: [IPv5], ipFamilyPolicy: Dual}}",
            [
                'spec.ipFamilyPolicy: Unsupported value: "Dual": supported values: "PreferDualStack", "RequireDual',
                'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
            ],
        ),
        (f"{{{P}, ipFamilies: [IPv6, IPv6]}}", ['spec.ipFamilies[1]: Duplicate value: "IPv6"']),
        (
            f"{{{P}, ipFamilies: [IPv6, IPv4], ipFamilyPolicy: SingleStack}}",
            ['spec.ipFamilyPolicy: Invalid value: "SingleStack": must be RequireDualStack or PreferDualStack'],
        ),
        (f"{{{P}, ipFamilies: [IPv6, IPv4], ipFamilyPolicy: RequireDualStack}}", []),
        (
            f"{{{P}, externalIPs: [127.0.0.1, x, 192.0.2.1]}}",
            [
                'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range',
                f'spec.externalIPs[1]: Invalid value: "x": {ADDRESS}',
            ],
        ),
    ],
)
def test_addresses(spec: str, expected: list[str]) -> None:
    """Cluster IPs, families and external IPs agree with each other."""
    check(spec, expected)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{type: ExternalName, externalName: my.database.example.com.}", []),
        ("{type: ExternalName}", ["spec.externalName: Required value"]),
        (
            "{type: ExternalName, externalName: -x}",
            ['spec.externalName: Invalid value: "-x": a lowercase RFC 1123 subdomain must consist of'],
        ),
        (
            "{type: ExternalName, externalName: a.b, clusterIP: 10.96.0.1, ipFamilies: [IPv4],"
            " ipFamilyPolicy: SingleStack}",
            [
                "spec.clusterIP: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ],
        ),
        (
            "{type: ExternalName, externalName: a.b, clusterIPs: [10.96.0.1]}",
            ["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        ),
        (
            f"{{{P}, sessionAffinity: clientip}}",
            ['spec.sessionAffinity: Unsupported value: "clientip": supported values: "ClientIP", "None"'],
        ),
        (
            f"{{{P}, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 5}}}}}}",
            ["spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None"],
        ),
        (
            f"{{{P}, sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 86401}}}}}}",
            [
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: "
                "must be greater than 0 and less than 86400"
            ],
        ),
        (f"{{{P}, sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 86400}}}}}}", []),
        (
            f"{{{P}, internalTrafficPolicy: local, trafficDistribution: Near}}",
            [
                'spec.internalTrafficPolicy: Unsupported value: "local": supported values: "Cluster", "Local"',
                'spec.trafficDistribution: Unsupported value: "Near": supported values: "PreferClose", "PreferSameN',
            ],
        ),
        (
            f"{{{P}, externalTrafficPolicy: Local}}",
            ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        ),
        (
            f"{{{P}, type: NodePort, externalTrafficPolicy: Far}}",
            ['spec.externalTrafficPolicy: Unsupported value: "Far": supported values: "Cluster", "Local"'],
        ),
        (f"{{{P}, type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30500}}", []),
        (
            f"{{{P}, type: LoadBalancer, healthCheckNodePort: 70000}}",
            [
                "spec.healthCheckNodePort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.healthCheckNodePort: Invalid value: 70000: may only be set when `type` is 'LoadBalancer' and",
            ],
        ),
        (
            f"{{{P}, allocateLoadBalancerNodePorts: true, loadBalancerClass: a/b,"
            " loadBalancerSourceRanges: [10.0.0.0/8]}",
            [
                f"spec.allocateLoadBalancerNodePorts: Forbidden: {BALANCERS}",
                f"spec.loadBalancerClass: Forbidden: {BALANCERS}",
                f"spec.loadBalancerSourceRanges: Forbidden: {BALANCERS}",
            ],
        ),
        (
            f"{{{P}, type: LoadBalancer, loadBalancerClass: /, loadBalancerSourceRanges: [' 10.0.0.0/8 ', 10.0.0.1],"
            " loadBalancerIP: x}",
            [
                'spec.loadBalancerClass: Invalid value: "/": prefix part must be non-empty',
                'spec.loadBalancerClass: Invalid value: "/": name part must be non-empty',
                'spec.loadBalancerSourceRanges[1]: Invalid value: "10.0.0.1": must be a valid CIDR value, (e.g. 10.9',
                f'spec.loadBalancerIP: Invalid value: "x": {ADDRESS}',
            ],
        ),
        (
            "{type: LoadBalancer, ports: [{port: 10250}]}",
            ["spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet"],
        ),
        (
            "{ports: [{port: 80, nodePort: 30080}]}",
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            "{type: NodePort, ports: [{name: a, port: 1, nodePort: 30080}, {name: b, port: 2, nodePort: 30080}]}",
            ["spec.ports[1].nodePort: Duplicate value: 30080"],
        ),
        (
            "{type: NodePort, ports: [{name: a, port: 1, nodePort: 30080},"
            " {name: b, port: 1, nodePort: 30080, protocol: UDP}]}",
            [],
        ),
    ],
)
def test_the_rest_of_the_spec(spec: str, expected: list[str]) -> None:
    """Affinity, policies, load balancers, node ports, external names."""
    check(spec, expected)


@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        ("{ip: 192.0.2.1}", []),
        ("{ip: 192.0.2.1, ipMode: Proxy}", []),
        ("{ip: x}", [f'status.loadBalancer.ingress[0].ip: Invalid value: "x": {ADDRESS}']),
        (
            "{ip: 192.0.2.1, ipMode: vip}",
            ['status.loadBalancer.ingress[0].ipMode: Unsupported value: "vip": supported values: "Proxy", "VIP"'],
        ),
        ("{ipMode: VIP}", ["status.loadBalancer.ingress[0].ipMode: Forbidden: may not be used when `ip` is not set"]),
        ("{hostname: lb.example.com}", []),
        (
            "{hostname: 10.0.0.1}",
            ['status.loadBalancer.ingress[0].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP addr'],
        ),
        ("{hostname: -}", ['status.loadBalancer.ingress[0].hostname: Invalid value: "-": a lowercase RFC 1123']),
    ],
)
def test_status(ingress: str, expected: list[str]) -> None:
    """The load balancer's addresses are taken from the manifest, so they are checked."""
    found = errors(service(f"{{{P}, type: LoadBalancer}}") + f"status: {{loadBalancer: {{ingress: [{ingress}]}}}}\n")
    assert [text[: len(each) + 3] for text, each in zip(found, expected, strict=True)] == [f"5: {e}" for e in expected]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("{name: 9lives}", [f'metadata.name: Invalid value: "9lives": {LABEL_1035}']),
        (f"{{name: {'a' * 64}}}", [f'metadata.name: Invalid value: "{"a" * 64}": must be no more than 63 characters']),
        ("{}", ["metadata.name: Required value: name or generateName is required"]),
        ("{generateName: a-}", ["metadata.name: Required value: svcnat generates no names"]),
        ("{name: a, namespace: A}", [f'metadata.namespace: Invalid value: "A": {LABEL_1123}']),
        ("{name: a, labels: {a: 'b c'}}", ['metadata.labels[a]: Invalid value: "b c": a valid label must be an empty']),
        ("{name: a, annotations: {'a b': c}}", ['metadata.annotations: Invalid value: "a b": name part must consist']),
        ("{name: a, annotations: {Example.COM/Any-Thing: 'c\\nd'}}", []),
        ("{name: a, generation: -1}", ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]),
        (
            "{name: a, creationTimestamp: yesterday, deletionTimestamp: 2026-05-17T10:00:00Z}",
            ['metadata.creationTimestamp: Invalid value: "yesterday": must be a time as RFC 3339'],
        ),
        (
            "{name: a, ownerReferences: [{kind: Deployment, name: x}]}",
            [
                "metadata.ownerReferences[0].apiVersion: Required value",
                "metadata.ownerReferences[0].uid: Required value",
            ],
        ),
        ("{name: a, finalizers: [a.b/c, '-']}", ['metadata.finalizers[1]: Invalid value: "-": name part must consist']),
        (
            f"{{name: a, annotations: {{a: {'x' * 262144}}}}}",
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (
            "{name: a, annotations: {svcnat.io/scheduler: fastest, svcnat.io/weight: '2'}}",
            [
                'metadata.annotations[svcnat.io/scheduler]: Invalid value: "fastest": must be one of random',
                "metadata.annotations[svcnat.io/weight]: Forbidden: has a meaning on a Pod only, not on a Service",
            ],
        ),
        (
            "{name: a, annotations: {svcnat.io/schedular: random, svcnat.io/note: x, svcnat.io/scheduler: maglev}}",
            ['metadata.annotations: Invalid value: "svcnat.io/schedular": did you mean svcnat.io/scheduler?'],
        ),
    ],
)
def test_metadata(metadata: str, expected: list[str]) -> None:
    """Names, labels and annotations, svcnat's own among them; all are untrusted text."""
    found = errors(service(f"{{{P}}}", metadata))
    assert len(found) == len(expected), found
    for text, beginning in zip(found, expected, strict=True):
        assert text.startswith(f"3: {beginning}")


def test_labels_are_found_at_their_line() -> None:
    """A bad key is reported on `labels`, as Kubernetes does, and located where it stands."""
    text = COURSE.replace("  name: back-end\n", "  name: back-end\n  labels:\n    ok: x\n    -no: x\n")
    assert errors(text)[0].startswith('7: metadata.labels: Invalid value: "-no": name part')


def updated(old: str, new: str) -> list[str]:
    return [str(problem) for problem in validate_update(resource(service(old)), resource(service(new)))]


A, B = f"{{{P}, clusterIP: 10.96.0.1}}", f"{{{P}, clusterIP: 10.96.0.2}}"


def test_updates() -> None:
    """A cluster IP stays while the type keeps one; an update may leave it out."""
    immutable = 'spec.clusterIP: Invalid value: "10.96.0.2": field is immutable'
    assert updated(A, B) == [immutable]
    assert updated(A, A) == updated(A, f"{{{P}}}") == updated(f"{{{P}}}", B) == []
    assert updated(A, "{type: ExternalName, externalName: a.b}") == []
    assert updated(A, f"{{{P}, clusterIP: None}}") == ['spec.clusterIP: Invalid value: "None": field is immutable']
    assert updated(f"{{{P}, clusterIP: 'fd00::1'}}", f"{{{P}, clusterIP: 'FD00:0::1'}}") == []
    dual = "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::%d'], ipFamilyPolicy: PreferDualStack"
    assert updated(f"{{{P}, {dual % 1}}}", f"{{{P}, {dual % 2}}}") == [
        'spec.clusterIPs[1]: Invalid value: "fd00::2": field is immutable'
    ]
    assert updated(f"{{{P}, ipFamilies: [IPv4]}}", f"{{{P}, ipFamilies: [IPv6]}}") == [
        'spec.ipFamilies[0]: Invalid value: "IPv6": may not change once set'
    ]
    balancer = (
        f"{{{P}, type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerClass: a, healthCheckNodePort: %d}}"
    )
    assert updated(balancer % 30001, balancer % 30001) == updated(balancer % 30001, balancer.replace("%d", "0")) == []
    assert updated(balancer % 30001, (balancer % 30002).replace("Class: a", "Class: b")) == [
        'spec.loadBalancerClass: Invalid value: "b": may not change once set',
        "spec.healthCheckNodePort: Invalid value: 30002: field is immutable",
    ]


def test_an_object_is_its_name() -> None:
    """Name, namespace and uid make the object; an update without a uid means the one there is."""
    old = resource(service(A, "{name: a, uid: u1}"))
    assert [str(each) for each in validate_update(old, resource(service(A, "{name: b, namespace: c, uid: u2}")))] == [
        'metadata.name: Invalid value: "b": field is immutable',
        'metadata.namespace: Invalid value: "c": field is immutable',
        'metadata.uid: Invalid value: "u2": field is immutable',
    ]
    assert validate_update(old, resource(service(A, "{name: a}"))) == []


def test_validation_needs_no_defaults() -> None:
    """An object built in code is judged like one from a file."""
    assert [each.field for each in validate(Service())] == ["metadata.name", "spec.ports"]
