"""The folders below netns-lab/: whoever types what a README says sees what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from svcnat.lab import labs
from tests.lab.conftest import namespaces_of, unused_name

pytestmark = [pytest.mark.packets, pytest.mark.slow]

TOP = Path(__file__).parents[2]
READMES = sorted(file for file in TOP.glob("netns-lab/*/README.md") if "```console" in file.read_text())

_PATIENCE = 120.0
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LAB = re.compile(r"^svcnat lab up (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A command line, and the lines that it is to print; ``...`` stands for anything in a line."""

    command: str
    lines: tuple[str, ...]

    def check(self, printed: list[str]) -> None:
        told = [_pattern(line) for line in self.lines]
        same = len(told) == len(printed) and all(map(re.fullmatch, told, printed))
        quiet = not self.lines and not any(line.startswith("error:") for line in printed)
        assert same or quiet or self.lines == ("...",), f"$ {self.command}\n" + "\n".join(printed)


def _pattern(line: str) -> str:
    """Runs of blanks are as long as what is beside them makes them."""
    return r"\s*" + r"\s+".join(re.escape(word).replace(r"\.\.\.", r".*") for word in line.split()) + r"\s*"


def steps(text: str) -> Iterator[Step]:
    """What a README has one type, in order."""
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield Step(command, tuple(line for line in lines if line.strip()))


@pytest.fixture
def environment(runtime: Path) -> dict[str, str]:
    found = {each: text for each, text in os.environ.items() if not each.startswith("COV_")}
    return found | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_what_a_readme_promises(readme: Path, environment: dict[str, str]) -> None:
    """Every command of its console blocks prints what is told there, and nothing is left in the end."""
    text = readme.read_text()
    own = {lab: unused_name() for lab in sorted(set(_LAB.findall("\n".join(each.command for each in steps(text)))))}
    assert own
    for lab, name in own.items():
        text = re.sub(rf"(lab up |lab down |--lab |\blab ){lab}(?=[ `\n;)])", rf"\g<1>{name}", text)
    try:
        for step in steps(text):
            step.check(typed(step.command, environment))
    finally:
        left = [name for name in own.values() if namespaces_of(name)]
        for name in left:
            labs.down(name)
    assert not left


def typed(command: str, environment: dict[str, str]) -> list[str]:
    """What a shell prints, on either stream."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=TOP,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if line.strip()]


def test_the_readmes_are_found() -> None:
    """The topologies that are to be shown have each a README that says what to type."""
    assert {"two-zones", "dual-stack", "shared-bridge", "outside-clients", "failing-node"} <= {
        readme.parent.name for readme in READMES
    }
