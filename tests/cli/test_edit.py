"""edit, for real: an editor that does what it is told, and notes what it was shown."""

from __future__ import annotations

import json
import shlex
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat import api
from svcnat.cli.editor import Draft, command
from svcnat.errors import UsageError
from svcnat.model.objects import Pod, Service
from tests.cli.conftest import Result
from tests.cli.test_verbs import rules
from tests.lab.conftest import namespaces_of, runtime, unused_name

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.7.7, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.244.0.5, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {a: hunter2}
"""
# Does one step of steps.json a call, and notes the file, its rights and those of its folder in seen.json.
EDITOR = """
import json, os, sys, subprocess
from pathlib import Path
argument, path = sys.argv[1], Path(sys.argv[2])
assert argument == "an argument"
steps, seen = json.loads(Path("steps.json").read_text()), json.loads(Path("seen.json").read_text())
text = path.read_text()
seen.append([str(path), path.stat().st_mode, path.parent.stat().st_mode, text])
Path("seen.json").write_text(json.dumps(seen))
step = steps.pop(0)
Path("steps.json").write_text(json.dumps(steps))
if step == "vanish":
    path.unlink()
elif step == "fail":
    sys.exit(3)
else:
    for old, new in step:
        assert old in text, text
        text = text.replace(old, new, 1)
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)  # as many editors do
"""


class Cluster:
    """``svcnat`` with a state file of its own, and an editor that takes steps."""

    def __init__(self, run: Run, condition: Callable[[], tuple[int, int]]) -> None:
        self._run = run
        self.condition = condition

    def __call__(self, *arguments: str) -> Result:
        return self._run(*arguments)

    def edit(self, *arguments: str, steps: list[object]) -> Result:
        """Edit, with so many calls of the editor: each replaces texts, or vanishes, or fails."""
        Path("steps.json").write_text(json.dumps(steps))
        Path("seen.json").write_text("[]")
        result = self("edit", *arguments)
        assert json.loads(Path("steps.json").read_text()) == []
        return result

    @property
    def seen(self) -> list[tuple[str, int, int, str]]:
        """Of each call: path, rights of the file and of its folder, text."""
        return [tuple(each) for each in json.loads(Path("seen.json").read_text())]


@pytest.fixture
def cluster(
    bare_cluster: Run, condition: Callable[[], tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    Path("all.yml").write_text(MANIFESTS)
    Path("an editor.py").write_text(EDITOR)
    for name in ("KUBE_EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} 'an editor.py' 'an argument'")
    made = Cluster(bare_cluster, condition)
    assert made("apply", "-f", "all.yml").code == 0
    return made


def leftovers() -> list[Path]:
    return [path for path in Path("tmp").rglob("*") if path.is_file()]


def test_an_edit(cluster: Cluster, empty_netns: str) -> None:
    """The rules follow; the file was nobody else's to read, and is gone."""
    edited = cluster.edit("svc", "web", steps=[[("targetPort: 80", "targetPort: 8080")]])
    assert edited == Result(0, "service/web edited\n", "")
    assert "10.244.0.5 . 8080" in rules(empty_netns)
    [(path, file, folder, text)] = cluster.seen
    assert (stat.S_IMODE(file), stat.S_IMODE(folder)) == (0o600, 0o700)
    assert path.endswith("/svcnat-edit.yaml")
    assert text.startswith("# Please edit the object below. Lines beginning with a '#' will be ignored,\n")
    assert "\nkind: Service\n" in text
    assert leftovers() == []


def test_nothing_changed(cluster: Cluster) -> None:
    """No change, comments alone, or an empty file: said so, and nothing happens."""
    before = cluster.condition()
    cancelled = Result(0, "", "Edit cancelled, no changes made.\n")
    assert cluster.edit("svc/web", steps=[[]]) == cancelled
    assert cluster.edit("svc/web", steps=[[("# Please edit", "# I did not edit")]]) == cancelled
    empty = Result(0, "", "Edit cancelled, saved file was empty.\n")
    assert cluster.edit("svc/web", steps=["vanish"]) == empty
    assert cluster.edit("svc/web", steps=[[("kind: Service\n", "kind:   Service\n")]]).out == "service/web skipped\n"
    assert cluster.condition() == before
    assert leftovers() == []


def test_what_is_wrong_is_edited_again(cluster: Cluster) -> None:
    """The file comes back as it was saved, with what is wrong on top, and where."""
    edited = cluster.edit(
        "svc/web",
        steps=[[("- port: 80", "- port: 0")], [("- port: 0", "- port: 'x")], [("- port: 'x", "- port: 81")]],
    )
    assert edited == Result(0, "service/web edited\n", "")
    _, second, third = (text for *_, text in cluster.seen)
    assert '# services "web" was not valid:\n# * line ' in second
    for text, wrong in ((second, "- port: 0"), (third, "- port: 'x")):
        complaint = next(line for line in text.splitlines() if line.startswith("# * line "))
        number = int(complaint.removeprefix("# * line ").partition(":")[0])
        if text is second:
            assert complaint.endswith(": spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive")
            assert text.splitlines()[number - 1] == f"  {wrong}"
        assert wrong in text
    assert cluster("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].port}").out == "81"
    assert leftovers() == []


def test_giving_up(cluster: Cluster) -> None:
    """What was wrong and is saved as it was is not tried again; a copy of it is kept."""
    before = cluster.condition()
    given_up = cluster.edit("svc/web", steps=[[("- port: 80", "- port: 0")], []])
    [copy] = leftovers()
    assert given_up == Result(
        1,
        "",
        f'A copy of your changes has been stored to "{copy.absolute()}"\n'
        "error: Edit cancelled, no valid changes were saved.\n",
    )
    assert "- port: 0" in copy.read_text()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    copy.unlink()
    renamed = cluster.edit("svc/web", steps=[[("name: web", "name: other")], []])
    assert renamed.code == 1
    assert "# * At least one of apiVersion, kind and name was changed\n" in cluster.seen[1][3]
    assert cluster.condition() == before


def test_several_objects(cluster: Cluster) -> None:
    """All or none, in one file; those that were left alone are skipped."""
    before = cluster.condition()
    edited = cluster.edit("svc/web", "pod/web-1", steps=[[("- port: 80", "- port: 0"), ("app: web", "app: x")], []])
    assert edited.code == 1
    assert "# the objects were not valid:\n" in cluster.seen[1][3]
    assert cluster.condition() == before
    edited = cluster.edit("svc/web", "pod/web-1", "-o", "yaml", steps=[[("- port: 80", "- port: 82")]])
    assert edited.out == "service/web edited\npod/web-1 skipped\n"
    edited = cluster.edit("-f", "all.yml", "-o", "json", steps=[[('"port": 82', '"port": 83')]])
    assert edited.out == "service/web edited\npod/web-1 skipped\nsecret/keys skipped\n"
    edited = cluster.edit("-n", "none", "pods", steps=[])
    assert edited == Result(1, "", "error: edit cancelled, no objects found\n")


def test_others_change_it_meanwhile(cluster: Cluster, empty_netns: str) -> None:
    """What they did is not undone; of a status, which others report all the time, nobody minds."""

    def meanwhile(change: str) -> None:
        flags = ["--state", "state.db", "--netns", empty_netns, "--config", "config.yaml"]
        code = f"from svcnat.cli.frame import main; main({[*flags, *change.split()]!r})"
        Path("an editor.py").write_text(f"{EDITOR}\nsubprocess.run([sys.executable, '-c', {code!r}], check=True)\n")

    meanwhile("label svc/web tier=front")
    refused = cluster.edit("svc/web", steps=[[("- port: 80", "- port: 84")]])
    [copy] = leftovers()
    assert refused.code == 1
    assert refused.err.splitlines() == [
        f'A copy of your changes has been stored to "{copy.absolute()}"',
        'error: Operation cannot be fulfilled on services "web": the object has been modified; '
        "please apply your changes to the latest version and try again",
    ]
    assert cluster("get", "svc", "-l", "tier=front", "-o", "jsonpath={.items[0].spec.ports[0].port}").out == "80"
    meanwhile('patch pod/web-1 --subresource=status -p {"status":{"message":"hello"}}')
    assert cluster.edit("pod/web-1", steps=[[("app: web", "app: web\n    tier: front")]]).out == "pod/web-1 edited\n"
    query = "jsonpath={.metadata.labels.tier} {.status.message} {.status.podIP}"
    assert cluster("get", "pod/web-1", "-o", query).out == "front hello 10.244.0.5"
    meanwhile("delete svc/web")
    gone = cluster.edit("svc/web", steps=[[("- port: 80", "- port: 84")]])
    assert (gone.code, gone.err.splitlines()[-1]) == (1, 'error: services "web" not found')


def test_editors_that_fail(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in one line, and nothing changes; what was saved before is kept."""
    before = cluster.condition()
    failed = cluster.edit("svc/web", steps=["fail"])
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("error: there was a problem with the editor ")
    assert leftovers() == []
    assert cluster.edit("svc/web", steps=[[("- port: 80", "- port: 0")], "fail"]).code == 1
    assert len(leftovers()) == 1
    monkeypatch.setenv("KUBE_EDITOR", "/none/editor --wait")
    missing = cluster.edit("svc/web", steps=[])
    message = 'error: unable to launch the editor "/none/editor --wait": No such file or directory\n'
    assert missing == Result(1, "", message)
    assert cluster.condition() == before


@pytest.mark.parametrize(
    "leave",
    [
        "os.mkfifo(path)",
        "os.mkdir(path)",
        "os.symlink('victim', path)",
        "open(path, 'w').truncate(1 << 32)",
    ],
)
def test_editors_that_leave_something_else(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, leave: str) -> None:
    """Nobody waits for a pipe, or follows a link; nothing changes."""
    Path("victim").write_text("precious")
    Path("victim").chmod(0o644)
    before = cluster.condition()
    program = f"import os, sys; path = sys.argv[1]; os.unlink(path); {leave}"
    program = program.replace("'victim'", repr(str(Path("victim").absolute())))
    monkeypatch.setenv("EDITOR", shlex.join([sys.executable, "-c", program]))
    result = cluster.edit("svc/web", steps=[])
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: cannot read what the editor saved as ")
    assert leftovers() == []
    assert (Path("victim").read_text(), stat.S_IMODE(Path("victim").stat().st_mode)) == ("precious", 0o644)
    assert cluster.condition() == before


def test_a_copy_is_made_private_and_nothing_that_it_leads_to(tmp_path: Path) -> None:
    """An editor may have put a link in its place."""
    victim = tmp_path / "victim"
    victim.touch(mode=0o644)
    with Draft("a.yaml") as draft:
        draft.path.symlink_to(victim)
        draft.keep()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    shutil.rmtree(draft.path.parent)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "say what to edit: either -f PATH, or KIND and NAME\n"),
        (["svc/web", "-f", "all.yml"], 2, "say what to edit"),
        (["svc", "none"], 1, 'services "none" not found\n'),
        (["things"], 2, "svcnat has no kind 'things'"),
    ],
)
def test_mistakes(cluster: Cluster, words: list[str], code: int, message: str) -> None:
    """No editor is opened."""
    result = cluster.edit(*words, steps=[])
    assert result.code == code
    assert result.err.startswith(f"error: {message}")


def test_no_comment_tells_a_secret(cluster: Cluster) -> None:
    """What is wrong with one is said without what it holds."""
    result = cluster.edit("secret/keys", steps=[[("a: aHVudGVyMg==", "a: hunter3!")], []])
    assert result.code == 1
    comments = [line for line in cluster.seen[1][3].splitlines() if line.startswith("#")]
    assert any("was not valid" in line for line in comments)
    assert not any("hunter" in line or "aHVudGVy" in line for line in [*comments, result.err])


def test_which_editor() -> None:
    """The first of three variables that is not empty, split as a shell would, without one."""
    assert command({"KUBE_EDITOR": "code --wait", "EDITOR": "b", "VISUAL": "c"}) == ["code", "--wait"]
    assert command({"KUBE_EDITOR": "", "EDITOR": "'my editor' $(reboot); x", "VISUAL": "c"}) == [
        "my editor",
        "$(reboot);",
        "x",
    ]
    assert command({"VISUAL": "c"}) == ["c"]
    assert command({}) == ["vi"]
    with pytest.raises(UsageError, match="EDITOR is no command: No closing quotation"):
        command({"EDITOR": "'vi"})


@pytest.mark.packets
def test_in_a_lab(cluster: Cluster, svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """A deployment is edited as anywhere else: its pods roll."""
    name = unused_name()
    Path("app.yml").write_text(
        """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: one, ports: [{containerPort: 80}]}]}
"""
    )
    assert svcnat("lab", "up", name, "-f", "app.yml").code == 0
    try:
        Path("steps.json").write_text(json.dumps([[("image: one", "image: two"), ("replicas: 1", "replicas: 2")]]))
        Path("seen.json").write_text("[]")
        assert svcnat("--lab", name, "edit", "deploy/web").out == "deployment.apps/web edited\n"
        with api.Lab.find(name) as lab, lab.read() as snapshot:
            pods = snapshot.list(Pod, "default")
            assert [pod.spec.containers[0].image for pod in pods] == ["two", "two"]
            assert snapshot.get(Service, "default", "kubernetes")
    finally:
        svcnat("lab", "down", name)
    assert namespaces_of(name) == []
