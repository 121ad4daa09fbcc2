"""The labs of this machine: which there are, and in what state. It changes none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from svcnat.errors import LabError
from svcnat.kernel import netns
from svcnat.lab import agent, names, state


@dataclass(frozen=True, slots=True)
class Summary:
    """A lab in a list; one that does not run is `broken`: half-built, crashed, or ended by a reboot.

    `pods` are those that somebody asked for. `attended` is True if its agent runs; otherwise the next change has one
    started, if that is possible.
    """

    name: str
    state: Literal["running", "broken"]
    nodes: int
    pods: int
    attended: bool = False


def labs() -> list[Summary]:
    """Every lab with a folder, and what only its namespaces tell of, by name.

    With another runtime folder than the usual one, labs without a folder in it are someone else's, and left out.

    Raises:
        LabError: the runtime folder is no folder.
        PrivilegeError: it, or a lab in it, is another user's.

    """
    found = {name for name in state.folders() if names.is_label(name)} | set(state.kept())
    if "SVCNAT_RUNTIME_DIR" not in os.environ:
        found |= {lab for namespace in netns.names() if (lab := names.lab_of(namespace))}
    return [_summary(name) for name in sorted(found)]


def running() -> list[str]:
    """The names of the labs that run; errors as :func:`labs`."""
    return [lab.name for lab in labs() if lab.state == "running"]


def _summary(name: str) -> Summary:
    try:
        folder = state.folder_of(name)
        record = state.read(folder)
    except LabError:
        return Summary(name, "broken", 0, 0)
    if state.keeper_of(name).exists():
        from svcnat.lab import rootless

        if not rootless.runs(name):
            return Summary(name, "broken", 0, 0)
    nodes = max(len(record.topology.nodes), 1)
    pods = sum(not pod.name.startswith(f"{names.SYSTEM}/") for pod in record.pods.values())
    return Summary(name, "running", nodes, pods, agent.runs(folder, record.agent))
