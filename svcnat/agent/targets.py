"""What an agent keeps: network namespaces by name or path, each with the name of the node that it is."""

from __future__ import annotations

from dataclasses import dataclass

from svcnat.kernel import netns


@dataclass(frozen=True, slots=True)
class Target:
    """A network namespace whose rules follow objects, and the name of the node that it is; None: the current one.

    One that is `optional` may be missing for a time, as a lab's node is that is off: nobody waits for it then.
    """

    node: str
    netns: str | None
    optional: bool = False

    @property
    def missing(self) -> bool:
        """True if it may be missing, and is."""
        return self.optional and self.netns is not None and not netns.exists(self.netns)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f'network namespace "{self.netns}"' if self.netns else "this network namespace"
