"""What probes found out about objects of manifests: kept as long as it is about them, and for the next agent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat.agent.findings import Findings
from svcnat.agent.probes import Key, Result
from svcnat.kernel.nftables import Namespace
from svcnat.model.extensions import PROBE_RESULTS
from svcnat.model.objects import (
    Container,
    EndpointAddress,
    Endpoints,
    EndpointSubset,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
    Service,
)
from svcnat.model.pods import is_ready
from tests.agent.listening import Pair
from tests.agent.running import rules
from tests.agents import Agent, until

NOW = "2026-01-01T00:00:00Z"


def pod(address: str = "10.0.0.2") -> Pod:
    return Pod(
        metadata=ObjectMeta(name="a", namespace="default"),
        spec=PodSpec(containers=[Container(name="main")]),
        status=PodStatus(phase="Running", pod_ip=address),
    )


def hand(*addresses: str) -> Endpoints:
    subset = EndpointSubset(addresses=[EndpointAddress(ip=each) for each in addresses])
    return Endpoints(metadata=ObjectMeta(name="a", namespace="default"), subsets=[subset])


def of_pod(*, ready: bool) -> Result:
    return Result(Key("Pod", "default", "a", "main"), ready, "", changed=True, address="10.0.0.2")


def of_hand(address: str, *, ready: bool) -> Result:
    return Result(Key("Endpoints", "default", "a", address), ready, "", changed=True, address=address)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.findings"


def failed(findings: Findings, resource: Endpoints) -> str:
    return findings.added_to(resource, NOW).metadata.annotations.get(PROBE_RESULTS, "")


def test_the_next_agent_knows(file: Path) -> None:
    """Of an agent that followed the same manifests; nobody else may read it."""
    first = Findings("folder", file)
    first.take([of_pod(ready=False), of_pod(ready=True), of_hand("10.0.0.7", ready=False)])
    second = Findings("folder", file)
    assert is_ready(second.added_to(pod(), NOW))  # type: ignore[arg-type]
    assert failed(second, hand("10.0.0.7", "10.0.0.8")) == '{"10.0.0.7": false}'
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert not is_ready(Findings("another folder", file).added_to(pod(), NOW))  # type: ignore[arg-type]
    assert not is_ready(Findings("folder").added_to(pod(), NOW))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b'{"follows": "folder"}', b"\xff\xfe", b"[" * 100_000, b'{"z":' + b"[" * 100_000],
)
def test_a_damaged_file_is_as_good_as_none(file: Path, damaged: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and the next result replaces it."""
    file.write_bytes(damaged)
    found = Findings("folder", file)
    assert not is_ready(found.added_to(pod(), NOW))  # type: ignore[arg-type]
    assert "is not known" in caplog.text
    found.take([of_pod(ready=True)])
    assert is_ready(Findings("folder", file).added_to(pod(), NOW))  # type: ignore[arg-type]


def test_what_others_put_there_is_not_believed(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pipe keeps nobody waiting, a link leads nowhere; the next result replaces it, and touches nothing else."""
    victim = tmp_path / "victim"
    Findings("folder", victim).take([of_pod(ready=True)])
    before = victim.read_bytes()
    new = file.with_suffix(".new")
    for put in (os.mkfifo, lambda path: path.symlink_to(victim), lambda path: path.hardlink_to(victim)):
        for path in (file, new):
            put(path)
        found = Findings("folder", file)
        if not file.samefile(victim) or file.is_symlink():
            assert not is_ready(found.added_to(pod(), NOW))  # type: ignore[arg-type]
        found.take([of_pod(ready=False)])
        assert victim.read_bytes() == before
        assert victim.stat().st_nlink == 1
        assert not file.is_symlink()
        assert file.is_file()
        assert not new.exists()
        file.unlink()
    assert caplog.text.count("is not known") == 2
    assert "it is no plain file" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_file_is_not_believed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may write into the folder does not say which endpoints work."""
    Findings("folder", file).take([of_pod(ready=True)])
    try:
        os.chown(file, 65534, 65534)
    except OSError:
        pytest.skip("this user namespace knows no other user")
    assert not is_ready(Findings("folder", file).added_to(pod(), NOW))  # type: ignore[arg-type]
    assert "it is another user's" in caplog.text


def test_a_folder_that_is_gone_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was found out holds all the same."""
    found = Findings("folder", tmp_path / "gone" / "agent.findings")
    found.take([of_pod(ready=True)])
    found.take([of_hand("10.0.0.7", ready=False)])
    assert is_ready(found.added_to(pod(), NOW))  # type: ignore[arg-type]
    assert len(caplog.records) == 1


def test_a_pod_with_another_address_is_another_pod(file: Path) -> None:
    """It is not ready because the one before was; nor is one that was gone in between."""
    found = Findings("folder", file)
    found.take([of_pod(ready=True)])
    assert not is_ready(found.added_to(pod("10.0.0.3"), NOW))  # type: ignore[arg-type]
    assert is_ready(found.added_to(pod(), NOW))  # type: ignore[arg-type]
    found.keep([hand("10.0.0.2")])
    assert not is_ready(found.added_to(pod(), NOW))  # type: ignore[arg-type]


def test_an_endpoint_that_was_gone_counts_as_written() -> None:
    """A failure is forgotten with its address, and with its object."""
    found = Findings("folder")
    found.take([of_hand("10.0.0.7", ready=False), of_hand("10.0.0.8", ready=False)])
    found.keep([hand("10.0.0.8")])
    assert failed(found, hand("10.0.0.7", "10.0.0.8")) == '{"10.0.0.8": false}'
    found.keep([])
    assert failed(found, hand("10.0.0.7", "10.0.0.8")) == ""
    service = Service(metadata=ObjectMeta(name="a", namespace="default"))
    assert found.added_to(service, NOW) is service


MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.50, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec: {containers: [{name: main, image: x, readinessProbe: {tcpSocket: {port: 8080}, timeoutSeconds: 30}}]}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Service
metadata:
  name: hand
  annotations: {svcnat.io/probe: '{"tcpSocket": {}, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 30}'}
spec: {clusterIP: 10.96.0.51, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: hand}
subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{port: 8080}]}]
---  # It needs the chain that the other one leaves: nothing is to be tidied up.
apiVersion: v1
kind: Service
metadata: {name: pair}
spec: {clusterIP: 10.96.0.52, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: pair}
subsets: [{addresses: [{ip: 10.0.0.3}, {ip: 10.0.0.4}], ports: [{port: 8080}]}]
"""


@pytest.fixture
def pair(make_netns: Callable[[], str]) -> Iterator[Pair]:
    made = Pair(make_netns)
    with made.listener("10.0.0.2", 8080):
        yield made


@pytest.mark.packets
def test_an_agent_that_dies_takes_no_findings_along(pair: Pair, folder: Path) -> None:
    """The rules that it left are right for the next one, which writes nothing: no endpoint goes or comes back.

    Who asks in between is told so, too.
    """
    manifests = folder / "web.yaml"
    manifests.write_text(MANIFESTS)
    agent = Agent(folder, pair.node, "-f", str(manifests))
    with agent:
        until(
            lambda: "10.96.0.50 . 80 . 0" in rules(pair.node) and ": 10.0.0.1 . 8080" not in rules(pair.node),
            "what works has rules, and nothing else",
        )
        with Namespace(pair.node) as kernel:
            before = rules(pair.node), kernel.generation()
            for _ in range(3):
                agent.kill()
                status = agent.run("status")
                assert (status.returncode, "equal to the objects" in status.stdout) == (0, True), status
                agent.begin()
                assert (rules(pair.node), kernel.generation()) == before
