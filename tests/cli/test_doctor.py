"""``svcnat doctor``: what it prints, its exit codes, and that it costs and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from svcnat.kernel import netns, sysctl
from svcnat.kernel.nftables import Namespace
from svcnat.lab import topology
from svcnat.lab.labs import Lab
from tests.cli.conftest import Result
from tests.lab.conftest import runtime, unused_name

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]


@pytest.fixture
def doctor(svcnat: Run, empty_netns: str, tmp_path: Path) -> Run:
    """``svcnat doctor`` in a namespace of its own, without a state file."""
    config = tmp_path / "config.yaml"
    config.write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\n")
    place = ("--netns", empty_netns, "--state", str(tmp_path / "state.db"), "--config", str(config))
    return lambda *arguments: svcnat("doctor", *place, *arguments)


def drop(name: str, chain: str = "fw") -> None:
    with Namespace(name) as namespace:
        namespace.commit(
            "add table inet mine\n"
            f"add chain inet mine {chain} {{ type filter hook forward priority 0; policy drop; }}\n"
        )


def test_findings_are_lines_with_what_to_do(doctor: Run, empty_netns: str) -> None:
    """The worst first, each with its fix; the last line counts, and an error is exit code 1."""
    assert doctor().code == 0
    drop(empty_netns)
    result = doctor()
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[0] == "error: other rules: chain inet mine fw drops what is sent to endpoints"
    assert lines[1] == f"    fix: ip netns exec {empty_netns} nft insert rule inet mine fw ct status dnat accept"
    assert lines[-1].startswith("1 error, ")
    assert "warning: forwarding: IPv4 is not forwarded" in result.out
    assert not [line for line in lines if line.startswith("ok:")]
    assert [line for line in doctor("-v").out.splitlines() if line.startswith("ok: state file:")]


def test_what_to_type_names_what_was_named(doctor: Run, svcnat: Run, empty_netns: str, tmp_path: Path) -> None:
    """A command of svcnat's own, typed as it stands, is about the same namespace, state file and configuration."""
    flags = ("--netns", empty_netns, "--state", str(tmp_path / "state.db"), "--config", str(tmp_path / "config.yaml"))
    manifest = tmp_path / "service.yaml"
    manifest.write_text("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}")
    assert svcnat("apply", *flags, "-f", str(manifest)).code == 0
    with Namespace(empty_netns) as namespace:
        namespace.commit("".join(f"delete table {family} svcnat\n" for family in namespace.families()))
    found = json.loads(doctor("-o", "json").out)["findings"]
    (finding,) = (each for each in found if each["subject"] == "rules")
    verb, *arguments = finding["fix"].removeprefix("svcnat ").split()
    assert svcnat(verb, *arguments).code == 0
    assert [
        each["severity"] for each in json.loads(doctor("-o", "json").out)["findings"] if each["subject"] == "rules"
    ] == ["ok"]


def test_findings_are_documents_too(doctor: Run, empty_netns: str) -> None:
    """JSON and YAML say the same, what is in order included."""
    drop(empty_netns)
    result = doctor("-o", "json")
    document = json.loads(result.out)
    assert (result.code, document["errors"]) == (1, 1)
    assert document["findings"][0] == {
        "severity": "error",
        "subject": "other rules",
        "message": "chain inet mine fw drops what is sent to endpoints",
        "fix": f"ip netns exec {empty_netns} nft insert rule inet mine fw ct status dnat accept",
    }
    assert {"ok", "warning", "error"} == {each["severity"] for each in document["findings"]}
    subjects = [each["subject"] for each in yaml.safe_load(doctor("-o", "yaml").out)["findings"]]
    assert subjects == [each["subject"] for each in document["findings"]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-o", "wide"), 2, "unable to match a printer"),
        (("--lab", "svcnat-no-lab"), 1, "svcnat-no-lab"),
        (("--netns", "svcnat-nowhere"), 1, 'network namespace "svcnat-nowhere" does not exist'),
        (("x",), 2, "unrecognized arguments"),
    ],
)
def test_what_makes_no_sense_is_an_error(doctor: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    """As with every verb."""
    result = doctor(*arguments)
    assert result.code == code
    assert message in result.err


def test_a_wrong_configuration_is_a_finding(svcnat: Run, empty_netns: str, tmp_path: Path) -> None:
    """And the rest is looked at all the same."""
    config = tmp_path / "c.yaml"
    config.write_text("apiVersion: svcnat.io/v1alpha1\nkind: Configuration\nmasqueradeAl: true\n")
    place = ("--netns", empty_netns, "--state", str(tmp_path / "s.db"), "--config", str(config))
    result = svcnat("doctor", *place)
    assert result.code == 1
    assert result.out.startswith("error: configuration: ")
    assert "did you mean" in result.out
    assert "warning: forwarding" in result.out


def test_names_cannot_drive_the_terminal(svcnat: Run, empty_netns: str, tmp_path: Path) -> None:
    """Devices and files are named by anybody."""
    device = "a\x1b[31m"
    with netns.entered(empty_netns):
        subprocess.run(["ip", "link", "add", device, "type", "bridge"], check=True)
        subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", device], check=True)
        sysctl.write({"net/ipv4/ip_forward": 1, f"net/ipv4/conf/{device}/forwarding": 0})
    for form in ((), ("-o", "json"), ("-v",)):
        result = svcnat("doctor", "--netns", empty_netns, "--state", str(tmp_path / "s\x1b.db"), *form)
        assert "a\\u001b[31m" in result.out
        assert "\x1b" not in result.out


def test_every_node_of_a_lab_is_looked_at(svcnat: Run, runtime: Path) -> None:
    """Findings say on which node; the lab's own state file is read, and nothing in the lab changes."""
    with Lab.up(unused_name(), topology.simple(nodes=2)) as lab:
        try:
            result = svcnat("--lab", lab.name, "doctor", "-o", "json")
            document = json.loads(result.out)
            assert (result.code, document["errors"]) == (0, 0), document
            assert {each.get("node", "") for each in document["findings"]} == {"", "node-1", "node-2"}
            drop(str(dict(lab.nodes)["node-2"]))
            assert svcnat("--lab", lab.name, "doctor").out.startswith("error: node-2: other rules: ")
        finally:
            lab.down()


def test_a_machine_without_libnftables_is_told_what_to_install(empty_netns: str, tmp_path: Path) -> None:
    """The one thing that svcnat cannot do without: the rest is looked at as far as that goes."""
    hide = 'for d in $(ls -d /usr/lib/python3*/*-packages/nftables); do mount --bind "$0" "$d"; done; exec "$@"'
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "svcnat", "doctor", "--state", str(tmp_path / "s.db")]
    done = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", hide, str(tmp_path / "empty"), *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("error: libnftables: ")
    assert "    fix: install it: apt install python3-nftables" in done.stdout
    assert "unknown: kernel: " in done.stdout
    assert "unknown: rules: " in done.stdout


def test_the_help_page_costs_nothing() -> None:
    """No import beyond those of any verb's help."""
    program = (
        "import sys; from svcnat.cli.frame import main; main(['doctor', '--help']); "
        "print(*{'svcnat.api', 'svcnat.agent', 'svcnat.kernel', 'svcnat.lab', 'sqlite3', 'pyroute2', 'yaml', 'ctypes'}"
        " & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "changes nothing" in done.stdout
