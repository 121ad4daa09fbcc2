"""How command-line tests call the command line: in this process, with its output captured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from svcnat.cli.frame import main
from svcnat.kernel.nftables import Namespace
from svcnat.store.sqlite import Store


@dataclass(frozen=True)
class Result:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def svcnat(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``svcnat`` with arguments, without the caller's environment."""
    for name in ("SVCNAT_CONFIG", "SVCNAT_STATE", "SVCNAT_NETNS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Result:
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def bare_cluster(
    svcnat: Callable[..., Result], empty_netns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """``svcnat`` with a state file, a configuration and a network namespace of its own, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n")

    def run(*arguments: str) -> Result:
        return svcnat("--state", "state.db", "--netns", empty_netns, "--config", "config.yaml", *arguments)

    return run


@pytest.fixture
def condition(empty_netns: str) -> Callable[[], tuple[int, int]]:
    """The revision of :func:`bare_cluster`'s store and the kernel's generation: unmoved when nothing is changed."""

    def ask() -> tuple[int, int]:
        with Store.open("state.db") as store, store.read() as snapshot, Namespace(empty_netns) as kernel:
            return snapshot.revision, kernel.generation()

    return ask
