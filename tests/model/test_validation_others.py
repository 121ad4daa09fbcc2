"""EndpointSlices, Endpoints, Pods, Deployments, Nodes and Namespaces keep Kubernetes' rules."""

from __future__ import annotations

import pytest

from svcnat.model.objects import Resource
from svcnat.model.validation import validate, validate_update
from tests.model.build import DEPLOYMENT, ENDPOINTS, NAMESPACE, NODE, POD, SLICE, errors, resource

LABEL = "a lowercase RFC 1123 label must consist of"
SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of"
ADDRESS = "must be a valid IP address, (e.g."
CIDR = "must be a valid CIDR value, (e.g."


def check(text: str, expected: list[str]) -> None:
    found = [each.partition(": ")[2] for each in errors(text)]
    assert len(found) == len(expected), found
    for each, beginning in zip(found, expected, strict=True):
        assert each.startswith(beginning)


def with_endpoint(endpoint: str, kind: str = "IPv4") -> str:
    return SLICE.replace("- addresses: [10.0.0.1]", f"- {endpoint}").replace("IPv4", kind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SLICE.replace("addressType: IPv4\n", ""), ["addressType: Required value"]),
        (
            SLICE.replace("IPv4", "ipv4"),
            ['addressType: Unsupported value: "ipv4": supported values: "FQDN", "IPv4", "IPv6"'],
        ),
        (with_endpoint("{}"), ["endpoints[0].addresses: Required value: must contain at least 1 address"]),
        (with_endpoint("addresses: [x]"), ['endpoints[0].addresses[0]: Invalid value: "x": must be a valid IPv4 addr']),
        (
            with_endpoint("addresses: ['fd00::1', 127.0.0.1]"),
            [
                'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address',
                'endpoints[0].addresses[1]: Invalid value: "127.0.0.1": may not be in the loopback range',
            ],
        ),
        (with_endpoint("addresses: ['fd00::1']", "IPv6"), []),
        (
            with_endpoint("addresses: [10.0.0.1]", "IPv6"),
            ['endpoints[0].addresses[0]: Invalid value: "10.0.0.1": mu'],
        ),
        (with_endpoint("addresses: [a.example.com.]", "FQDN"), []),
        (
            with_endpoint("addresses: [localhost, -]", "FQDN"),
            [
                'endpoints[0].addresses[0]: Invalid value: "localhost": should be a domain with at least two segments',
                f'endpoints[0].addresses[1]: Invalid value: "-": {SUBDOMAIN}',
            ],
        ),
        (
            with_endpoint(f"addresses: [{', '.join(['10.0.0.1'] * 101)}]"),
            ["endpoints[0].addresses: Too many: 101: must have at most 100 items"],
        ),
        (
            SLICE + "- addresses: [10.0.0.2]\n" * 1000,
            ["endpoints: Too many: 1001: must have at most 1000 items"],
        ),
        (SLICE + "- addresses: [10.0.0.2]\n" * 999, []),
        (
            SLICE.replace("- port: 80\n", "".join(f"- {{port: 80, name: p{n}}}\n" for n in range(101))),
            ["ports: Too many: 101: must have at most 100 items"],
        ),
        (
            with_endpoint("{addresses: [10.0.0.1], hostname: A, nodeName: B}"),
            [
                f'endpoints[0].hostname: Invalid value: "A": {LABEL}',
                'endpoints[0].nodeName: Invalid value: "B": a lower',
            ],
        ),
        (
            with_endpoint("{addresses: [10.0.0.1], hints: {forZones: [{name: a}, {}], forNodes: [{}]}}"),
            [
                "endpoints[0].hints.forZones[1].name: Required value",
                "endpoints[0].hints.forNodes[0].name: Required",
            ],
        ),
        (
            with_endpoint(f"{{addresses: [10.0.0.1], hints: {{forZones: [{', '.join(['{name: a}'] * 9)}]}}}}"),
            ["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"],
        ),
        (
            with_endpoint(
                f"{{addresses: [10.0.0.1], deprecatedTopology: {{{', '.join(f'k{n}: v' for n in range(17))}}}}}"
            ),
            ["endpoints[0].deprecatedTopology: Too many: 17: must have at most 16 items"],
        ),
        (
            SLICE.replace("- port: 80", "- {port: 0, protocol: X, appProtocol: '-', name: A}\n- {}\n- {name: ''}"),
            [
                f'ports[0].name: Invalid value: "A": {LABEL}',
                "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                'ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"',
                'ports[0].appProtocol: Invalid value: "-": name part must consist of',
                'ports[2].name: Duplicate value: ""',
            ],
        ),
        (
            SLICE.replace("  name: back-end-1", "  name: b\n  annotations: {svcnat.io/weights: '{\"x\": 1}'}"),
            ['metadata.annotations[svcnat.io/weights]: Invalid value: "{\\"x\\": 1}": "x" is no IP address'],
        ),
    ],
)
def test_slices(text: str, expected: list[str]) -> None:
    """Addresses of one family that can be reached, ports, and the limits of a slice."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ENDPOINTS.replace("- addresses: [{ip: 10.0.0.1}]\n  ports", "- ports"),
            ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        ),
        (ENDPOINTS.replace("addresses", "notReadyAddresses"), []),
        (
            ENDPOINTS.replace("{ip: 10.0.0.1}", "{}, {ip: x}, {ip: 169.254.1.1, hostname: A, nodeName: B}"),
            [
                "subsets[0].addresses[0].ip: Required value",
                f'subsets[0].addresses[1].ip: Invalid value: "x": {ADDRESS}',
                'subsets[0].addresses[2].ip: Invalid value: "169.254.1.1": may not be in the link-local range',
                f'subsets[0].addresses[2].hostname: Invalid value: "A": {LABEL}',
                f'subsets[0].addresses[2].nodeName: Invalid value: "B": {SUBDOMAIN}',
            ],
        ),
        (
            ENDPOINTS.replace("{port: 80}", "{port: 80}, {name: a}"),
            ["subsets[0].ports[0].name: Required value", "subsets[0].ports[1].port: Required value"],
        ),
    ],
)
def test_endpoints(text: str, expected: list[str]) -> None:
    """The older form keeps the same rules."""
    check(text, expected)


def with_pod(spec: str = "", container: str = "", ports: str = "[]", status: str = "{}") -> str:
    container = f"{{name: a, image: b, {container} ports: {ports}}}"
    return f"{POD.partition('spec:')[0]}spec: {{{spec} containers: [{container}]}}\nstatus: {status}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (POD.replace("[{name: a, image: b}]", "[]"), ["spec.containers: Required value"]),
        (
            POD.replace("{name: a, image: b}", "{}, {name: A, image: b}, {name: c, image: d}, {name: c, image: d}"),
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value",
                f'spec.containers[1].name: Invalid value: "A": {LABEL}',
                'spec.containers[3].name: Duplicate value: "c"',
            ],
        ),
        (with_pod("initContainers: [{name: a, image: b}],"), ['spec.containers[0].name: Duplicate value: "a"']),
        (
            with_pod(
                "restartPolicy: Maybe, dnsPolicy: X, hostname: A, subdomain: B, nodeName: C, nodeSelector: {-: x},"
                " terminationGracePeriodSeconds: -1,"
            ),
            [
                'spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"',
                'spec.dnsPolicy: Unsupported value: "X": supported values: "ClusterFirst", "ClusterFirstWithHostNet"',
                f'spec.hostname: Invalid value: "A": {LABEL}',
                f'spec.subdomain: Invalid value: "B": {LABEL}',
                f'spec.nodeName: Invalid value: "C": {SUBDOMAIN}',
                'spec.nodeSelector: Invalid value: "-": name part must consist of',
                "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            with_pod("dnsPolicy: None, "),
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            with_pod("dnsPolicy: None, dnsConfig: {searches: [a.example., .]}, "),
            ["spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy`"],
        ),
        (
            with_pod(
                "dnsConfig: {nameservers: [1.1.1.1, '::1', 1.1.1.3, x], searches: ['a b'], options: [{value: a},"
                ' {name: edns0}, {name: ndots, value: "1\\nnameserver 192.0.2.1"}]},'
                " hostAliases: [{ip: 192.0.2.1, hostnames: [web]}, {hostnames: ['a b']}],"
            ),
            [
                'spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","::1","1.1.1.3","x"]: must not have more than 3',
                f'spec.dnsConfig.nameservers[3]: Invalid value: "x": {ADDRESS}',
                f'spec.dnsConfig.searches[0]: Invalid value: "a b": {SUBDOMAIN}',
                "spec.dnsConfig.options[0]: Required value: must not be empty",
                'spec.dnsConfig.options[2]: Invalid value: "1\\nnameserver 192.0.2.1": must not contain white space',
                f'spec.hostAliases[1].ip: Invalid value: "": {ADDRESS}',
                f'spec.hostAliases[1].hostnames[0]: Invalid value: "a b": {SUBDOMAIN}',
            ],
        ),
        (
            with_pod(f"dnsConfig: {{searches: [{', '.join(['a' * 63] * 33)}]}}, "),
            [
                'spec.dnsConfig.searches: Invalid value: ["aaaa',
                'spec.dnsConfig.searches: Invalid value: ["aaaa',
            ],
        ),
        (
            with_pod(container="env: [{name: A, value: b}, {value: c}],"),
            ["spec.containers[0].env[1].name: Required value"],
        ),
        (
            with_pod(
                ports="[{}, {containerPort: 70000, name: '-'},"
                " {containerPort: 1, name: a}, {containerPort: 2, name: a}]"
            ),
            [
                "spec.containers[0].ports[0].containerPort: Required value",
                'spec.containers[0].ports[1].name: Invalid value: "-": must contain at least one letter (a-z)',
                'spec.containers[0].ports[1].name: Invalid value: "-": must not begin or end with a hyphen',
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535",
                'spec.containers[0].ports[3].name: Duplicate value: "a"',
            ],
        ),
        (
            with_pod(ports="[{containerPort: 80, hostPort: 70000, hostIP: x, protocol: X}]"),
            [
                "spec.containers[0].ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                'spec.containers[0].ports[0].protocol: Unsupported value: "X"',
                f'spec.containers[0].ports[0].hostIP: Invalid value: "x": {ADDRESS}',
            ],
        ),
        (
            with_pod("hostNetwork: true,", ports="[{containerPort: 80, hostPort: 81}, {containerPort: 82}]"),
            ["spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork`"],
        ),
        (with_pod(status="{podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], podIP: 10.0.0.1, phase: Running}"), []),
        (with_pod(status="{podIP: x}"), [f'status.podIP: Invalid value: "x": {ADDRESS}']),
        (
            with_pod(status="{podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}"),
            ['status.podIP: Invalid value: "10.0.0.1": must match the first of `podIPs`'],
        ),
        (
            with_pod(status="{podIPs: [{ip: 10.0.0.1}, {ip: x}]}"),
            [f'status.podIPs[1].ip: Invalid value: "x": {ADDRESS}'],
        ),
        (
            with_pod(status="{hostIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}"),
            ['status.hostIPs: Invalid value: "10.0.0.1, 10.0.0.2": may specify no more than one IP for each IP family'],
        ),
        (
            with_pod(status="{phase: Fine, conditions: [{}, {type: Ready, status: 'True'}]}"),
            [
                'status.phase: Unsupported value: "Fine": supported values: "Failed", "Pending", "Running"',
                "status.conditions[0].type: Required value",
                'status.conditions[0].status: Unsupported value: "": supported values: "False", "True", "Unknown"',
            ],
        ),
        (
            POD.replace("{name: web}", "{name: web, annotations: {svcnat.io/weight: '1001'}}"),
            ['metadata.annotations[svcnat.io/weight]: Invalid value: "1001": must be a whole number'],
        ),
    ],
)
def test_pods(text: str, expected: list[str]) -> None:
    """Containers, their ports, and the status that a manifest may give."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEPLOYMENT.replace("  selector: {matchLabels: {app: web}}\n", ""), ["spec.selector: Required value"]),
        (
            DEPLOYMENT.replace("{matchLabels: {app: web}}", "{}"),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            DEPLOYMENT.replace("{labels: {app: web}}", "{labels: {app: db}}"),
            ['spec.template.metadata.labels: Invalid value: {"app":"db"}: `selector` does not match template `labels`'],
        ),
        (DEPLOYMENT.replace("{matchLabels: {app: web}}", "{matchExpressions: [{key: app, operator: Exists}]}"), []),
        (
            DEPLOYMENT.replace(
                "{matchLabels: {app: web}}",
                "{matchLabels: {-: x}, matchExpressions: [{key: a, operator: In},"
                " {key: b, operator: Exists, values: [x]},"
                " {key: -, operator: like}, {key: c, operator: NotIn, values: [-]}]}",
            ),
            [
                'spec.selector.matchLabels: Invalid value: "-": name part must consist of',
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is",
                "spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists'",
                'spec.selector.matchExpressions[2].operator: Invalid value: "like": not a valid selector operator',
                'spec.selector.matchExpressions[2].key: Invalid value: "-": name part must consist of',
                'spec.selector.matchExpressions[3].values[0]: Invalid value: "-": a valid label must be an empty',
            ],
        ),
        (
            DEPLOYMENT.replace("replicas: 2", "replicas: -2\n  minReadySeconds: -1\n  strategy: x"),
            [
                "spec.replicas: Invalid value: -2: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                'spec.strategy: Invalid value: "x": must be an object',
            ],
        ),
        (
            DEPLOYMENT.replace("replicas: 2", "strategy: {type: Fast}"),
            ['spec.strategy.type: Unsupported value: "Fast": supported values: "Recreate", "RollingUpdate"'],
        ),
        (DEPLOYMENT.replace("replicas: 2", "replicas: 10000"), []),
        (
            DEPLOYMENT.replace("replicas: 2", "replicas: 2000000000"),
            ["spec.replicas: Invalid value: 2000000000: must be less than or equal to 10000"],
        ),
        (DEPLOYMENT.replace("replicas: 2", "strategy: {type: Recreate}"), []),
        (DEPLOYMENT.replace("replicas: 2", "strategy: {}"), []),
        (
            DEPLOYMENT.replace("      containers:", "      restartPolicy: Never\n      containers:"),
            ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
        ),
        (
            DEPLOYMENT.replace("{labels: {app: web}}", "{labels: {app: web}, annotations: {svcnat.io/weight: x}}"),
            ['spec.template.metadata.annotations[svcnat.io/weight]: Invalid value: "x": must be a whole number'],
        ),
        (
            DEPLOYMENT + "status: {conditions: [{type: Available, status: yes-ish}]}\n",
            ['status.conditions[0].status: Unsupported value: "yes-ish"'],
        ),
        (
            DEPLOYMENT.replace("{app: web}}\n    spec", "{app: 1}}\n    spec"),
            ["spec.template.metadata.labels[app]: Invalid value: 1: must be text, not what YAML reads here"],
        ),
    ],
)
def test_deployments(text: str, expected: list[str]) -> None:
    """The selector must pick the template's own Pods, and the template must be a sound Pod."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NODE.replace("10.244.1.0/24", "10.244.1.0"), [f'spec.podCIDR: Invalid value: "10.244.1.0": {CIDR}']),
        (NODE.replace("podCIDR: 10.244.1.0/24", "podCIDRs: [10.244.1.0/24, 'fd00::/64']"), []),
        (
            NODE.replace("podCIDR: 10.244.1.0/24", "podCIDR: 10.0.0.0/24, podCIDRs: [10.0.1.0/24]"),
            ['spec.podCIDR: Invalid value: "10.0.0.0/24": must match the first of `podCIDRs`'],
        ),
        (
            NODE.replace("podCIDR: 10.244.1.0/24", "podCIDRs: [10.0.0.0/24, x]"),
            [f'spec.podCIDRs[1]: Invalid value: "x": {CIDR}'],
        ),
        (
            NODE.replace("podCIDR: 10.244.1.0/24", "podCIDRs: [10.0.0.0/24, 10.0.1.0/24]"),
            ['spec.podCIDRs: Invalid value: "10.0.0.0/24, 10.0.1.0/24": may specify no more than one IP for each IP f'],
        ),
        (
            NODE.replace("172.30.0.1}", "x}, {type: Hostname, address: n1}"),
            [
                f'status.addresses[0].address: Invalid value: "x": {ADDRESS}',
                'status.addresses[2]: Duplicate value: "Hostname n1"',
            ],
        ),
        (
            NODE.replace("{name: n1}", "{name: n1, namespace: x}"),
            ["metadata.namespace: Forbidden: not allowed"],
        ),
        (NODE.replace("{name: n1}", "{name: N1}"), [f'metadata.name: Invalid value: "N1": {SUBDOMAIN}']),
        (NAMESPACE.replace("shop", "a.b"), [f'metadata.name: Invalid value: "a.b": {LABEL}']),
        (
            NAMESPACE + "status: {phase: Gone}\n",
            ['status.phase: Unsupported value: "Gone": supported values: "A'],
        ),
    ],
)
def test_nodes_and_namespaces(text: str, expected: list[str]) -> None:
    """Pod ranges, addresses, and names without a namespace."""
    check(text, expected)


def updated(old: str, new: str) -> list[str]:
    return [str(problem)[:60] for problem in validate_update(resource(old), resource(new))]


def test_updates() -> None:
    """What Kubernetes never lets change; a Pod may be put on a node, and gets a new image."""
    assert updated(SLICE, SLICE) == []
    assert updated(SLICE, with_endpoint("addresses: ['fd00::1']", "IPv6")) == [
        'addressType: Invalid value: "IPv6": field is immutable'
    ]
    forbidden = "spec: Forbidden: pod updates may not change fields other tha"
    assert updated(POD, POD.replace("image: b", "image: c")) == []
    assert updated(POD, POD.replace("{containers", "{nodeName: n1, containers")) == []
    assert updated(POD.replace("{containers", "{nodeName: n2, containers"), POD) == [forbidden]
    assert updated(POD, POD.replace("image: b", "image: b, command: [x]")) == [forbidden]
    assert updated(DEPLOYMENT, DEPLOYMENT.replace("replicas: 2", "replicas: 3")) == []
    assert updated(DEPLOYMENT, DEPLOYMENT.replace("app: web", "app: x")) == [
        "spec.selector: Invalid value: {}: field is immutable"
    ]
    assert updated(NODE, NODE) == updated(NODE.replace("{podCIDR: 10.244.1.0/24}", "{}"), NODE) == []
    assert updated(NODE, NODE.replace("10.244.1.0", "10.244.2.0")) == [
        "spec.podCIDRs: Forbidden: node updates may not change podCID"
    ]
    assert updated(ENDPOINTS, ENDPOINTS.replace("10.0.0.1", "10.0.0.2")) == []
    assert updated(NAMESPACE, NAMESPACE) == []


def test_an_object_of_no_kind() -> None:
    """Only the kinds there are can be validated: anything else is a bug, not a finding."""
    with pytest.raises(TypeError, match="no rules for Resource"):
        validate(Resource())
