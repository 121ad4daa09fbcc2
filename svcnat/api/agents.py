"""Agents: what one follows, running one, and asking one how it fares."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svcnat.agent import control
from svcnat.agent.targets import Target
from svcnat.api.configured import DEFAULT_STATE, LAB_BRINGS_ITS_OWN, configuration, node_name, open_store
from svcnat.errors import ConflictError, ManifestError, UsageError
from svcnat.model.configuration import Configuration

_HOME_SECONDS = 1.0  # between two looks whether it is still there

if TYPE_CHECKING:
    from svcnat.agent.attempts import Runner
    from svcnat.agent.desired import Desired
    from svcnat.agent.doctor.findings import Finding
    from svcnat.agent.settings import Host
    from svcnat.agent.sources import Source
    from svcnat.ruleset.plan import Plan
    from svcnat.store.sqlite import Store


@dataclass(frozen=True, slots=True)
class Following:
    """What an agent is to follow: a state file (None: manifests), the targets, and how its configuration is read.

    ``run`` runs the commands of exec probes; when the folder ``home`` is gone, so is the agent.
    """

    state: Path | None
    targets: tuple[Target, ...]
    configure: Callable[[], Configuration]
    paths: tuple[str, ...] = ()
    recursive: bool = False
    namespace: str = "default"
    opening: Callable[[Configuration], Store] | None = None
    run: Runner | None = None
    home: Path | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        if self.state:
            return control.socket_of_state(self.state)
        return control.socket_of_netns(self.targets[0].netns)

    def source(self, *, create: bool = True, remembering: bool = False) -> Source:
        """The objects, not yet open; without `create` a state file that is not there is not made.

        `remembering`: what agents have found out by now about those of manifests, which has a file of its own.
        """
        from svcnat.agent.sources import Manifests, StateFile

        if self.state is None:
            findings = control.findings_beside(self.socket) if remembering else None
            return Manifests(self.paths, recursive=self.recursive, namespace=self.namespace, findings=findings)
        return StateFile(self.state, self.opening or _opening(self.state, create=create))


def following(
    *,
    state: str | Path | None = None,
    config: str | Path | None = None,
    netns: str | None = None,
    lab: str | None = None,
    paths: Sequence[str] = (),
    recursive: bool = False,
    namespace: str = "default",
    patient: bool = False,
) -> Following:
    """What an agent with these flags follows; nothing is opened. `patient` waits for a lab that is being built.

    Raises:
        UsageError: manifests and a state file, or a lab with what it brings itself.
        ManifestError: the configuration is wrong.
        LabError: no such lab.

    """
    if lab:
        if state or netns or config or paths:
            raise UsageError(LAB_BRINGS_ITS_OWN)
        from svcnat.api import lab_agents

        if patient:
            import svcnat.agent.agent  # noqa: F401 - in the meantime

        return lab_agents.following(lab, patient=patient)
    if paths and state:
        raise UsageError("-f follows manifests, --state (or SVCNAT_STATE) a state file: one of them")
    if "-" in paths:
        raise UsageError("standard input cannot be followed: -f takes files and folders here")
    configure = functools.partial(configuration, config)
    target = Target("", netns, host=node_name(Configuration())).called_by(configure())
    if paths:
        return Following(None, (target,), configure, tuple(paths), recursive, namespace)
    return Following(Path(state or DEFAULT_STATE), (target,), configure)


def _opening(state: Path, *, create: bool) -> Callable[[Configuration], Store]:
    """How a state file is opened: made at the first time, but if it goes while we run, it is missed."""

    def opening(config: Configuration) -> Store:
        nonlocal create
        store = open_store(state, config, create=create)
        create = False
        return store

    return opening


def run_agent(what: Following, *, force: bool = False, cleanup_on_exit: bool = False) -> None:
    """Run an agent in this process until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    When it has ended so, both are ignored: who sends them again does so in vain, until the caller handles them.

    Raises:
        SvcnatError: it cannot begin: the objects cannot be read, or another one is the writer of a target.
        MissingError: one of the libraries of the extra "agent" is not installed.

    """
    import asyncio

    from svcnat.agent.agent import Agent, Options
    from svcnat.agent.notify import Notifier

    async def main() -> None:
        with Notifier.of_environment() as notifier:
            options = Options(what.configure, what.socket, cleanup_on_exit, force, what.run, notifier)
            agent = Agent(what.source(remembering=True), what.targets, what.configure(), options)
            if what.home is None:
                await agent.run()
                return
            os.chdir("/")  # nobody shall wait to unmount the folder that the lab was built from
            leaving = asyncio.create_task(leave_with(what.home))
            await agent.run()
            leaving.cancel()

    # Two threads share the interpreter: the one that answers must not wait long for the one that works.
    sys.setswitchinterval(0.001)
    asyncio.run(main())


async def leave_with(home: Path) -> None:
    """End this process, as SIGTERM does, when its home is gone: nobody else would."""
    import asyncio
    import signal

    with contextlib.suppress(OSError):
        place = home.stat().st_ino
        while home.stat().st_ino == place:
            await asyncio.sleep(_HOME_SECONDS)
    signal.raise_signal(signal.SIGTERM)


def follow_once(what: Following, *, force: bool = False) -> control.AgentState:
    """Make the rules of every target follow once, and end: what a host does at boot that runs no agent.

    Raises:
        SvcnatError: see :func:`run_agent`.

    """
    from svcnat.agent.keeper import Keeper
    from svcnat.agent.reconciler import Reconciler
    from svcnat.agent.rounds import Reasons

    source = what.source(remembering=True)
    reconciler = Reconciler(
        source,
        what.targets,
        what.configure(),
        keeping=lambda target, config, source: Keeper(
            target, config, follows=f"{source.follows} once", identity=source.identity, force=force
        ),
    )
    reconciler.open()
    try:
        reconciler.round(Reasons())
        return reconciler.state()
    finally:
        reconciler.close()


def agent_state(what: Following, *, deep: bool = False) -> control.AgentState | None:
    """How the agent fares that follows this; None if none does. `deep`: it compares the kernel's rules.

    Raises:
        PrivilegeError: this user may not ask it.
        KernelError: it does not answer.

    """
    if what.state:
        client = control.Client.of_state(what.state, (target.netns for target in what.targets))
    else:
        client = control.Client.find(what.socket)
    if client is None:
        return None
    with client:
        return client.ask(control.Verify(deep)).state


def status(what: Following) -> control.AgentState:
    """Whether the kernel's rules are equal to what is followed: as its agent tells, or without one as they are read.

    Raises:
        SvcnatError: it cannot be told.

    """
    if found := agent_state(what, deep=True):
        return found
    from svcnat.agent.desired import Desired
    from svcnat.kernel import lock

    for target in what.targets:
        if (holder := lock.holder(target.netns)) and holder.follows:
            raise ConflictError(
                f"an agent (pid {holder.pid}) keeps the rules of {target.where} equal to {holder.follows}: "
                "ask about that, with --state or -f"
            )
    config, desired, source = what.configure(), Desired(), what.source(create=False, remembering=True)
    source.open(config)
    try:
        source.refresh(desired)
    finally:
        source.close()
    targets = tuple(_compared(target, desired, source.identity, config) for target in what.targets)
    return control.AgentState(0, "", source.follows, source.revision, 0.0, targets)


def hindrances(what: Following) -> list[Finding]:
    """What keeps services from working here and no agent can repair, each with what to do: see :mod:`.doctor`.

    Another program's drop, forwarding that is off, a kernel or an nft that lacks something. Nothing is changed; where
    the configuration cannot be read, its defaults count.
    """
    from svcnat.agent.doctor.examine import hindrances as found
    from svcnat.agent.doctor.facts import Agent
    from svcnat.agent.doctor.gather import Where, gather
    from svcnat.kernel import netns

    places = [
        Where(target.node if len(what.targets) > 1 else "", target.netns)
        for target in what.targets
        if target.netns is None or netns.exists(target.netns)
    ]
    try:
        config = what.configure()
    except ManifestError:
        config = Configuration()
    return found(gather(places, what.state, config, ask=lambda _: Agent(None)))


def _compared(target: Target, desired: Desired, identity: str | None, config: Configuration) -> control.TargetState:
    """How the rules of a target differ from what is desired."""
    from svcnat.agent.follow import Objects, follow
    from svcnat.agent.settings import settings_for
    from svcnat.ruleset.plan import plan

    def decide(host: Host) -> Plan:
        settings = settings_for(config, host, target.node, desired.zone_of(target.node))
        decided.append(plan(desired.services.values(), desired.slices(), settings))
        return decided[-1]

    decided: list[Plan] = []
    report = follow(target.netns, Objects(decide, identity, force=True), config, dry_run=True)
    ports = [port for ports in decided[-1].services.values() for port in ports]
    return control.TargetState(
        target.node,
        target.netns,
        "synced",
        generation=report.generation,
        services=len(decided[-1].services),
        endpoints=sum(len(port.endpoints.serving) for port in ports),
        different=tuple(f"{count} {what}" for what, count in report.counts.items() if count),
    )
