"""A pod, a node or a client of a test's lab: what can be run in it, and asked from it.

It is a name, not a thing that lives: a pod that was deleted and made again under the same name is the same place. What
it asks is resolved and sent by the lab (:mod:`svcnat.testing.lab`).
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from svcnat.testing import traffic
from svcnat.testing.traffic import PATIENCE, Answer, Flows

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

T = TypeVar("T")

_PATIENCE = 30.0
_LONGEST_QUOTE = 2000


class CommandFailedError(subprocess.CalledProcessError):
    """A command in a pod ended with another exit code than 0; its message has what it said."""

    def __str__(self) -> str:
        said = "\n".join(str(each)[-_LONGEST_QUOTE:] for each in (self.stdout, self.stderr) if each)
        return f"{super().__str__()}\n{said}".rstrip()


class Place:
    """A pod (``NAME`` or ``NAMESPACE/NAME``), a node or a client of a lab."""

    def __init__(self, lab: LabFixture, name: str) -> None:
        self._lab = lab
        self.name = name

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{self.name} of {self._lab.name}>"

    @property
    def netns(self) -> str:
        """The name of its network namespace, for ``ip netns exec``.

        Raises:
            LabError: it does not run.

        """
        return self._lab.built.netns_of(self.name).name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, the IPv4 one first.

        Raises:
            UsageError: there is no such pod, node or client.

        """
        return self._lab.addresses_of(self.name)

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self.addresses[0]

    def run(
        self, command: Sequence[str], *, check: bool = True, timeout: float = _PATIENCE, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there and wait for it; its output is captured as text. `options` are Popen's.

        Raises:
            LabError: nothing of that name runs, or there is no such command.
            CommandFailedError: it failed, unless `check` is False.
            TimeoutExpired: it did not end; it was killed.

        """
        texts = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self._lab.built.spawn(self.name, command, **(texts | options)) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            raise CommandFailedError(process.returncode, list(command), output, errors)
        return subprocess.CompletedProcess(list(command), process.returncode, output, errors)

    def spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command there that goes on, as a server does; the lab ends it at last. `options` are Popen's.

        Raises:
            LabError: nothing of that name runs, or there is no such command.

        """
        process = self._lab.built.spawn(self.name, command, **({"stdin": subprocess.DEVNULL} | options))
        self._lab.keep(process)
        return process

    def call(self, function: Callable[[], T]) -> T:
        """The result of a Python function, called in a thread that is there: its sockets are the pod's.

        Raises:
            LabError: nothing of that name runs.

        """
        return self._lab.built.run(self.name, function)

    def connect(
        self,
        to: str,
        *,
        protocol: str | None = None,
        family: int | None = None,
        patience: float = PATIENCE,
        say: bytes = b"hello\n",
    ) -> Answer:
        """Ask ``back-end:80``, and say who answered: a name as in :meth:`Names.resolve`, or an address.

        Raises:
            UsageError: there is nothing of that name.
            OSError: no answer: ConnectionRefusedError, TimeoutError, ...; with what there was to answer.

        """
        return self._lab.send(self.name, to, protocol=protocol, family=family, patience=patience, say=say)

    def socket(
        self, to: str, *, protocol: str | None = None, family: int | None = None, patience: float = PATIENCE
    ) -> socket.socket:
        """A connected socket, for tests that keep a connection; errors as :meth:`connect`."""
        return self._lab.open(self.name, to, protocol=protocol, family=family, patience=patience)

    def flows(self, count: int, to: str, *, strict: bool = True, **how: Any) -> Flows:
        """Ask `count` times, each a flow of its own; see :meth:`LabFixture.flows`."""
        return self._lab.flows(count, to=to, from_=self.name, strict=strict, **how)

    def listens(self, port: int) -> bool:
        """True if a TCP server answers at that port of its loopback: a command that was spawned is up.

        Raises:
            LabError: nothing of that name runs.

        """
        return traffic.listens(self._lab.built.netns_of(self.name), port)
