"""label and annotate, for real: what they print, what they refuse, and what follows from labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, runtime, unused_name

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web-N, labels: {app: web}}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.244.0.N, conditions: [{type: Ready, status: "True"}]}
"""
MANIFESTS = f"""\
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
---
{POD.replace("N", "1")}---
{POD.replace("N", "2")}---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{a: hunter2}}
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has a Service, two pods and a Secret."""
    Path("web.yml").write_text(MANIFESTS)
    assert bare_cluster("apply", "-f", "web.yml").code == 0
    return bare_cluster


def endpoints(cluster: Run) -> list[str]:
    query = "jsonpath={range .subsets[*].addresses[*]}{.ip} {end}"
    return cluster("get", "endpoints", "web", "-o", query).out.split()


def test_labels_in_kubectls_words(cluster: Run) -> None:
    """labeled, unlabeled, not labeled; endpoints follow at once."""
    assert endpoints(cluster) == ["10.244.0.1", "10.244.0.2"]
    assert cluster("label", "pod", "web-1", "app-") == Result(0, "pod/web-1 unlabeled\n", "")
    assert endpoints(cluster) == ["10.244.0.2"]
    assert cluster("label", "pod", "web-1", "app-") == Result(0, "pod/web-1 not labeled\n", 'label "app" not found.\n')
    assert cluster("label", "pod/web-1", "app=web", "tier=front").out == "pod/web-1 labeled\n"
    assert cluster("label", "pod/web-1", "app=web").out == "pod/web-1 not labeled\n"
    assert endpoints(cluster) == ["10.244.0.1", "10.244.0.2"]
    assert cluster("label", "pods", "-l", "tier=front", "app=other", "--overwrite", "tier-").out == (
        "pod/web-1 labeled\n"
    )
    assert cluster("label", "pods", "--list", "--all").out == (
        "Listing labels for Pod./web-1:\n app=other\nListing labels for Pod./web-2:\n app=web\n"
    )
    assert cluster("label", "po/web-2", "--list").out == "app=web\n"


def test_annotations_in_kubectls_words(cluster: Run) -> None:
    """One that is there needs --overwrite, whatever it is, but for the cause of a change."""
    assert cluster("annotate", "svc", "web", "a=1", "b=x=y").out == "service/web annotated\n"
    again = cluster("annotate", "svc", "web", "a=1", "b=2")
    assert again == Result(
        1,
        "",
        "error: --overwrite is false but found the following declared annotation(s): "
        "'a' already has a value (1); 'b' already has a value (x=y)\n",
    )
    assert cluster("annotate", "svc", "web", "a=2", "--overwrite", "b-").out == "service/web annotated\n"
    for cause in "12":
        assert cluster("annotate", "svc", "web", f"kubernetes.io/change-cause={cause}").code == 0
    found = json.loads(cluster("get", "svc", "web", "-o", "jsonpath={.metadata.annotations}").out)
    assert (found["a"], "b" in found, found["kubernetes.io/change-cause"]) == ("2", False, "2")


def test_which_objects(cluster: Run) -> None:
    """Several kinds, names, files, labels, all; a dry run and other formats."""
    assert cluster("label", "po,svc", "--all", "x=y", "--dry-run=client").out == (
        "pod/web-1 labeled (dry run)\npod/web-2 labeled (dry run)\n"
        "service/kubernetes labeled (dry run)\nservice/web labeled (dry run)\n"
    )
    assert cluster("label", "-f", "web.yml", "x=y", "-o", "name").out == (
        "service/web\npod/web-1\npod/web-2\nsecret/keys\n"
    )
    assert cluster("get", "pods", "-l", "x=y", "-o", "name").out == "pod/web-1\npod/web-2\n"
    assert cluster("label", "pods", "-l", "x=z", "a=b") == Result(0, "", "No resources found\n")
    assert cluster("label", "ns", "default", "team=a").out == "namespace/default labeled\n"
    assert cluster("get", "ns", "-l", "team=a", "-o", "name").out == "namespace/default\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["label", "pod"], 2, "at least one label update is required"),
        (["annotate", "pod/web-1"], 2, "at least one annotation update is required"),
        (["label", "a=b"], 2, "one or more resources must be specified as <resource> <name> or <resource>/<name>"),
        (["label", "pods", "a=b"], 2, "resource(s) were provided, but no name was specified"),
        (["label", "pod", "a=b", "web-1"], 2, "all resources must be specified before label changes: web-1"),
        (["label", "pod/web-1", "a=b", "a-"], 2, "can not both modify and remove the following label(s)"),
        (["label", "pod/web-1", "--all", "a=b"], 2, "a name cannot be given together with --all, -l or -A"),
        (["label", "pods", "--all", "-l", "c=d", "a=b"], 2, "cannot set --all and --selector at the same time"),
        (["label", "pods", "--all", "a=b", "--resource-version=1"], 2, "--resource-version may only be used with a"),
        (["label", "pod/web-1", "--list", "a=b"], 2, "--list only prints"),
        (["label", "pod/web-1", "a=b c"], 2, 'invalid label value: "a=b c": a valid label must be'),
        (
            ["label", "pod/web-1", "a b=c"],
            1,
            'Pod default/web-1: metadata.labels: Invalid value: "a b": name part',
        ),
        (["label", "pod/web-1", "app=x"], 1, "'app' already has a value (web), and --overwrite is false"),
        (["label", "pod", "web-1", "none", "a=b"], 1, 'pods "none" not found'),
        (["label", "pod/web-1", "a=b", "--resource-version=1"], 1, 'Operation cannot be fulfilled on pods "web-1"'),
        (
            ["annotate", "pod/web-1", "svcnat.io/weight=much"],
            1,
            "Pod default/web-1: metadata.annotations[svcnat.io/weight",
        ),
        (["annotate", "pod", "web-1", "web-2", "svcnat.io/weight=1001"], 1, "Pod default/web-1: metadata.annotations["),
        (
            ["annotate", "svc/web", "svcnat.io/weight=1"],
            1,
            "Service default/web: metadata.annotations[svcnat.io/weight]",
        ),
        (
            ["label", "ep/web", "a=b"],
            1,
            'endpoints "web" is made from the endpoint slices of its service: change those',
        ),
        (["annotate", "pod/web-1", "svcnat.io/wieght=1"], 1, "Pod default/web-1: metadata.annotations"),
    ],
)
def test_mistakes_change_nothing(
    cluster: Run, condition: Callable[[], tuple[int, int]], words: list[str], code: int, message: str
) -> None:
    """One clear error; neither the store nor the rules move."""
    before = condition()
    result = cluster(*words)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"error: {message}"), result.err
    assert condition() == before


def test_weights_of_slices_are_their_authors(cluster: Run, condition: Callable[[], tuple[int, int]]) -> None:
    """What is made from pods has its weights from them: to say otherwise would be undone, and is refused."""
    made = cluster("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "name").out.strip()
    before = condition()
    for change in ('svcnat.io/weights={"10.244.0.1": 0}', "svcnat.io/weights-"):
        refused = cluster("annotate", made, change)
        assert refused.code == 1
        assert refused.err.endswith('" is made from pods: annotate those, with svcnat.io/weight\n')
    assert condition() == before
    Path("own.yml").write_text(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        "metadata: {name: own, labels: {kubernetes.io/service-name: web}}\n"
        "ports: [{port: 80}]\nendpoints: [{addresses: [10.244.0.9]}]\n"
    )
    assert cluster("apply", "-f", "own.yml").code == 0
    told = cluster("annotate", "endpointslice", "own", 'svcnat.io/weights={"10.244.0.9": 0}')
    assert told.out == "endpointslice.discovery.k8s.io/own annotated\n"
    assert condition() != before


def test_no_message_tells_a_secret(cluster: Run) -> None:
    """What was applied last stands in an annotation."""
    key = "kubectl.kubernetes.io/last-applied-configuration"
    listed = cluster("annotate", "secret/keys", "--list")
    refused = cluster("annotate", "secret/keys", f"{key}=x")
    assert (listed.code, refused.code) == (0, 1)
    assert "hunter2" not in listed.out + refused.err
    assert "aHVudGVyMg" not in listed.out + refused.err


@pytest.mark.packets
def test_in_a_lab(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """A pod whose label goes is orphaned, and its Deployment makes another one."""
    name = unused_name()
    (tmp_path / "app.yml").write_text(
        """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
"""
    )
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
    try:
        pod = svcnat("--lab", name, "get", "pods", "-o", "name").out.strip()
        assert svcnat("--lab", name, "label", pod, "app=quarantined", "--overwrite").out == f"{pod} labeled\n"
        after = svcnat("--lab", name, "get", "pods", "-o", "name").out.split()
        assert len(after) == 2
        assert pod in after
        assert len(svcnat("--lab", name, "get", "pods", "-l", "app=web", "-o", "name").out.split()) == 1
    finally:
        svcnat("lab", "down", name)
    assert namespaces_of(name) == []
