"""The agent of a lab: what it follows, and how it runs the commands of exec probes.

Whether one runs, and how one is started and stopped, is :mod:`svcnat.lab.agent`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from svcnat.agent.targets import Target
from svcnat.errors import LabError
from svcnat.model.configuration import Configuration

if TYPE_CHECKING:
    import subprocess

    from svcnat.agent.attempts import Ran, Runner
    from svcnat.agent.probes import Key
    from svcnat.api.agents import Following
    from svcnat.lab import labs  # imported late: only labs pay for them
    from svcnat.lab.topology import Topology

_NOT_FOUND = 127  # how a shell says that there is no such command


def following(name: str, *, patient: bool = False) -> Following:
    """What the agent of a lab follows; `patient` waits for a lab that is being built.

    Raises:
        LabError: there is none of that name, or only parts of one.

    """
    from svcnat.api.agents import Following
    from svcnat.lab import labs, state, stores

    labs.enter(name)
    if patient:
        state.wait_until_built(state.folder_of(name))
    with labs.Lab.open(name) as lab:
        folder, topology = lab.folder, lab.topology
        return Following(
            lab.store.path,
            targets_of(lab),
            lambda: configuration_of(topology),
            opening=lambda _: stores.open_store(folder, topology),
            run=_runner(lab),
            home=folder,
        )


def targets_of(lab: labs.Lab) -> tuple[Target, ...]:
    """The network namespaces of a lab's nodes."""
    return tuple(Target(node, str(where), optional=True) for node, where in lab.nodes)


def configuration_of(topology: Topology) -> Configuration:
    """A lab's configuration follows from its topology; several labs on one machine cannot have the same pages."""
    return Configuration(
        cluster_cidr=str(topology.cluster),
        service_cidr=str(topology.services),
        bridge_masquerade=topology.declaration.bridge_masquerade,
        metrics_bind_address="",
        healthz_bind_address="",
    )


def _runner(lab: labs.Lab) -> Runner:
    """What runs the commands of exec probes, each in its pod, with the environment of its container.

    A program that this machine does not have is the image's, as grpc_health_probe: like the rest of the image it is
    stood in for, and finds that all is well.
    """

    async def run(key: Key, command: Sequence[str]) -> Ran:
        from svcnat.agent import commands
        from svcnat.agent.attempts import Ran

        about = key.name, key.namespace, key.part

        def spawn(words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
            return lab.spawn(key.name, words, key.namespace, key.part, **options)

        try:
            ran = await commands.run_by(spawn, command)
        except LabError as error:
            if not (isinstance(error.__cause__, FileNotFoundError) and lab.stands_in_for(*about)):
                raise
            return Ran(0, b"")
        return Ran(0, b"") if ran.code == _NOT_FOUND and lab.stands_in_for(*about) else ran

    return run
