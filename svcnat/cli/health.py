"""Answer the health checks of load balancers on every healthCheckNodePort, until told to stop.

A Service of type LoadBalancer with externalTrafficPolicy: Local has such a port. To any HTTP request it answers 200
on a node that has ready endpoints of the Service and 503 on one that has none, in kube-proxy's words, on the
addresses that nodePortAddresses chooses; on all of them if svcnat knows none.

It changes neither objects nor rules. It follows the state file, or with --lab the lab, on each of its nodes, looks
once a second for what changed, and writes one line for each check that did. SIGTERM and SIGINT stop it. It ends with
an error when the state file, the lab or a network namespace goes: let systemd start it again (Restart=on-failure).

It needs the library aiohttp. The agent will take this over, and "lab up" will start that; until then this verb is how
to have it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from svcnat.cli import session
from svcnat.cli.terminal import counted, say

if TYPE_CHECKING:
    from svcnat.agent.health import HealthServers, Unserved
    from svcnat.api import Cluster
    from svcnat.ruleset.plan import HealthCheck

_LOOK_SECONDS = 1.0

_Inode = tuple[int, int] | None
_Subject = tuple[str, str, str, int]  # node, namespace, name, port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no flags: the global ones say what to follow."""


def run(options: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    file, log = _state_file(options), _Log()
    while not stopping.is_set():
        inode = _inode(file)  # before it is opened: one that is replaced meanwhile is noticed at the first look
        with session.open_cluster(options, create=False) as cluster:
            say(f"following {file}")
            await _follow(cluster, file, inode, log, stopping)


async def _follow(cluster: Cluster, file: Path, inode: _Inode, log: _Log, stopping: asyncio.Event) -> None:
    """Serve what the objects ask for, until told to stop or the state file is another one than `inode`."""
    from svcnat.agent.health import HealthServers

    plans, seen = [], -1
    servers: dict[str, HealthServers] = {}
    async with contextlib.AsyncExitStack() as stack:
        while not stopping.is_set() and _inode(file) == inode:
            revision = _revision(cluster)
            if revision != seen:
                # In a thread, since the servers answer meanwhile.
                plans, seen = await asyncio.to_thread(cluster.plans), revision
            lines: dict[_Subject, str] = {}
            for target, plan in plans:
                if target.node not in servers:
                    servers[target.node] = await stack.enter_async_context(HealthServers(target.netns))
                # With or without a change: what could not be served may be possible now.
                checks, addresses = plan.health_checks, plan.settings.node_port_addresses
                unserved = await servers[target.node].update(checks, addresses)
                lines |= _describe(target.node, checks, unserved)
            log.tell(lines)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_SECONDS)


class _Log:
    """What was said of each check, so that only changes are."""

    def __init__(self) -> None:
        self._said: dict[_Subject, str] = {}

    def tell(self, lines: dict[_Subject, str]) -> None:
        for subject, line in lines.items():
            if self._said.get(subject) != line:
                say(line)
        for subject in sorted(self._said.keys() - lines.keys()):
            node, namespace, name, port = subject
            say(f"{node}: {namespace}/{name}: port {port} is closed")
        self._said = lines


def _describe(node: str, checks: Iterable[HealthCheck], unserved: Iterable[Unserved]) -> dict[_Subject, str]:
    troubles: dict[HealthCheck, list[str]] = {}
    for each in unserved:
        troubles.setdefault(each.check, []).append(f"{each.address} ({each.reason})")
    lines = {}
    for check in checks:
        count = check.local_endpoints
        line = (
            f"{node}: {check.namespace}/{check.name}: port {check.port} answers {200 if count else 503}, "
            f"{counted(count, 'local endpoint')}"
        )
        if check in troubles:
            line += f"; not on {', '.join(troubles[check])}"
        lines[node, check.namespace, check.name, check.port] = line
    return lines


def _revision(cluster: Cluster) -> int:
    """A number that every change of an object makes greater."""
    with cluster.read() as snapshot:
        return snapshot.revision


def _state_file(options: argparse.Namespace) -> Path:
    if options.lab:
        from svcnat.lab import state

        return state.folder_of(options.lab) / state.STORE
    from svcnat import api

    return Path(options.state or api.DEFAULT_STATE)


def _inode(file: Path) -> _Inode:
    """Which file is there now; the inode of one that is open is given to no other."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
