"""Probes of containers, and of hand-written endpoints: their defaults, and what Kubernetes would refuse."""

from __future__ import annotations

import json

import pytest

from svcnat.model import extensions
from svcnat.model.defaults import with_defaults
from svcnat.model.objects import GRPCAction, HTTPGetAction, Pod, Probe, TCPSocketAction
from tests.model.build import POD, errors, resource, service

PATH = "spec.containers[0].readinessProbe"


def with_probe(probe: str) -> str:
    return POD.replace("image: b", f"image: b, readinessProbe: {probe}")


def test_defaults_are_those_of_kubernetes() -> None:
    """core/v1 SetDefaults_Probe: 0 counts as unset; doing it twice changes nothing."""
    pod = with_defaults(resource(with_probe("{httpGet: {port: web}, timeoutSeconds: 0}")))
    assert isinstance(pod, Pod)
    assert pod.spec.containers[0].readiness_probe == Probe(
        http_get=HTTPGetAction(path="/", port="web", scheme="HTTP"),
        timeout_seconds=1,
        period_seconds=10,
        success_threshold=1,
        failure_threshold=3,
    )
    assert with_defaults(pod) == pod


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("{exec: {command: [cat, /tmp/ok]}}", []),
        ("{httpGet: {port: 80, scheme: HTTPS, httpHeaders: [{name: X-A, value: 'ü\tb'}]}}", []),
        ("{tcpSocket: {port: web, host: 10.0.0.1}, initialDelaySeconds: 5}", []),
        ("{grpc: {port: 80, service: s}}", []),
        ("{}", [": Required value: must specify a handler type"]),
        ("{exec: {}}", [".exec.command: Required value"]),
        (
            "{exec: {command: [a]}, httpGet: {port: 80}, tcpSocket: {port: 80}, grpc: {port: 0}}",
            [
                f".{name}: Forbidden: may not specify more than 1 handler type"
                for name in ("httpGet", "tcpSocket", "grpc")
            ],
        ),
        (
            "{httpGet: {port: 80}, tcpSocket: {}}",
            [".tcpSocket: Forbidden: may not specify more than 1 handler type"],
        ),
        ("{tcpSocket: {}}", [".tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        ("{grpc: {port: 65536}}", [".grpc.port: Invalid value: 65536: must be between 1 and 65535, inclusive"]),
        ("{tcpSocket: {port: ''}}", ['.tcpSocket.port: Invalid value: "": must be between 1 and 65535, inclusive']),
        (
            "{httpGet: {port: '80', scheme: ftp, httpHeaders: [{name: 'a b'}, {name: a, value: \"b\\r\\nc: d\"}]}}",
            [
                '.httpGet.port: Invalid value: "80": must contain at least one letter (a-z)',
                '.httpGet.scheme: Unsupported value: "ftp": supported values: "HTTP", "HTTPS"',
                '.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header must consist of',
                '.httpGet.httpHeaders[1].value: Invalid value: "b\\r\\nc: d": must not contain control characters',
            ],
        ),
        (
            "{tcpSocket: {port: 80}, initialDelaySeconds: -1, timeoutSeconds: -1, periodSeconds: -1, "
            "successThreshold: -1, failureThreshold: -1, terminationGracePeriodSeconds: 5}",
            [
                *(
                    f".{name}: Invalid value: -1: must be greater than or equal to 0"
                    for name in (
                        "initialDelaySeconds",
                        "timeoutSeconds",
                        "periodSeconds",
                        "successThreshold",
                        "failureThreshold",
                    )
                ),
                ".terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
            ],
        ),
        (
            "{tcpSocket: {port: true}}",
            [".tcpSocket.port: Invalid value: true: must be a whole number"],
        ),
    ],
)
def test_readiness_probes(probe: str, expected: list[str]) -> None:
    """One handler, a port, and numbers that make sense, in Kubernetes' words."""
    found = [each.partition(": ")[2] for each in errors(with_probe(probe))]
    assert len(found) == len(expected), found
    for each, beginning in zip(found, expected, strict=True):
        assert each.startswith(PATH + beginning)


def test_other_probes_are_not_looked_at() -> None:
    """Liveness and startup probes are accepted: nobody restarts a container here."""
    assert errors(with_probe("{tcpSocket: {port: 80}}, livenessProbe: {x: 1}, startupProbe: {}")) == []


def annotated(text: str) -> str:
    return service("{ports: [{port: 80}]}", f"{{name: a, annotations: {{svcnat.io/probe: {json.dumps(text)}}}}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"tcpSocket": {}}', ""),
        ('{"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 5}', ""),
        ('{"grpc": {"port": 9000}}', ""),
        ("{", 'must be a probe as JSON: {"tcpSocket": {}}'),
        ("[" * 100_000, 'must be a probe as JSON: {"tcpSocket": {}}'),
        ("[]", 'must be a probe as JSON: {"tcpSocket": {}}'),
        ('{"grpc": {"service": "\\ud800"}}', 'must be a probe as JSON: {"tcpSocket": {}}'),
        ("{}", "Required value: must specify a handler type"),
        ('{"exec": {"command": ["a"]}}', "exec: Forbidden: there is no container to run a command in"),
        ('{"tcpSocket": {"port": 0}}', "tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        (
            '{"tcpsocket": {}, "httpGet": {"port": [1]}}',
            "httpGet.port: Invalid value: [1]: must be a whole number; "
            'tcpsocket: unknown field: did you mean "tcpSocket"?',
        ),
    ],
)
def test_the_annotation_is_a_probe(text: str, expected: str) -> None:
    """svcnat.io/probe has the shape of a Probe, whose port is the endpoint's unless it says so."""
    found = errors(annotated(text))
    if expected:
        (message,) = found
        assert message.endswith(f": {expected}")
    else:
        assert found == []


def test_what_the_annotation_means() -> None:
    """It has the defaults of a container's probe."""
    probe = extensions.parse_probe('{"tcpSocket": {}, "periodSeconds": 5}')
    assert probe == Probe(
        tcp_socket=TCPSocketAction(), timeout_seconds=1, period_seconds=5, success_threshold=1, failure_threshold=3
    )
    assert extensions.parse_probe('{"grpc": {}}').grpc == GRPCAction(service="")


def test_the_annotations_belong_on_their_kinds() -> None:
    """A probe is a Service's, its results are those of endpoints."""
    pod = POD.replace("{name: web}", "{name: web, annotations: {svcnat.io/probe: '{}', svcnat.io/probe-results: '{}'}}")
    assert [each.partition("]: ")[2] for each in errors(pod)] == [
        "Forbidden: has a meaning on a Service only, not on a Pod",
        "Forbidden: has a meaning on a EndpointSlice only, not on a Pod",
    ]
