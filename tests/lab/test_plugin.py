"""The pytest plugin: what a run of tests with labs does, alone and in parallel, and what it leaves: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat.kernel import netns
from svcnat.lab import labs, names
from tests.agents import until
from tests.lab.conftest import namespaces_of
from tests.lab.test_agent import processes_of

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.packets, pytest.mark.slow]

PATIENCE = 60.0
REQUIRED = "SVCNAT_REQUIRE_LAB"

LAB = '''
import os, pathlib, time
import pytest

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
"""

def note(lab):
    """Say which lab it was, in a file of its own."""
    assert lab.connect("web").pod == "web"
    lab.spawn("web", ["sleep", "1000"])
    pathlib.Path("lab-" + lab.name).touch()
'''

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder that only this test's labs are in, which pytest processes are told of."""
    if os.geteuid() != 0:
        pytest.skip("labs need root, or `unshare -rnm`")
    folder = tmp_path / "run"
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(folder))
    monkeypatch.delenv(REQUIRED, raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider -p no:cov")
    return folder


@pytest.fixture
def start(runtime: Path, pytester: pytest.Pytester) -> Iterator[Start]:
    """A function that starts pytest in a session of its own; whatever runs of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=pytester.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    for name in noted(pytester):
        if namespaces_of(name) or (runtime / "labs" / name).exists():
            labs.down(name)


def noted(pytester: pytest.Pytester) -> list[str]:
    """The names of the labs that there were."""
    return sorted(file.name.removeprefix("lab-") for file in pytester.path.glob("lab-*"))


def assert_nothing_is_left(pytester: pytest.Pytester, runtime: Path, *, count: int) -> None:
    found = noted(pytester)
    assert len(found) == count
    assert [namespaces_of(name) for name in found] == [[]] * count
    assert [processes_of(name) for name in found] == [[]] * count
    assert list((runtime / "labs").iterdir()) == []


def test_importing_the_plugin_imports_nothing_else() -> None:
    """Every pytest run of whoever has svcnat installed loads it."""
    script = (
        "import sys, pytest; before = set(sys.modules); import svcnat.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == [
        "svcnat",
        "svcnat.testing",
        "svcnat.testing.plugin",
    ]


def test_a_run_without_labs_never_imports_the_api(runtime: Path, pytester: pytest.Pytester) -> None:
    """Having svcnat installed costs other tests nothing, and needs no option."""
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "svcnat.testing.plugin" in sys.modules
            assert "svcnat.api" not in sys.modules
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_each_test_has_its_own_lab_and_the_session_one(runtime: Path, pytester: pytest.Pytester) -> None:
    """The fixtures are there without a line of configuration, and everything is gone at the end."""
    pytester.makepyfile(
        LAB
        + """
def test_first(svcnat_lab, svcnat_lab_session):
    svcnat_lab.apply(WEB)
    note(svcnat_lab)
    svcnat_lab_session.apply(WEB)
    note(svcnat_lab_session)

def test_second(svcnat_lab, svcnat_lab_session):
    assert not [each for each in svcnat_lab.services if each not in ("kubernetes", "kube-system/kube-dns")]
    svcnat_lab.apply(WEB)
    note(svcnat_lab)
    assert svcnat_lab_session.connect("web").pod == "web"
"""
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
    assert_nothing_is_left(pytester, runtime, count=3)


def test_the_documented_example_passes(runtime: Path, pytester: pytest.Pytester) -> None:
    """What docs/testing.md begins with can be pasted into a file and run."""
    text = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    pytester.makepyfile(text.partition("```python\n")[2].partition("```")[0])
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert list((runtime / "labs").iterdir()) == []


def test_tests_run_in_parallel(runtime: Path, pytester: pytest.Pytester) -> None:
    """Under pytest-xdist labs have the same addresses, and never meet; each worker has a session's lab of its own."""
    pytester.makepyfile(
        LAB
        + """
@pytest.mark.parametrize("number", range(4))
def test_own(svcnat_lab, number):
    svcnat_lab.apply(WEB.replace("name: web, labels", f"name: web-{number}, labels"))
    assert set(svcnat_lab.flows(50, to="web").pods) == {f"web-{number}"}

@pytest.mark.parametrize("number", range(4))
def test_shared(svcnat_lab_session, number):
    svcnat_lab_session.apply(WEB)
    note(svcnat_lab_session)
    time.sleep(0.5)  # or one worker could run them all
"""
    )
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=8)
    assert_nothing_is_left(pytester, runtime, count=2)


def test_without_privilege_tests_are_skipped_and_say_why(runtime: Path, pytester: pytest.Pytester) -> None:
    """Who has no capabilities sees what would be needed; nothing is tried twice, nothing fails."""
    pytester.makepyfile("def test_it(svcnat_lab):\n    assert False\n\ndef test_session(svcnat_lab_session): pass\n")
    said = unprivileged(pytester)
    said.assert_outcomes(skipped=2)
    said.stdout.fnmatch_lines("SKIPPED*svcnat labs need root, in a container CAP_NET_ADMIN and CAP_SYS_ADMIN*")


def test_where_labs_are_required_they_fail_instead(
    runtime: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI does not want to be green because its tests did not run."""
    monkeypatch.setenv(REQUIRED, "1")
    pytester.makepyfile("def test_it(svcnat_lab): pass\n\ndef test_other(): pass\n")
    said = unprivileged(pytester)
    said.assert_outcomes(errors=1, passed=1)
    said.stdout.fnmatch_lines(f"*svcnat labs need root*({REQUIRED} is set)")


def unprivileged(pytester: pytest.Pytester) -> pytest.RunResult:
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    return pytester.run(*drop, sys.executable, "-m", "pytest", "-rs")


def test_a_failure_shows_what_was_in_the_lab_and_leaves_nothing(runtime: Path, pytester: pytest.Pytester) -> None:
    """Whoever reads the log of a failure has no lab to look into any more."""
    pytester.makepyfile(
        LAB
        + """
def test_it(svcnat_lab):
    svcnat_lab.apply(WEB)
    note(svcnat_lab)
    assert svcnat_lab.connect("web").pod == "another"
"""
    )
    said = pytester.runpytest_subprocess()
    said.assert_outcomes(failed=1)
    said.stdout.fnmatch_lines(
        ["*- svcnat_lab -*", "lab pytest-*", "*service web 10.*80/TCP: web", "*pod web Running, *"]
    )
    assert_nothing_is_left(pytester, runtime, count=1)


WAITING = (
    LAB
    + """
@pytest.mark.parametrize("number", range(2))
def test_it(svcnat_lab, svcnat_lab_session, number):
    svcnat_lab_session.apply(WEB)
    note(svcnat_lab_session)
    svcnat_lab.apply(WEB)
    note(svcnat_lab)
    time.sleep(100)
"""
)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "parallel"])
def test_ctrl_c_leaves_nothing(
    runtime: Path, pytester: pytest.Pytester, start: Start, arguments: tuple[str, ...]
) -> None:
    """Ctrl-C goes to every process of the terminal's group, workers of pytest-xdist too."""
    count = 4 if arguments else 2
    pytester.makepyfile(WAITING)
    process = start(*arguments)
    until(lambda: len(noted(pytester)) == count or process.poll() is not None, "labs are up")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    until(lambda: not any(namespaces_of(name) for name in noted(pytester)), "namespaces are gone")
    until(lambda: not list((runtime / "labs").iterdir()), "folders are gone")
    assert_nothing_is_left(pytester, runtime, count=count)


def test_what_a_killed_run_leaves_is_found(runtime: Path, pytester: pytest.Pytester, start: Start) -> None:
    """After kill -9 nobody could clean up: `svcnat lab down --all` does, with all that still runs in the labs."""
    pytester.makepyfile(WAITING)
    process = start()
    until(lambda: len(noted(pytester)) == 2 or process.poll() is not None, "labs are up")
    process.kill()
    process.wait()
    left = noted(pytester)
    assert all(namespaces_of(name) and f"pytest-{process.pid}-" in name for name in left)
    inhabitants = {netns.identity(names.pod(name, "default", "web")) for name in left}
    down = subprocess.run(
        [sys.executable, "-m", "svcnat", "lab", "down", "--all"], capture_output=True, text=True, check=True
    )
    assert sorted(down.stdout.splitlines()) == [f"lab {name} is down" for name in left]
    assert_nothing_is_left(pytester, runtime, count=2)
    assert not [each for each in Path("/proc").glob("[0-9]*") if namespace_of(each) in inhabitants]


def namespace_of(process: Path) -> tuple[int, int] | None:
    try:
        status = (process / "ns/net").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
