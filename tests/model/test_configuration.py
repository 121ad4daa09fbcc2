"""The configuration file: defaults, its fields, and errors at their lines."""

from __future__ import annotations

import pytest

from svcnat.errors import ManifestError
from svcnat.model.configuration import Configuration, parse_configuration

HEAD = "apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n"


def configured(text: str) -> Configuration:
    return parse_configuration((HEAD + text).encode(), "config.yaml")


def refused(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_configuration(text.encode(), "config.yaml")
    return [f"{each.line}: {each.field}: {each.reason}" for each in caught.value.findings]


def test_defaults() -> None:
    """An empty file, or one without fields, is the default configuration."""
    assert parse_configuration(b"# nothing\n", "c") == configured("") == Configuration()
    default = Configuration()
    assert default.cluster_networks == ()
    assert [str(each) for each in default.service_networks] == ["10.96.0.0/12", "fd00:10:96::/112"]
    assert default.node_ports == range(30000, 32768)
    assert default.node_port_addresses == ["primary"]
    assert (default.metrics_bind, default.healthz_bind) == (("127.0.0.1", 10249), ("127.0.0.1", 10256))


def test_every_field() -> None:
    """All of them, with bare on and off, which YAML takes for booleans."""
    given = configured(
        "hostnameOverride: node-1\nclusterCIDR: 10.244.0.0/16, fd00:10:244::/56\nserviceCIDR: 10.0.0.0/16\n"
        "nodePortAddresses: [192.0.2.0/24]\nnodePortRange: 30000-30100\nlocalhostNodePorts: true\n"
        "masqueradeAll: true\nbridgeMasquerade: off\nloadBalancerPool: [192.0.2.0/28, 192.0.2.64-192.0.2.80]\n"
        "zone: a\nendpointCounters: on\nloadBalancerInterfaces: [eth0, br-lan.7, 'büro']\n"
        "metricsBindAddress: 0.0.0.0:9100\nhealthzBindAddress: '::'\nendpointMetrics: off\n"
    )
    assert [str(each) for each in given.cluster_networks] == ["10.244.0.0/16", "fd00:10:244::/56"]
    assert [str(each) for each in given.service_networks] == ["10.0.0.0/16"]
    assert given.node_ports == range(30000, 30101)
    assert (given.bridge_masquerade, given.endpoint_counters) == ("off", "on")
    assert given.load_balancer_pool[1] == "192.0.2.64-192.0.2.80"
    assert given.load_balancer_interfaces == ["eth0", "br-lan.7", "büro"]
    assert (given.metrics_bind, given.healthz_bind) == (("0.0.0.0", 9100), ("::", 10256))
    assert given.endpoint_metrics == "off"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("hostnameOverride: Node_1", 'hostnameOverride: Invalid value: "Node_1": a lowercase RFC 1123 subdomain'),
        ("clusterCIDR: 10.244.0.0", 'clusterCIDR: Invalid value: "10.244.0.0": must be a valid CIDR value'),
        ("serviceCIDR: 10.0.0.0/8,11.0.0.0/8", "serviceCIDR: Invalid value: "),
        ("nodePortAddresses: [eth0]", 'nodePortAddresses[0]: Invalid value: "eth0": must be a valid CIDR value'),
        ("nodePortAddresses: [primary, 10.0.0.0/8]", "nodePortAddresses: Invalid value: "),
        ("nodePortRange: 32767-30000", 'nodePortRange: Invalid value: "32767-30000": must be FIRST-LAST'),
        ("nodePortRange: all", 'nodePortRange: Invalid value: "all": must be FIRST-LAST'),
        ("bridgeMasquerade: maybe", 'bridgeMasquerade: Unsupported value: "maybe": supported values: "auto", "off"'),
        ("loadBalancerPool: [10.0.0.9-10.0.0.1]", "loadBalancerPool[0]: Invalid value: "),
        ("loadBalancerPool: ['10.0.0.9-fd00::1']", "loadBalancerPool[0]: Invalid value: "),
        ("loadBalancerPool: [x]", "loadBalancerPool[0]: Invalid value: "),
        ("loadBalancerPool: [10.0.0.1-x]", "loadBalancerPool[0]: Invalid value: "),
        ("loadBalancerInterfaces: [lo]", 'loadBalancerInterfaces[0]: Invalid value: "lo": the loopback device has no '),
        (
            "loadBalancerInterfaces: [a, ../b]",
            'loadBalancerInterfaces[1]: Invalid value: "../b": must be the name of a ',
        ),
        ("loadBalancerInterfaces: [..]", "loadBalancerInterfaces[0]: Invalid value: "),
        ("loadBalancerInterfaces: ['']", "loadBalancerInterfaces[0]: Invalid value: "),
        ("loadBalancerInterfaces: [büroschränkchen]", "loadBalancerInterfaces[0]: Invalid value: "),
        ("loadBalancerInterfaces: [a, b, a]", 'loadBalancerInterfaces[2]: Duplicate value: "a"'),
        ("loadBalancerInterfaces: eth0", "loadBalancerInterfaces: Invalid value: "),
        ("metricsBindAddress: localhost:80", 'metricsBindAddress: Invalid value: "localhost:80": must be ADDRESS, '),
        ("healthzBindAddress: '10256'", 'healthzBindAddress: Invalid value: "10256": must be ADDRESS, ADDRESS:PORT or'),
        ("healthzBindAddress: 10256", "healthzBindAddress: Invalid value: "),
        (
            "endpointMetrics: maybe",
            'endpointMetrics: Unsupported value: "maybe": supported values: "auto", "off", "on"',
        ),
        ("endpointCounters: [x]", "endpointCounters: Invalid value: "),
        ("clusterCidr: 10.0.0.0/8", 'clusterCidr: unknown field: did you mean "clusterCIDR"?'),
        ("nonsense: 1", "nonsense: unknown field"),
        ("masqueradeAll: 'yes'", 'masqueradeAll: Invalid value: "yes": must be true or false, without quotes'),
    ],
)
def test_findings(field: str, expected: str) -> None:
    """Every slip is an error at its line: a field that is silently ignored would change the rules."""
    (found,) = refused(f"{HEAD}{field}\n")
    assert found.startswith(f"3: {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("127.0.0.1", "127.0.0.1:10249"),
        ("192.0.2.1:1", "192.0.2.1:1"),
        ("0.0.0.0:65535", "0.0.0.0:65535"),
        ("::1", "[::1]:10249"),
        ("FD00:0::1", "[fd00::1]:10249"),
        ("[::]:80", "[::]:80"),
    ],
)
def test_bind_addresses(text: str, expected: str | None) -> None:
    """As KubeProxyConfiguration has them: with or without a port; empty means nowhere."""
    given = configured(f"metricsBindAddress: '{text}'\n").metrics_bind
    assert expected == (given and str(given))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:080",
        "127.0.0.1:",
        "127.0.0.1:80 ",
        "127.0.0.1:80\\n",
        "127.0.0.01:80",
        ":80",
        "[127.0.0.1]:80",
        "[::1]",
        "[::1]:",
        "[::1:80",
        "::1:99999",
        "::ffff:192.0.2.1",
        "fe80::1%lo",
        "example.com:80",
    ],
)
def test_no_bind_addresses(text: str) -> None:
    """Names are looked up when a network may not be there yet, so they are refused; the rest is no address at all."""
    (found,) = refused(f'{HEAD}metricsBindAddress: "{text}"\n')
    assert found.startswith("3: metricsBindAddress: Invalid value: ")


def test_documents() -> None:
    """It is one object of the right kind."""
    assert refused("- 1\n") == ["1: : a configuration is an object with apiVersion, kind and its fields"]
    assert refused("kind: Service\n") == [
        "1: apiVersion: Required value",
        '1: kind: Unsupported value: "Service": supported values: "Configuration"',
    ]
    assert refused(f"{HEAD}---\n{HEAD}") == ["4: : a second document is one too many"]
    assert refused("a: [\n") == ["1: : not YAML: a value is missing"]
    assert refused(f"{HEAD}zone: a\nzone: b\n") == ['4: zone: key "zone" is already set on line 3']
