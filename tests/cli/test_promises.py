"""Promises that need the whole program: bad input changes nothing, who may do what, what start-up costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from svcnat.kernel.nftables import Namespace
from svcnat.model.objects import EndpointSlice, Service
from svcnat.store.sqlite import Store
from tests.agents import Agent, runtime
from tests.cli.conftest import Result
from tests.model.test_hostile import bad_manifest

Run = Callable[..., Result]

GOOD = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: web, image: web}]}
status: {phase: Running, podIP: 10.244.0.5, conditions: [{type: Ready, status: "True"}]}
"""

# In a child: give up every capability, so that root is nobody special to the kernel, then be svcnat.
WITHOUT_CAPABILITIES = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24))  # linux/capability.h, version 3
from svcnat.cli.frame import main
sys.exit(main(sys.argv[1:]))
"""


def python(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SVCNAT_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **options,
    )


@pytest.fixture
def here(tmp_path: Path, empty_netns: str) -> tuple[str, ...]:
    """The global flags for a state file and a namespace of this test's own, where a service already runs."""
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "good.yaml").write_text(GOOD)
    return (
        *("--state", str(tmp_path / "state" / "state.db")),
        *("--config", str(tmp_path / "config.yaml")),
        *("--netns", empty_netns),
    )


@pytest.mark.parametrize("verb", ["create", "apply"])
def test_a_thousand_bad_manifests_change_nothing(svcnat, here, tmp_path, empty_netns, verb) -> None:
    """Each is refused with located messages, without a traceback; the store's revision and the rules stay."""
    assert svcnat("create", *here, "-f", str(tmp_path / "good.yaml")).code == 0
    with Store.open(here[1]) as store, Namespace(empty_netns) as kernel:

        def condition() -> tuple[int, int]:
            with store.read() as snapshot:
                return snapshot.revision, kernel.generation()

        before = condition()
        file = tmp_path / "bad.yaml"
        for seed in range(500):
            name, text = bad_manifest(seed if verb == "create" else 500 + seed)
            file.write_text(text)
            result = svcnat(verb, *here, "-f", str(file))
            assert result.code == 1, (name, text, result)
            assert re.match(rf"error: {re.escape(str(file))}:\d+: ", result.err), (name, text, result.err)
            assert "Traceback" not in result.err
        assert condition() == before


def test_without_privilege_render_works_and_the_rest_says_so(here, tmp_path) -> None:
    """Pure verbs need nothing; the others fail with one clear line, and leave no state file behind."""
    good = str(tmp_path / "good.yaml")
    flags = here[:4]
    assert "add element ip svcnat frontends" in python(WITHOUT_CAPABILITIES, "render", "-f", good).stdout
    for arguments in (("sync", "-f", good), ("cleanup",), ("create", *flags, "-f", good)):
        refused = python(WITHOUT_CAPABILITIES, *arguments)
        assert refused.returncode == 1
        assert re.fullmatch(r"error: [^\n]*root[^\n]*\n", refused.stderr), refused.stderr
    assert not Path(here[1]).exists()


def test_start_up_imports_only_what_the_verb_needs(svcnat, here, tmp_path, make_netns) -> None:
    """Help imports no library, reading objects nothing that makes rules, and neither they nor rules pyroute2."""
    svcnat("create", *here, "-f", str(tmp_path / "good.yaml"))
    show = "\nfinally: print(*sorted(sys.modules), file=sys.stderr)"

    def imported(*arguments: str) -> set[str]:
        code = f"import sys\nfrom svcnat.cli.frame import main\ntry: main({list(arguments)!r}){show}"
        return set(python(code).stderr.split())

    assert not imported("--help") & {"msgspec", "yaml", "sqlite3", "pyroute2", "nftables", "asyncio"}
    reading = imported("get", "services", *here)
    assert "svcnat.store.sqlite" in reading
    assert not reading & {"pyroute2", "nftables", "asyncio", "jsonpath_ng", "difflib", "subprocess"}
    assert not reading & {"svcnat.agent.follow", "svcnat.kernel.nftables", "svcnat.ruleset.plan"}
    with runtime() as folder, Agent(folder, where := make_netns()) as agent:
        flags = ("--state", str(agent.state), "--netns", where, "--config", str(agent.config))
        changing = imported("apply", *flags, "-f", str(tmp_path / "good.yaml")) | imported(
            "delete", "service", "web", *flags
        )
    assert "svcnat.agent.control" in changing
    assert not changing & {"pyroute2", "nftables", "asyncio"}
    assert not {each for each in changing if each.startswith(("svcnat.ruleset.", "svcnat.agent.follow"))}
    assert not imported("sync", *here[4:], "--force", "-f", str(tmp_path / "good.yaml")) & {"pyroute2", "asyncio"}


def test_an_endpoints_new_address_reaches_the_rules(svcnat, here, tmp_path, empty_netns) -> None:
    """A pod comes back elsewhere: applying its new podIP alone is enough."""
    svcnat("create", *here, "-f", str(tmp_path / "good.yaml"))
    (tmp_path / "moved.yaml").write_text(GOOD.replace("10.244.0.5", "10.244.0.6"))
    assert "pod/web-1 configured" in svcnat("apply", *here, "-f", str(tmp_path / "moved.yaml")).out
    assert "10.244.0.6:80" in svcnat("describe", "service", "web", *here).out


def test_commands_at_once_end_with_all_their_changes_in_the_rules(svcnat, here, tmp_path, empty_netns) -> None:
    """Eight processes create a service each: no address twice, and the kernel has all eight."""
    svcnat("create", *here, "-f", str(tmp_path / "good.yaml"))
    for number in range(8):
        (tmp_path / f"{number}.yaml").write_text(GOOD.partition("---")[0].replace("web", f"web-{number}"))

    def create(number: int) -> subprocess.CompletedProcess[str]:
        code = "import sys; from svcnat.cli.frame import main; sys.exit(main(sys.argv[1:]))"
        return python(code, "create", *here, "-f", str(tmp_path / f"{number}.yaml"))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(create, range(8)))
    assert [result.returncode for result in results] == [0] * 8, results
    with Store.open(here[1]) as store, store.read() as snapshot:
        addresses = {service.spec.cluster_ip for service in snapshot.list(Service)}
        assert len(addresses) == 10
        assert len(snapshot.list(EndpointSlice)) >= 1
    listed = subprocess.run(
        ["nsenter", f"--net=/run/netns/{empty_netns}", "nft", "list", "map", "ip", "svcnat", "frontends"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(f"{address} . tcp" in listed for address in addresses)


def test_rules_of_another_state_file_are_left_alone(svcnat, here, tmp_path) -> None:
    """It is said before anything is saved."""
    svcnat("create", *here, "-f", str(tmp_path / "good.yaml"))
    other = ("--state", str(tmp_path / "other" / "state.db"), *here[2:])
    result = svcnat("create", *other, "-f", str(tmp_path / "good.yaml"))
    assert (result.code, result.out) == (1, "")
    assert "svcnat cleanup" in result.err
    assert "web" not in svcnat("get", "services", *other).out


def test_what_was_saved_is_said_even_if_the_rules_cannot_follow(svcnat, here, tmp_path, empty_netns) -> None:
    """Another program owns the table: the object is saved, and both facts are on the screen."""
    owner = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{empty_netns}", "nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        owner.stdin.write(b"add table ip svcnat { flags owner; }\n")
        owner.stdin.flush()
        with Namespace(empty_netns) as kernel:
            for _ in range(500):
                if kernel.families():
                    break
                time.sleep(0.01)
        result = svcnat("create", *here, "-f", str(tmp_path / "good.yaml"))
    finally:
        owner.communicate(timeout=10)
    assert result.code == 1
    assert "service/web created" in result.out
    assert "the objects are saved, but the rules did not follow" in result.err
    assert "another program owns svcnat's table" in result.err
