"""Probes in a lab: from a pod's manifest, over its node's network, to its status and the slices of its Service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from svcnat.agent import commands
from svcnat.agent.attempts import Ran
from svcnat.agent.prober import Prober
from svcnat.agent.probes import Key, Probed, Result, wanted_of_pod
from svcnat.controllers.readiness import with_container_ready
from svcnat.lab import kubelet, state
from svcnat.lab.control import Control
from svcnat.lab.labs import Lab
from svcnat.model.defaults import with_defaults
from svcnat.model.objects import (
    EndpointSlice,
    ExecAction,
    HTTPGetAction,
    ObjectMeta,
    Pod,
    Probe,
    Service,
    ServicePort,
    ServiceSpec,
    TCPSocketAction,
)
from svcnat.model.pods import is_ready
from svcnat.store.sqlite import utc_now
from tests.lab.conftest import BuildLab, build_lab, runtime
from tests.lab.pods import create, pod, stored

__all__ = ["build_lab", "runtime"]  # fixtures

pytestmark = pytest.mark.packets

PATIENCE = 60.0


class Agent:
    """As little of an agent as it takes: looks at the store, probes, and writes what comes of it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._prober = Prober(self._report, run=self._run)

    def _wanted(self) -> list[Probed]:
        nodes = dict(self._lab.nodes)
        with self._lab.store.read() as snapshot:
            return [each for found in snapshot.list(Pod) for each in wanted_of_pod(found, nodes[found.spec.node_name])]

    async def _run(self, key: Key, command: Sequence[str]) -> Ran:
        return await commands.run(self._lab.netns_of(key.name, key.namespace), command)

    async def _report(self, result: Result) -> None:
        if result.changed:
            with self._lab.store.transaction() as transaction:
                live = transaction.get(Pod, result.key.namespace, result.key.name)
                if live and live.metadata.uid == result.key.uid:
                    transaction.put(with_container_ready(live, result.key.part, result.ready, utc_now()))

    async def until(self, ready: dict[str, bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while {name: is_ready(stored(self._lab, name)) for name in ready} != ready:
                await self._prober.update(self._wanted())
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._prober.close()


def probed(name: str, **action: object) -> Pod:
    made = pod(name)
    probe = Probe(period_seconds=1, failure_threshold=1, timeout_seconds=5, **action)  # type: ignore[arg-type]
    container = replace(made.spec.containers[0], readiness_probe=probe)
    meta = replace(made.metadata, labels={"app": "web"})
    return with_defaults(replace(made, metadata=meta, spec=replace(made.spec, containers=[container])))


def ready_endpoints(lab: Lab) -> set[str]:
    with lab.store.read() as snapshot:
        slices = snapshot.labelled(EndpointSlice, "default", {"kubernetes.io/service-name": "web"})
    return {
        str(endpoint.target_ref.name)
        for each in slices
        for endpoint in each.endpoints
        if endpoint.conditions.ready and endpoint.target_ref
    }


def test_pods_become_ready_and_unready_by_their_probes(build_lab: BuildLab, tmp_path: Path) -> None:
    """All kinds of probes that a stand-in answers; one whose servers are gone is no endpoint any more."""
    lab, file = build_lab(), tmp_path / "healthy"
    service = Service(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80)]),
    )
    with lab.store.transaction() as transaction:
        transaction.create(service)
    create(
        lab,
        probed("tcp", tcp_socket=TCPSocketAction(port=80)),
        probed("http", http_get=HTTPGetAction(port=80)),
        probed("exec", exec=ExecAction(command=["cat", str(file)])),
        probed("wrong", tcp_socket=TCPSocketAction(port=80, host="127.0.0.2")),
    )
    kubelet.start(lab)
    assert ready_endpoints(lab) == set()

    async def main() -> None:
        agent = Agent(lab)
        try:
            await agent.until({"tcp": True, "http": True, "exec": False, "wrong": False})
            assert ready_endpoints(lab) == {"tcp", "http"}
            file.write_text("yes")
            await agent.until({"tcp": True, "http": True, "exec": True, "wrong": False})
            file.unlink()
            devices = {each.name: each.device for each in state.read(lab.folder).pods.values()}
            with Control(lab.folder) as control:
                control.close_pods([devices["default/tcp"]])
            await agent.until({"tcp": False, "http": True, "exec": False, "wrong": False})
            assert ready_endpoints(lab) == {"http"}
            kubelet.start(lab)
            await agent.until({"tcp": True})
        finally:
            await agent.close()

    asyncio.run(main())
