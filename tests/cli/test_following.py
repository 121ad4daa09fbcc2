"""The verbs of an agent, where they make rules once: what they print, and what they leave unsaid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Result

Run = Callable[..., Result]

MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{port: 5432}]
endpoints: [{addresses: [192.0.2.7]}, {addresses: [192.0.2.8]}]
"""


@pytest.fixture
def agent(svcnat: Run, empty_netns: str, tmp_path: Path) -> Run:
    """``svcnat`` with a state file and a namespace of its own."""
    (tmp_path / "db.yml").write_text(MANIFESTS)
    (tmp_path / "config.yaml").write_text(
        "apiVersion: svcnat.io/v1alpha1\nkind: Configuration\nhostnameOverride: node-1\n"
    )
    flags = ("--state", str(tmp_path / "state.db"), "--netns", empty_netns, "--config", str(tmp_path / "config.yaml"))
    return lambda *arguments: svcnat(*arguments, *flags)


@pytest.mark.packets
def test_once_prints_the_outcome_and_no_log(agent: Run, tmp_path: Path) -> None:
    """One line a node on standard error, whether or not there was something to do."""
    assert agent("apply", "-f", str(tmp_path / "db.yml")).code == 0
    agent("cleanup")
    for _ in range(2):
        assert agent("run", "--once") == Result(0, "", "node-1: 2 services, 2 endpoints\n")


@pytest.mark.packets
def test_the_status_has_no_trailing_blanks(agent: Run, tmp_path: Path) -> None:
    """Its empty lines are empty."""
    assert agent("apply", "-f", str(tmp_path / "db.yml")).code == 0
    told = agent("status")
    lines = told.out.splitlines()
    assert (told.code, lines[0].split()) == (0, ["Agent:", "none", "runs"])
    assert "" in lines
    assert [line for line in lines if line != line.rstrip()] == []
    agent("cleanup")
    told = agent("status")
    assert (told.code, "not equal to the objects: " in told.out) == (1, True)


@pytest.mark.packets
def test_the_status_for_programs(agent: Run, tmp_path: Path) -> None:
    """JSON and YAML say the same, and whether all is well in one word, as the exit code does."""
    assert agent("apply", "-f", str(tmp_path / "db.yml")).code == 0
    told = agent("status", "-o", "json"), agent("status", "-o", "yaml")
    assert [each.code for each in told] == [0, 0]
    as_json, as_yaml = json.loads(told[0].out), yaml.safe_load(told[1].out)
    assert as_json["equal"] is True
    assert {**as_json, "uptime": 0} == {**as_yaml, "uptime": 0}
    agent("cleanup")
    told = agent("status", "-o", "json"), agent("status", "-o", "yaml")
    assert [each.code for each in told] == [1, 1]
    assert (json.loads(told[0].out)["equal"], yaml.safe_load(told[1].out)["equal"]) == (False, False)
