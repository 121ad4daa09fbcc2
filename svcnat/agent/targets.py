"""What an agent keeps: network namespaces by name or path, each with the name of the node that it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A network namespace whose rules follow objects, and the name of the node that it is; None: the current one."""

    node: str
    netns: str | None

    @property
    def where(self) -> str:
        """What messages call it."""
        return f'network namespace "{self.netns}"' if self.netns else "this network namespace"
