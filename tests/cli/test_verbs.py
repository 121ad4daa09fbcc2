"""The verbs, for real: a state file, a network namespace, and what they print."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from svcnat.cli import get
from svcnat.kernel import netns
from svcnat.kernel.libnftables import Libnftables
from svcnat.store.sqlite import Store
from tests.agents import PATIENCE
from tests.cli.conftest import Result

Run = Callable[..., Result]

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: back-end
spec:
  type: ClusterIP
  ports:
    - targetPort: 80
      port: 80
  selector:
    app: myapp
    type: back-end
"""

PODS = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: pod-1, labels: {app: myapp, type: back-end}}
  spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
  status: {phase: Running, podIP: 10.244.0.5, conditions: [{type: Ready, status: "True"}]}
- apiVersion: batch/v1
  kind: Job
  metadata: {name: once}
- apiVersion: networking.k8s.io/v1
  kind: Ingress
  metadata: {name: ingress}
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file and a namespace of its own, in a folder with manifests."""
    Path("service-definition.yml").write_text(SERVICE)
    Path("pods.yml").write_text(PODS)
    return bare_cluster


def rules(where: str) -> str:
    """Every rule of a namespace, as nft lists them."""

    def listed() -> str:
        return subprocess.run(["/usr/sbin/nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

    return netns.call(netns.path(where), listed)


def test_the_worked_example(cluster: Run) -> None:
    """Create with -f, then get services: the course's two lines, kubernetes first."""
    assert cluster("create", "-f", "service-definition.yml") == Result(0, "service/back-end created\n", "")
    listed = cluster("get", "services")
    assert (listed.code, listed.err) == (0, "")
    lines = [line.split() for line in listed.out.splitlines()]
    assert lines[0] == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert lines[1][:5] == ["kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]
    assert [lines[2][index] for index in (0, 1, 3, 4)] == ["back-end", "ClusterIP", "<none>", "80/TCP"]
    assert len(lines) == 3


def test_creating_twice_is_refused(cluster: Run) -> None:
    """With kubectl's words and code 1; nothing of the files is created."""
    cluster("create", "-f", "service-definition.yml")
    again = cluster("create", "-f", "service-definition.yml", "-f", "pods.yml")
    assert again.code == 1
    assert 'error: services "back-end" already exists\n' in again.err
    assert cluster("get", "pods") == Result(0, "", "No resources found in default namespace.\n")


def test_apply_says_what_it_did(cluster: Run, empty_netns: str) -> None:
    """created, unchanged, configured; kinds that svcnat has no use for are named in one line."""
    skipped = "skipped, as svcnat has no use for these kinds: Job, Ingress\n"
    paths = ("-f", "service-definition.yml", "-f", "pods.yml")
    assert cluster("apply", *paths) == Result(0, "service/back-end created\npod/pod-1 created\n", skipped)
    assert "10.244.0.5 . 80" in rules(empty_netns)
    assert cluster("apply", *paths) == Result(0, "service/back-end unchanged\npod/pod-1 unchanged\n", skipped)
    Path("service-definition.yml").write_text(SERVICE.replace("targetPort: 80", "targetPort: 8080"))
    changed = cluster("apply", *paths, "-v")
    assert changed.out == "service/back-end configured\npod/pod-1 unchanged\n"
    assert "rules: " in changed.err
    assert 'kind "Ingress"' in changed.err
    assert "10.244.0.5 . 8080" in rules(empty_netns)


def test_a_dry_run_changes_nothing(cluster: Run, empty_netns: str) -> None:
    """It says what would happen."""
    assert cluster("create", "-f", "service-definition.yml", "--dry-run").out == "service/back-end created (dry run)\n"
    applied = cluster("apply", "-f", "service-definition.yml", "--dry-run=server")
    assert applied.out == "service/back-end created (server dry run)\n"
    assert cluster("get", "svc", "-o", "name").out == "service/kubernetes\n"
    assert rules(empty_netns) == ""
    cluster("create", "-f", "service-definition.yml")
    assert cluster("delete", "svc", "back-end", "--dry-run").out == 'service "back-end" deleted (dry run)\n'
    assert cluster("get", "svc", "back-end").code == 0


def test_mutations_can_print_the_objects(cluster: Run) -> None:
    """-o name, -o json and -o jsonpath on verbs that change."""
    assert cluster("create", "-f", "service-definition.yml", "-o", "name").out == "service/back-end\n"
    assert json.loads(cluster("apply", "-f", "service-definition.yml", "-o", "json").out)["kind"] == "Service"
    out = cluster("apply", "-f", "service-definition.yml", "-o", "jsonpath={.spec.clusterIP}").out
    assert out.startswith("10.")
    assert cluster("apply", "-f", "pods.yml", "-o", "wide").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("svc", "back-end"),
        ("svc/back-end",),
        ("services", "-l", "app=yes"),
        ("-f", "labelled.yml"),
    ],
)
def test_every_way_to_delete(cluster: Run, empty_netns: str, arguments: tuple[str, ...]) -> None:
    """By name, by label, by file; the rules follow."""
    Path("labelled.yml").write_text(SERVICE.replace("name: back-end", "name: back-end\n  labels: {app: 'yes'}", 1))
    cluster("create", "-f", "labelled.yml")
    assert cluster("delete", *arguments) == Result(0, 'service "back-end" deleted\n', "")
    assert "back-end" not in rules(empty_netns)
    assert cluster("get", "svc", "-o", "name").out == "service/kubernetes\n"


def test_deleting_everything_of_a_kind(cluster: Run) -> None:
    """--all, within the namespace."""
    cluster("apply", "-f", "pods.yml")
    cluster("apply", "-f", "pods.yml", "-n", "other")
    assert cluster("delete", "pods", "--all").out == 'pod "pod-1" deleted\n'
    assert cluster("get", "pods", "-n", "other", "-o", "name").out == "pod/pod-1\n"
    assert cluster("delete", "pods,deploy", "--all", "-A").out == 'pod "pod-1" deleted\n'
    assert cluster("delete", "pods", "--all", "-A") == Result(0, "", "No resources found\n")


def test_deleting_what_is_not_there(cluster: Run) -> None:
    """An error with kubectl's words, unless that is asked to be ignored; of several, none goes."""
    cluster("create", "-f", "service-definition.yml")
    assert cluster("delete", "svc", "back-end", "x") == Result(1, "", 'error: services "x" not found\n')
    assert cluster("get", "svc", "back-end").code == 0
    assert cluster("delete", "svc", "x", "--ignore-not-found") == Result(0, "", "No resources found\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete",),
        ("delete", "svc"),
        ("delete", "svc", "x", "--all"),
        ("delete", "svc", "--all", "-l", "a=b"),
        ("delete", "svc", "x", "-f", "pods.yml"),
        ("get",),
        ("get", "svc", "x", "-A"),
        ("get", "svc", "x", "-l", "a=b"),
        ("get", "svc", "-l", "=b"),
        ("get", "svc", "-o", "xml"),
        ("get", "svc", "-o", "json", "--show-labels"),
        ("create",),
        ("apply", "-f", "-", "-f", "-"),
        ("sync", "-f", "pods.yml", "-o", "yaml"),
        ("sync", "-f", "pods.yml", "--lab", "x"),
        ("render", "-f", "pods.yml", "--backend", "iptables"),
    ],
)
def test_requests_that_make_no_sense(cluster: Run, arguments: tuple[str, ...]) -> None:
    """Code 2, one error, and nothing printed."""
    cluster("create", "-f", "service-definition.yml")
    result = cluster(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("error: ") == 1


def test_get_several_kinds_and_names(cluster: Run) -> None:
    """Blocks with prefixed names; what is missing is an error after what is there."""
    cluster("apply", "-f", "service-definition.yml", "-f", "pods.yml")
    blocks = cluster("get", "all").out.split("\n\n")
    assert [block.splitlines()[1].split()[0] for block in blocks] == ["pod/pod-1", "service/kubernetes"]
    result = cluster("get", "svc", "back-end", "x")
    assert (result.code, result.err) == (1, 'error: services "x" not found\n')
    assert result.out.splitlines()[1].startswith("back-end ")
    assert cluster("get", "svc", "x", "--ignore-not-found") == Result(0, "", "")
    assert cluster("get", "svc", "x", "-o", "json") == Result(1, "", 'error: services "x" not found\n')
    assert cluster("get", "ns", "-o", "name").out == "namespace/default\n"
    assert cluster("get", "ns", "default", "-o", "name").out == "namespace/default\n"
    assert cluster("get", "nodes") == Result(0, "", "No resources found\n")
    assert cluster("get", "svc", "-n", "x") == Result(0, "", "No resources found in x namespace.\n")


def test_get_selects_sorts_and_formats(cluster: Run) -> None:
    """-l, --sort-by and -o on stored objects; one object by name, a List otherwise."""
    cluster("apply", "-f", "service-definition.yml")
    assert cluster("get", "svc", "-l", "component=apiserver", "-o", "name").out == "service/kubernetes\n"
    assert cluster("get", "svc", "--sort-by", ".spec.ports[0].port", "-o", "name").out == (
        "service/back-end\nservice/kubernetes\n"
    )
    assert json.loads(cluster("get", "svc", "back-end", "-o", "json").out)["kind"] == "Service"
    assert json.loads(cluster("get", "svc", "-o", "json").out)["kind"] == "List"
    assert cluster("get", "svc", "back-end", "-o", "jsonpath={.spec.selector.type}").out == "back-end"
    assert cluster("get", "svc", "-o", "custom-columns=N:.metadata.name", "--no-headers").code == 0
    assert cluster("get", "svc", "--sort-by", ".spec.port") == Result(
        1, "", 'error: couldn\'t find any field with path ".spec.port" in the list of objects\n'
    )
    assert cluster("get", "pods", "--sort-by", ".spec.port").code == 0
    cluster("label", "svc/back-end", "example.com/tier=back")
    shown = cluster("get", "svc", "-L", "example.com/tier", "-L", "component", "--show-labels").out.splitlines()
    tier, component = shown[0].index("TIER"), shown[0].index("COMPONENT")
    assert [line[tier:component].strip() for line in shown] == ["TIER", "", "back"]
    assert [line[component:].split() for line in shown] == [
        ["COMPONENT", "LABELS"],
        ["apiserver", "component=apiserver,provider=kubernetes"],
        ["example.com/tier=back"],
    ]


def test_watching_prints_changes(
    cluster: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -w, get lists, then prints what is new, changed or gone, until it is interrupted."""
    cluster("create", "-f", "service-definition.yml")
    steps = iter(
        [
            lambda: None,
            lambda: cluster("apply", "-f", "pods.yml", "-f", "service-definition.yml"),
            lambda: cluster("delete", "svc", "back-end"),
        ]
    )
    seen: list[str] = []

    def sleep(_: float) -> None:
        seen.append(capsys.readouterr().out)
        try:
            step = next(steps)
        except StopIteration:
            raise KeyboardInterrupt from None
        worker = threading.Thread(target=step)
        worker.start()
        worker.join()
        capsys.readouterr()

    monkeypatch.setattr(get, "time", SimpleNamespace(sleep=sleep))
    assert cluster("get", "svc", "back-end", "-w").code == 130
    assert [text.split()[:1] for text in seen] == [["NAME"], [], ["back-end"], ["back-end"]]


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("yaml", lambda text: list(yaml.safe_load_all(text))),
        ("json", lambda text: json.loads("[" + text.replace("\n}\n{", "\n},{") + "]")),
    ],
)
def test_watching_gives_programs_objects(
    cluster: Run, monkeypatch: pytest.MonkeyPatch, form: str, read: Callable[[str], list[dict[str, Any]]]
) -> None:
    """As with kubectl: no list, which would end before the first change, but one document for each object."""

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(get, "time", SimpleNamespace(sleep=sleep))
    cluster("apply", "-f", "service-definition.yml")
    watched = cluster("get", "svc", "-w", "-o", form)
    assert watched.code == 130
    assert [each["metadata"]["name"] for each in read(watched.out)] == ["kubernetes", "back-end"]
    assert cluster("get", "svc", "-w", "-o", "jsonpath={.metadata.name}").out == "kubernetesback-end"


def test_watching_ends_with_its_reader(tmp_path: Path) -> None:
    """Quietly, and without a change that would have to be printed: `get -w | head -1` gives the prompt back."""
    Store.open(tmp_path / "state.db").close()
    command = [sys.executable, "-m", "svcnat", "--state", str(tmp_path / "state.db"), "get", "svc", "-w"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert watching.stderr
        assert watching.stdout.readline().split()[0] == "NAME"
        watching.stdout.close()
        assert (watching.wait(PATIENCE), watching.stderr.read()) == (141, "")


def test_describing_a_service(cluster: Run) -> None:
    """First kubectl's lines, then the scheduler and the kernel's counters for each endpoint."""
    cluster("apply", "-f", "service-definition.yml", "-f", "pods.yml")
    out = cluster("describe", "svc", "back-end").out
    assert "Endpoints:                10.244.0.5:80\n" in out
    assert "Scheduler:                random\n" in out
    assert "  10.244.0.5:80  0\n" in out
    assert cluster("describe", "svc", "x") == Result(1, "", 'error: services "x" not found\n')
    assert cluster("describe", "deploy") == Result(0, "", "No resources found\n")
    assert cluster("describe", "svc,po,ns").out.count("\n\n\nName:") == 3


def test_describe_does_not_need_the_kernel(cluster: Run) -> None:
    """Without the namespace, the counters are unknown, and -v says why."""
    cluster("apply", "-f", "service-definition.yml", "-f", "pods.yml")
    result = cluster("describe", "svc", "back-end", "--netns", "no-such-namespace", "-v")
    assert result.code == 0
    assert "Connections:              <unknown>\n" in result.out
    assert "no-such-namespace" in result.err


def test_render_is_pure(svcnat: Run, tmp_path: Path) -> None:
    """The same bytes every time, and no state file."""
    (tmp_path / "a.yml").write_text(SERVICE)
    first = svcnat("render", "-f", str(tmp_path), "--state", str(tmp_path / "state.db"))
    assert (first.code, first.err) == (0, "")
    assert "table ip svcnat" in first.out
    assert svcnat("render", "-f", str(tmp_path)) == first
    assert not (tmp_path / "state.db").exists()


def test_sync_twice_and_cleanup(cluster: Run, empty_netns: str) -> None:
    """The second sync writes nothing; cleanup leaves a stranger's table as it was."""
    stranger = "table inet stranger { chain c { type filter hook input priority 0; }; }"
    netns.call(netns.path(empty_netns), lambda: Libnftables().commit(stranger))
    before = rules(empty_netns)
    paths = ("-f", "service-definition.yml", "-f", "pods.yml")
    said = r"rules: \d+ elements added, \d+ chains added, \d+ sets added"
    assert re.fullmatch(rf"{said} \(dry run\)\n", cluster("sync", *paths, "--dry-run").out)
    assert rules(empty_netns) == before
    assert re.fullmatch(rf"{said}\n", cluster("sync", *paths).out)
    assert "10.244.0.5 . 80" in rules(empty_netns)
    generation = json.loads(cluster("sync", *paths, "-o", "json").out)["generation"]
    assert cluster("sync", *paths).out == "rules: unchanged\n"
    assert json.loads(cluster("sync", *paths, "-o", "json").out)["generation"] == generation
    assert cluster("cleanup") == Result(0, "table ip svcnat removed\n", "")
    assert rules(empty_netns) == before
    assert cluster("cleanup") == Result(0, "", "No svcnat tables found\n")


def test_sync_leaves_the_rules_of_a_state_file_alone(cluster: Run) -> None:
    """It says so, and --force takes them over."""
    cluster("apply", "-f", "service-definition.yml", "-f", "pods.yml")
    refused = cluster("sync", "-f", "service-definition.yml")
    assert refused.code == 1
    assert "--force" in refused.err
    assert cluster("sync", "-f", "service-definition.yml", "--force").code == 0


LOST = [
    pytest.param("\n".join(line.lstrip() for line in SERVICE.splitlines()), 4, "`metadata`", id="everything flattened"),
    pytest.param(
        SERVICE.replace("metadata:\n  name", "metadata:\n    name: x\n  name"), 5, "", id="name beside metadata"
    ),
]


@pytest.mark.parametrize(("text", "line", "meant"), LOST)
def test_lost_indentation_names_the_line_and_changes_nothing(cluster: Run, text: str, line: int, meant: str) -> None:
    """The course's file as people paste it: located, explained, and without consequences."""
    Path("lost.yml").write_text(text)
    result = cluster("create", "-f", "lost.yml")
    assert (result.code, result.out) == (1, "")
    assert f"error: lost.yml:{line}: " in result.err
    assert meant in result.err
    assert not Path("state.db").exists()


def test_manifests_come_from_standard_input_too(cluster: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """-f - reads them, and findings say <stdin>."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SERVICE.encode())))
    assert cluster("create", "-f", "-").out == "service/back-end created\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"kind: Service\n")))
    assert cluster("create", "-f", "-").err.startswith("error: <stdin>:1: ")


def test_namespaces_must_agree(cluster: Run) -> None:
    """-n fills in what is missing, and contradicts nothing."""
    Path("there.yml").write_text(SERVICE.replace("name: back-end", "name: back-end\n  namespace: there", 1))
    refused = cluster("create", "-f", "there.yml", "-f", "pods.yml", "-n", "here")
    assert refused.code == 1
    assert refused.err.startswith("error: there.yml:5: service/back-end: metadata.namespace: the namespace 'there'")
    assert cluster("create", "-f", "service-definition.yml", "-n", "here").code == 0
    assert "here        back-end" in cluster("get", "svc", "-A").out


def test_unknown_fields_warn_or_fail(cluster: Run) -> None:
    """A warning with a suggestion, an error with --validate=strict, nothing with --validate=ignore."""
    Path("typo.yml").write_text(SERVICE.replace("selector:", "selectr:"))
    warned = cluster("create", "-f", "typo.yml", "--dry-run")
    assert warned.code == 0
    assert warned.err.startswith("warning: typo.yml:10: ")
    strict = cluster("create", "-f", "typo.yml", "--validate=strict")
    assert strict.code == 1
    assert strict.err.startswith("error: typo.yml:10: ")
    assert cluster("create", "-f", "typo.yml", "--validate", "--dry-run").code == 1
    assert cluster("create", "-f", "typo.yml", "--validate=ignore", "--dry-run").err == ""


def test_files_without_objects(cluster: Run) -> None:
    """An empty file is an error, never a reason to remove rules; one with only other kinds is none."""
    Path("empty.yml").write_text("---\n")
    for verb in ("create", "apply", "delete", "render", "sync"):
        assert cluster(verb, "-f", "empty.yml") == Result(1, "", "error: no objects in empty.yml\n")
    Path("other.yml").write_text("apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n")
    assert cluster("apply", "-f", "other.yml").code == 0


def test_reading_needs_a_state_file(cluster: Run) -> None:
    """Reading makes none, and says what would."""
    result = cluster("get", "svc")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: state.db: no such state file")
    assert not Path("state.db").exists()


def test_versions(svcnat: Run) -> None:
    """As text, JSON or YAML."""
    assert re.match(r"svcnat: \S+\nlibnftables: \S+\nkernel: \S+\n$", svcnat("version").out)
    assert set(json.loads(svcnat("version", "-o", "json").out)) == {"svcnat", "libnftables", "kernel"}
    assert svcnat("version", "-o", "yaml").out.startswith("kernel: ")
    assert svcnat("version", "-o", "wide").code == 2
