"""The frame keeps its promises: verbs are found, errors are lines, exit codes are 0, 1 and 2."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from svcnat.cli import frame, verbs
from svcnat.cli.verbs import VERBS, Verb
from svcnat.errors import Finding, ManifestError, NotFoundError, SvcnatError, UsageError
from tests.cli.conftest import Result

Svcnat = Callable[..., Result]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A verb ``probe`` (and ``lab probe``, which takes a command) that keeps its options, or raises what it is told."""
    state = SimpleNamespace(options=None, error=None)
    module = SimpleNamespace(__doc__="Probe.\n\nMore about it.\n")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--dry-run", choices=("none", "client", "server"), default="none")

    def run(options: argparse.Namespace) -> int:
        if state.error:
            raise state.error
        state.options = options
        return 0

    module.add_arguments, module.run = add_arguments, run
    monkeypatch.setitem(sys.modules, "svcnat.cli.probe", module)  # type: ignore[arg-type]
    monkeypatch.setitem(verbs.BY_NAME, "probe", Verb("probe", "probe", "Other", "probe"))
    monkeypatch.setitem(verbs.BY_NAME, "lab probe", Verb("lab probe", "probe", "Lab", "probe", command=True))
    return state


def test_help_lists_every_verb_by_group(svcnat: Svcnat) -> None:
    """--help, help and nothing at all show the same page."""
    result = svcnat("--help")
    assert (result.code, result.err) == (0, "")
    for verb in VERBS:
        assert re.search(rf"^  {verb.name} +{re.escape(verb.help)}$", result.out, re.MULTILINE)
    assert svcnat() == svcnat("help") == svcnat("-h") == svcnat("lab", "--help") == result


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_a_module_and_a_help_page(verb: Verb, svcnat: Svcnat) -> None:
    """The list of verbs names modules that exist, and each explains itself and the global flags."""
    module = importlib.import_module(f"svcnat.cli.{verb.module}")
    result = svcnat(*verb.name.split(), "--help")
    assert result.code == 0
    assert str(module.__doc__).partition("\n")[0] in result.out
    assert "--namespace" in result.out


def test_a_help_page_shows_examples_as_they_are_written(svcnat: Svcnat) -> None:
    """Also where it has nothing but examples: the first is indented as those below it are."""
    assert "\n  svcnat label pod web-1 tier=front " in svcnat("label", "--help").out


def test_help_imports_nothing_heavy() -> None:
    """Help must be quick: no msgspec, YAML, SQLite, pyroute2, ctypes, nor any verb."""
    program = (
        "import sys; from svcnat.cli.frame import main; main(['--help']); "
        "print(*{'msgspec', 'yaml', 'sqlite3', 'pyroute2', 'ctypes', 'nftables', 'svcnat.api', 'svcnat.cli.get'}"
        " & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("verb", ["get", "apply", "sync", "lab up", "lab exec"])
def test_a_help_page_does_not_import_the_api(verb: str) -> None:
    """Verbs import what they need when they run."""
    program = (
        f"import sys; from svcnat.cli.frame import main; main({[*verb.split(), '--help']!r}); "
        "print(*{'svcnat.api', 'pyroute2', 'yaml'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_global_flags_stand_before_or_after_the_verb(svcnat: Svcnat, probe: SimpleNamespace) -> None:
    """Both places mean the same, for verbs of two words too; the one after wins."""
    for arguments in (
        ("--state", "s", "-n", "x", "-v", "probe", "a", "b"),
        ("probe", "a", "--state", "s", "b", "-n", "x", "-v"),
        ("--state=s", "-nx", "lab", "-v", "probe", "a", "b", "--", "true"),
        ("--state", "other", "lab", "--namespace", "x", "probe", "-v", "a", "--state", "s", "b", "--", "true"),
    ):
        assert svcnat(*arguments).code == 0
        options = probe.options
        assert (options.state, options.namespace, options.verbose, options.words) == ("s", "x", True, ["a", "b"])
        assert (options.config, options.netns, options.lab) == (None, None, None)


def test_the_environment_gives_defaults(
    svcnat: Svcnat, probe: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SVCNAT_CONFIG, SVCNAT_STATE and SVCNAT_NETNS; a flag outweighs them, an empty one is none."""
    monkeypatch.setenv("SVCNAT_CONFIG", "c")
    monkeypatch.setenv("SVCNAT_STATE", "s")
    monkeypatch.setenv("SVCNAT_NETNS", "")
    svcnat("probe", "--state", "t")
    assert (probe.options.config, probe.options.state, probe.options.netns) == ("c", "t", None)


def test_a_lab_outweighs_the_environment(
    svcnat: Svcnat, probe: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of a host is not a lab's; a flag that says so stays, for the verb to refuse."""
    monkeypatch.setenv("SVCNAT_CONFIG", "c")
    monkeypatch.setenv("SVCNAT_STATE", "s")
    svcnat("--lab", "demo", "probe", "--state", "t")
    assert (probe.options.config, probe.options.state, probe.options.netns) == (None, "t", None)


def test_flags_with_optional_values_do_not_eat_arguments(svcnat: Svcnat, probe: SimpleNamespace) -> None:
    """--dry-run alone means client, as kubectl's; what follows is not its value."""
    svcnat("probe", "--dry-run", "a")
    assert (probe.options.dry_run, probe.options.words) == ("client", ["a"])
    svcnat("probe", "--dry-run=server", "a")
    assert (probe.options.dry_run, probe.options.words) == ("server", ["a"])


def test_a_command_after_two_dashes_is_left_alone(svcnat: Svcnat, probe: SimpleNamespace) -> None:
    """Not one of its words is ours, whatever it looks like."""
    svcnat("lab", "probe", "pod", "-v", "--", "curl", "-v", "--dry-run", "--", "x", "\udcff")
    assert probe.options.command == ["curl", "-v", "--dry-run", "--", "x", "\udcff"]
    assert probe.options.words == ["pod"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gte",), "unknown verb 'gte', did you mean 'get'?"),
        (("lab", "dwon"), "unknown verb 'lab dwon', did you mean 'lab down'?"),
        (("lab", "node", "strat"), "unknown verb 'lab node strat', did you mean 'lab node start'?"),
        (("lab", "delete", "x"), "unknown verb 'lab delete': 'svcnat lab' has up, list, exec, node, down"),
        (("zzzzz",), "unknown verb 'zzzzz'\n"),
        (("lab",), "'svcnat lab' needs one of: up, list, exec, node, down"),
        (("probe", "--nope"), "unrecognized arguments: --nope"),
        (("probe", "--dry-run=maybe"), "invalid choice: 'maybe'"),
        (("--state",), "argument --state: expected one argument"),
        (("probe", "--state", ""), "argument --state: must not be empty"),
        (("--config=", "probe"), "argument --config: must not be empty"),
        (("probe", "--netns="), "argument --netns: must not be empty"),
        (("--lab", "", "probe"), "argument --lab: must not be empty"),
        (("probe", "a", "b\udcff"), r"'b\udcff' is not UTF-8 text"),
        (("probe", "-n", "\udcff"), r"'\udcff' is not UTF-8 text"),
        (("evil\x1b[31m\n",), r"unknown verb 'evil\u001b[31m"),
    ],
)
def test_usage_errors_are_lines_and_code_2(
    svcnat: Svcnat, probe: SimpleNamespace, arguments: tuple[str, ...], message: str
) -> None:
    """What was typed wrong is said on standard error, with a suggestion where there is one."""
    result = svcnat(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert message in result.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NotFoundError('services "x" not found'), 1, 'error: services "x" not found\n'),
        (UsageError("no"), 2, "error: no\n"),
        (SvcnatError("one\ntwo\x1b"), 1, "error: one\n  two\\u001b\n"),
        (SvcnatError(), 1, "error: SvcnatError\n"),
        (
            ManifestError(
                [Finding("a.yml", 3, "Service d/x", "spec.type", "bad"), Finding("b\n.yml", 0, "", "", "no")]
            ),
            1,
            "error: a.yml:3: Service d/x: spec.type: bad\nerror: b\n  .yml: no\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_lines_and_codes(
    svcnat: Svcnat, probe: SimpleNamespace, error: BaseException, code: int, text: str
) -> None:
    """One line a finding; nothing in it can pass for another error or drive the terminal."""
    probe.error = error
    assert svcnat("probe") == Result(code, "", text)


def test_verbose_tells_what_led_to_an_error(svcnat: Svcnat, probe: SimpleNamespace) -> None:
    """-v prints the chain of causes."""
    probe.error = SvcnatError("outer")
    probe.error.__cause__ = ValueError("inner")
    assert svcnat("probe", "-v").err == "error: outer\n  because of ValueError: inner\n"


def test_a_bug_keeps_its_traceback(svcnat: Svcnat, probe: SimpleNamespace) -> None:
    """What svcnat does not raise on purpose is not dressed up."""
    probe.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        svcnat("probe")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """``svcnat ... | true`` is quiet, and ends as programs that get SIGPIPE do."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "svcnat", "--help"], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_one_line() -> None:
    """Output that cannot be written is a failure, and no traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "svcnat", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"error: cannot write the output: No space left on device\n")


def test_closed_streams_are_no_error() -> None:
    """Started with nothing open, as some supervisors do, it works all the same."""
    done = subprocess.run(["/bin/sh", "-c", f"{sys.executable} -m svcnat version <&- >&- 2>&-"], check=False)
    assert done.returncode == 0


def test_main_takes_the_programs_arguments(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Called without any, as the console script does, it reads sys.argv."""
    monkeypatch.setattr(sys, "argv", ["svcnat", "--version"])
    assert frame.main() == 0
    assert capsys.readouterr().out.startswith("svcnat: ")
