"""A node of a test's lab: a place that can fail."""

from __future__ import annotations

from svcnat.controllers import node_lifecycle
from svcnat.model.objects import Node as NodeObject
from svcnat.testing.place import Place


class Node(Place):
    """A node of a lab; its verbs return when the rules of the others have followed."""

    def stop(self) -> None:
        """Switch it off, as by a power cut: see :meth:`Lab.stop_nodes`."""
        self._lab.lab.stop_nodes(self.name)

    def start(self) -> None:
        """Switch it on again; its pods start anew."""
        self._lab.lab.start_nodes(self.name)

    def partition(self, *others: str | Place) -> None:
        """Cut it off from other nodes and clients, by default from everybody; it lives on."""
        self._lab.lab.partition(self.name, others=[str(each) for each in others])

    def heal(self) -> None:
        """Let it reach everybody again."""
        self._lab.lab.heal(self.name)

    def cordon(self) -> None:
        """Have no more pods placed on it."""
        self._lab.lab.cordon([self.name])

    def uncordon(self) -> None:
        """Have pods placed on it again."""
        self._lab.lab.cordon([self.name], unschedulable=False)

    @property
    def ready(self) -> bool:
        """True if the control plane takes it for Ready."""
        with self._lab.lab.read() as snapshot:
            found = snapshot.get(NodeObject, "", self.name)
        return found is not None and node_lifecycle.is_ready(found)
