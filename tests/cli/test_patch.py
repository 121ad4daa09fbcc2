"""patch, for real: what it prints, what it refuses, and a readiness gate from both sides."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from svcnat import api
from svcnat.model.objects import Service
from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, runtime, unused_name
from tests.lab.pods import ask_tcp

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '1'}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {a: hunter2}\n"
GATED = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      readinessGates: [{conditionType: example.com/warm}]
      containers: [{name: c, image: x, ports: [{containerPort: 80}]}]
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has a ConfigMap and a Secret."""
    Path("all.yml").write_text(f"{CONFIG}---\n{SECRET}")
    assert bare_cluster("apply", "-f", "all.yml").code == 0
    return bare_cluster


def test_what_it_prints(cluster: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubectl's words; the patch comes from the command line, a file or standard input, in JSON or YAML."""
    assert cluster("patch", "cm", "settings", "-p", '{"data": {"b": "2"}}').out == "configmap/settings patched\n"
    assert cluster("patch", "cm/settings", "-p", "data: {b: '2'}").out == "configmap/settings patched (no change)\n"
    Path("patch.yml").write_text("data: {c: '3'}\n")
    assert cluster("patch", "cm/settings", "--patch-file", "patch.yml", "--dry-run=server").out == (
        "configmap/settings patched (server dry run)\n"
    )
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"data": {"a": null}}')))
    assert cluster("patch", "cm/settings", "--patch-file=-", "--type=merge", "-o", "name").out == "configmap/settings\n"
    assert cluster("get", "cm/settings", "-o", "jsonpath={.data}").out == '{"b":"2"}'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cm", "-p", "{}"], "resource(s) were provided, but no name was specified"),
        (["cm/settings"], "must specify --patch or --patch-file"),
        (["cm/settings", "-p", "{}", "--patch-file", "x"], "must specify --patch or --patch-file"),
        (["cm/settings", "--patch-file", "none"], "cannot read none: No such file or directory"),
        (["cm/settings", "-p", "[1]"], "the patch must be one object, in JSON or YAML"),
        (["cm/settings", "-p", "a: 1\n---\nb: 2"], "the patch must be one object, in JSON or YAML"),
        (["cm/settings", "-p", "{"], "the patch, line 1: "),
        (["cm/settings", "--type=json", "-p", "{}"], "the patch must be one list of operations, in JSON or YAML"),
        (["cm/settings", "--type=json", "-p", "[x]"], "the patch, operation 1: `op` must be one of add, copy, move,"),
        (["cm/settings", "--type=json", "-p", "[{op: remove}]"], "the patch, operation 1: remove needs `path`"),
        (
            ["cm/settings", "--type=json", "-p", "[{op: remove, path: data}]"],
            "the patch, operation 1: `path` must be a path that begins with a slash",
        ),
    ],
)
def test_mistakes(cluster: Run, words: list[str], message: str) -> None:
    """What makes no sense changes nothing."""
    result = cluster("patch", *words)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")


def test_operations(cluster: Run) -> None:
    """All of them; if one fails, it is named, and nothing changes."""
    config = ["patch", "cm/settings", "--type=json", "-p"]
    operations = """
    - {op: test, path: /data/a, value: '1'}
    - {op: add, path: /data/b, value: '2'}
    - {op: copy, from: /data/b, path: /data/c}
    - {op: move, from: /data/a, path: /data/d}
    - {op: replace, path: /data/b, value: '3'}
    - {op: add, path: /metadata/labels, value: {x~y: z}}
    - {op: move, from: /metadata/labels/x~0y, path: /metadata/labels/app}
    """
    assert cluster(*config, operations).out == "configmap/settings patched\n"
    assert cluster("get", "cm/settings", "-o", "jsonpath={.data}").out == '{"b":"3","c":"2","d":"1"}'
    assert cluster("get", "cm", "-l", "app=z", "-o", "name").out == "configmap/settings\n"
    assert cluster(*config, "[{op: test, path: /data/b, value: '3'}]").out == "configmap/settings patched (no change)\n"
    subject = "error: ConfigMap default/settings: operation 2,"
    for failing, message in {
        "{op: test, path: /data/b, value: '4'}": "test /data/b: the value is another one",
        "{op: replace, path: /data/x, value: '4'}": "replace /data/x: there is nothing at this path",
        "{op: remove, path: /data/b/c}": "remove /data/b/c: there is nothing at this path",
    }.items():
        result = cluster(*config, f"[{{op: add, path: /data/z, value: '9'}}, {failing}]")
        assert result == Result(1, "", f"{subject} {message}\n")
    assert cluster(*config, "[{op: replace, path: /metadata/name, value: x}]").err.endswith(
        "metadata.name: field is immutable, as is the namespace\n"
    )
    assert cluster("get", "cm/settings", "-o", "jsonpath={.data}").out == '{"b":"3","c":"2","d":"1"}'


def test_patches_that_grow_out_of_hand(cluster: Run) -> None:
    """A copy of everything, time and again, is twice as much each time: it is refused before it is made."""
    before = cluster("get", "cm/settings", "-o", "json")
    patch = ["patch", "cm/settings", "--type=json", "-p"]
    doubling = [{"op": "copy", "from": "/data", "path": f"/data/{number}"} for number in range(60)]
    result = cluster(*patch, json.dumps(doubling))
    assert result.code == 1
    assert result.err.endswith("more than 3145728 bytes would be copied\n")
    result = cluster(*patch, json.dumps([{"op": "test", "path": "/data/a", "value": "1"}] * 10_001))
    assert result == Result(2, "", "error: the patch has 10001 operations: at most 10000 are allowed\n")
    assert cluster("get", "cm/settings", "-o", "json") == before


@pytest.mark.parametrize(
    "patch",
    [
        "hunter2",
        "'hunter2'",
        "{hunter2",
        "data: {a: hunter2: x}",
        "data: {a: hunter2}",
        "data: [hunter2]",
        "a: !!int hunter2",
        "[{op: test, path: /data/a, value: hunter2}]",
        "[{op: add, path: /data/a/b, value: hunter2}]",
        "[{op: add, path: /data/a, value: [hunter2]}]",
        "[{op: hunter2}]",
    ],
)
def test_no_error_tells_a_secret(cluster: Run, patch: str) -> None:
    """Whatever is wrong with the patch."""
    result = cluster("patch", "secret/keys", "-p", patch, *(["--type=json"] if patch.startswith("[{op") else []))
    assert result.code
    assert "hunter2" not in result.out + result.err
    assert cluster("patch", "secret/keys", "-p", "stringData: {a: other}").out == "secret/keys patched\n"
    assert cluster("describe", "secret/keys").out.endswith("a:  5 bytes\n")


@pytest.fixture
def lab(svcnat: Run, runtime: Path, tmp_path: Path) -> Iterator[str]:
    """A lab with a gated Deployment behind a Service."""
    name = unused_name()
    (tmp_path / "app.yml").write_text(GATED)
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
    yield name
    svcnat("lab", "down", name)
    assert namespaces_of(name) == []


@pytest.mark.packets
def test_a_gate_opens_and_shuts(svcnat: Run, lab: str) -> None:
    """Its pod runs, but gets connections only while the condition is True; the pod's status says why."""

    def warm(pod: str, status: str) -> None:
        patch = f'{{status: {{conditions: [{{type: example.com/warm, status: "{status}"}}]}}}}'
        assert svcnat("--lab", lab, "patch", pod, "--subresource=status", "-p", patch).code == 0

    def ready(pod: str) -> str:
        query = 'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason}: {.message}{end}'
        return svcnat("--lab", lab, "get", pod, "-o", query).out

    def ask() -> str:
        with api.Lab.find(lab) as found:
            with found.read() as snapshot:
                service = snapshot.get(Service, "default", "web")
            assert service is not None
            address = service.spec.cluster_ip or ""
            return found.run("client", lambda: ask_tcp(address))

    pod = svcnat("--lab", lab, "get", "pods", "-o", "name").out.strip()
    assert svcnat("--lab", lab, "get", pod, "-o", "wide", "--no-headers").out.split()[-1] == "0/1"
    reason = 'corresponding condition of pod readiness gate "example.com/warm" does not exist.'
    assert ready(pod) == f"False ReadinessGatesNotReady: {reason}"
    with pytest.raises(ConnectionRefusedError):
        ask()
    warm(pod, "True")
    assert svcnat("--lab", lab, "get", pod, "-o", "wide", "--no-headers").out.split()[-1] == "1/1"
    assert ready(pod) == "True : "
    assert ask().startswith(pod.removeprefix("pod/"))
    assert svcnat("--lab", lab, "rollout", "status", "deploy/web", "--watch=false").out.endswith("rolled out\n")
    warm(pod, "False")
    assert ready(pod).endswith('the status of pod readiness gate "example.com/warm" is not "True", but False')
    with pytest.raises(ConnectionRefusedError):
        ask()
