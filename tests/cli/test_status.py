"""``svcnat status``: what no agent can repair is told, with the command that does."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat.kernel import netns, sysctl
from svcnat.kernel.nftables import Namespace
from tests.cli.conftest import Result

Run = Callable[..., Result]
FORWARDING = {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [192.0.2.7]}]
"""


@pytest.fixture
def status(svcnat: Run, empty_netns: str, tmp_path: Path) -> Run:
    """``svcnat status`` of a Service whose rules are there, in a namespace that forwards."""
    config, manifests = tmp_path / "config.yaml", tmp_path / "web.yaml"
    config.write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n")
    manifests.write_text(MANIFESTS)
    for line in (
        "link set lo up",
        "link add eth0 type veth peer name eth1",
        "link set eth0 up",
        "link set eth1 up",
        "addr add 192.0.2.1/24 dev eth0",
        "route add default via 192.0.2.254",
    ):
        subprocess.run(["ip", "-n", empty_netns, *line.split()], check=True)
    with netns.entered(empty_netns):
        sysctl.write(FORWARDING)
    place = ("--netns", empty_netns, "--state", str(tmp_path / "state.db"), "--config", str(config))
    assert svcnat("apply", *place, "-f", str(manifests)).code == 0
    return lambda *arguments: svcnat("status", *place, *arguments)


def hindrances(status: Run) -> list[dict[str, str]]:
    """What is told to programs; the rules are equal all the same."""
    told = status("-o", "json")
    document = json.loads(told.out)
    assert (told.code, document["equal"]) == (0, True), told.out
    return [each for each in document["hindrances"] if each["subject"] not in ("conntrack", "nft")]


def test_nothing_is_told_where_nothing_hinders(status: Run) -> None:
    """Neither to people nor to programs."""
    assert hindrances(status) == []
    assert "equal to the objects" in status().out


@pytest.mark.parametrize(
    ("key", "value", "subject", "fix"),
    [
        ("net/ipv4/ip_forward", 0, "forwarding", "net/ipv4/ip_forward=1"),
        ("net/ipv4/conf/eth0/forwarding", 0, "forwarding", "net/ipv4/conf/eth0/forwarding=1"),
    ],
)
def test_forwarding_that_is_off_is_told(
    status: Run, empty_netns: str, key: str, value: int, subject: str, fix: str
) -> None:
    """Everywhere, or from one link."""
    with netns.entered(empty_netns):
        sysctl.write({key: value})
    (found,) = [each for each in hindrances(status) if each["fix"].endswith(fix)]
    assert found["subject"] == subject
    assert found["fix"] == f"ip netns exec {empty_netns} sysctl -w {fix}"
    assert f"    fix: {found['fix']}\n" in status().out


@pytest.mark.parametrize("priority", [-10, 0, 300])
@pytest.mark.parametrize("hook", ["forward", "output"])
def test_a_drop_of_another_program_is_told(status: Run, empty_netns: str, hook: str, priority: int) -> None:
    """At whatever priority; the command that is told lets packets of services pass."""
    with Namespace(empty_netns) as namespace:
        namespace.commit(
            f"add table inet fw\nadd chain inet fw c {{ type filter hook {hook} priority {priority}; policy drop; }}"
        )
    (found,) = hindrances(status)
    assert "chain inet fw c drops" in found["message"]
    assert found["severity"] in status().out
    subprocess.run(found["fix"].split(), check=True)
    assert hindrances(status) == []


def test_an_old_nft_is_told(status: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which version it must be is said."""
    old = tmp_path / "bin" / "nft"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'nftables v0.9.8 (E.D.S.)'\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    assert "nft 0.9.8 is too old" in status().out
    assert "1.0.6 or later" in status().out
