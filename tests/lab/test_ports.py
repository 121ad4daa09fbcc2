"""Which ports are stood in for: those that manifests in the wild mean, and nobody else's."""

from __future__ import annotations

import pytest

from svcnat.lab.control import Port
from svcnat.lab.ports import stood_in
from svcnat.model.manifests import load
from svcnat.model.objects import Pod

HTTP = "readinessProbe: {httpGet: {port: 9090}}"


@pytest.mark.parametrize(
    ("containers", "manned", "expected"),
    [
        ("[{name: a, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]", (), ["TCP 80", "UDP 53"]),
        ("[{name: a, ports: [{containerPort: 80, name: one}, {containerPort: 80, name: two}]}]", (), ["TCP 80"]),
        ("[{name: a, ports: [{containerPort: 80}]}, {name: b, ports: [{containerPort: 80}]}]", (), ["TCP 80"]),
        (f"[{{name: a, ports: [{{containerPort: 80}}], {HTTP}}}]", (), ["TCP 80", "TCP 9090"]),
        ("[{name: a, ports: [{containerPort: 80}], readinessProbe: {grpc: {port: 81}}}]", (), ["TCP 80", "TCP 81"]),
        (
            "[{name: a, ports: [{containerPort: 80}], readinessProbe: {tcpSocket: {port: 81, host: 1.2.3.4}}}]",
            (),
            ["TCP 80"],
        ),
        (
            "[{name: a, ports: [{containerPort: 80, name: web}], readinessProbe: {tcpSocket: {port: web}}}]",
            (),
            ["TCP 80"],
        ),
        ("[{name: a, ports: [{containerPort: 80}], readinessProbe: {exec: {command: [x]}}}]", (), ["TCP 80"]),
        (f"[{{name: a, {HTTP}}}]", (), []),
        ("[{name: a, ports: [{containerPort: 80}]}, {name: b, ports: [{containerPort: 81}]}]", ("a",), ["TCP 81"]),
        (
            f"[{{name: a, ports: [{{containerPort: 9090}}]}}, {{name: b, ports: [{{containerPort: 81}}], {HTTP}}}]",
            ("a",),
            ["TCP 81"],
        ),
    ],
    ids=[
        "declared",
        "twice",
        "shared",
        "probed",
        "grpc",
        "elsewhere",
        "named",
        "exec",
        "none-declared",
        "manned",
        "a-program-s",
    ],
)
def test_ports_of_pods(containers: str, manned: tuple[str, ...], expected: list[str]) -> None:
    """Declared ones once, and what readiness probes ask of containers that declare any; never a program's."""
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers: {containers}\n".replace(
        "{name:", "{image: x, name:"
    )
    (manifest,) = load([("p.yml", text.replace("metadata: {image: x, ", "metadata: {").encode())]).manifests
    assert isinstance(manifest.resource, Pod)
    assert [f"{port.protocol} {port.number}" for port in stood_in(manifest.resource, manned)] == expected
    assert all(isinstance(port, Port) for port in stood_in(manifest.resource, manned))
