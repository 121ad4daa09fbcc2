"""What an agent keeps: network namespaces by name or path, each with the name of the node that it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from svcnat.kernel import netns
from svcnat.model.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Target:
    """A network namespace whose rules follow objects, and the name of the node that it is; None: the current one.

    One that is `optional` may be missing for a time, as a lab's node is that is off: nobody waits for it then. With a
    `host`, which is the machine's own name, the node is called as the configuration says.
    """

    node: str
    netns: str | None
    optional: bool = False
    host: str = ""

    def called_by(self, config: Configuration) -> Target:
        """The same with the name that a configuration gives it."""
        return replace(self, node=config.hostname_override or self.host) if self.host else self

    @property
    def missing(self) -> bool:
        """True if it may be missing, and is."""
        return self.optional and self.netns is not None and not netns.exists(self.netns)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f'network namespace "{self.netns}"' if self.netns else "this network namespace"
