"""``create configmap`` and ``create secret``: entries from the command line and from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

Run = Callable[..., Result]


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file, in a folder with some files."""
    Path("files").mkdir()
    Path("files/a.conf").write_text("one")
    Path("files/b.bin").write_bytes(b"\xff\0")
    Path("files/deeper").mkdir()
    return bare_cluster


def test_config_maps(cluster: Run) -> None:
    """Literals, files under their names or others, folders; what is no text is binary."""
    flags = ["--from-literal", "x=1=2", "--from-literal=empty=", "--from-file=files", "--from-file=c=files/a.conf"]
    result = cluster("create", "configmap", "settings", *flags)
    assert result == Result(0, "configmap/settings created\n", "")
    found = json.loads(cluster("get", "cm", "settings", "-o", "json").out)
    assert found["data"] == {"a.conf": "one", "c": "one", "empty": "", "x": "1=2"}
    assert found["binaryData"] == {"b.bin": "/wA="}
    assert cluster("create", "cm", "settings").err == 'error: configmaps "settings" already exists\n'


def test_secrets(cluster: Run) -> None:
    """Base64, with a type if one is given; a dry run prints what could be applied."""
    made = cluster(
        "create", "secret", "generic", "keys", "--from-literal=token=hunter2", "--dry-run=client", "-o", "yaml"
    )
    assert "data:\n  token: aHVudGVyMg==\n" in made.out
    assert cluster("create", "secret", "generic", "keys", "--from-file=files/b.bin", "--type=my/own").code == 0
    found = json.loads(cluster("get", "secret", "keys", "-o", "json").out)
    assert (found["data"], found["type"]) == ({"b.bin": "/wA="}, "my/own")
    assert cluster("create", "secret", "tls", "web", "--cert=files/a.conf", "--key=files/a.conf").code == 0
    assert cluster("get", "secret", "web", "--no-headers").out.split()[:3] == ["web", "kubernetes.io/tls", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "create takes -f PATH, configmap NAME, secret generic NAME or secret tls NAME"),
        (["configmap"], "create takes -f PATH"),
        (["configmap", "a", "b"], "create takes -f PATH"),
        (["secret", "a"], "create takes -f PATH"),
        (["deployment", "a"], "create takes -f PATH"),
        (["cm", "a", "-f", "files"], "create takes -f PATH"),
        (["secret", "tls", "a", "--cert=files/a.conf"], "--key and --cert must be specified"),
        (["cm", "a", "--from-literal=hunter2"], "--from-literal takes KEY=VALUE"),
        (["cm", "a", "--from-literal==hunter2"], "--from-literal takes KEY=VALUE"),
        (["cm", "a", "--from-literal=a=1", "--from-literal=a=hunter2"], "cannot add key a: another one"),
        (["cm", "a", "--from-file=none"], "cannot read none: No such file or directory"),
        (["cm", "a", "--from-file=k=files"], "files is a folder"),
    ],
)
def test_mistakes(cluster: Run, words: list[str], message: str) -> None:
    """They change nothing, and nobody's secret is in the message."""
    result = cluster("create", *words)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")
    assert "hunter2" not in result.err


def test_what_nobody_may_have(cluster: Run) -> None:
    """Keys are checked as those of manifests."""
    result = cluster("create", "secret", "generic", "keys", "--from-literal=a b=hunter2")
    assert result.code == 1
    assert 'data["a b"]' in result.err
    assert "hunter2" not in result.err
