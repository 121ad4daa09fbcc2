"""Every error that svcnat raises on purpose.

::

    SvcnatError
    ├── UsageError          the caller asked for something that makes no sense (exit code 2)
    ├── ManifestError       findings in what the user wrote: file, line, object, field, reason
    ├── StoreError          the state file: corrupt, newer than this program, not readable
    │   ├── NotFoundError   no such object
    │   ├── ConflictError   the object exists already, or changed under the caller
    │   └── ExhaustedError  no address is left in a range
    ├── UnfollowedError     the objects are saved, but the rules did not follow; its cause says why
    ├── KernelError         what the kernel or libnftables said
    │   ├── PrivilegeError  EPERM: root, or CAP_NET_ADMIN in that namespace, is needed
    │   ├── MissingError    a library, a kernel feature or a namespace is not there
    │   ├── TooLargeError   a transaction that this process may not send in one piece
    │   ├── StaleError      the kernel's rules are not what the caller read: read again
    │   ├── BusyError       another writer holds the namespace
    │   └── EndedError      the agent that was asked ended before it answered
    └── LabError            nodes and pods as namespaces

The message of each is one line for the person who typed the command: what is wrong, where, what to do. Anything
else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class SvcnatError(Exception):
    """The root: catch it to catch everything that svcnat raises on purpose."""


class UsageError(SvcnatError):
    """The request itself makes no sense."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong, or doubtful, in a manifest: ``FILE:LINE: KIND NAMESPACE/NAME: FIELD.PATH: reason``.

    Parts that are not known are empty (line 0), and left out of the text.
    """

    source: str
    line: int
    subject: str
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return ": ".join(part for part in (place, self.subject, self.field, self.reason) if part)


class ManifestError(SvcnatError):
    """Every finding of every document, in the order of the files; nothing was changed."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class StoreError(SvcnatError):
    """The state file cannot be used."""


class NotFoundError(StoreError):
    """No such object."""


class ConflictError(StoreError):
    """The object exists already, or is not what the caller thought."""


class ExhaustedError(StoreError):
    """A range has no free address left."""


class UnfollowedError(SvcnatError):
    """The objects are saved, but the rules did not follow; ``outcomes`` says what became of the objects."""

    def __init__(self, cause: SvcnatError, outcomes: Sequence[Any]) -> None:
        self.outcomes = tuple(outcomes)
        super().__init__(f"the objects are saved, but the rules did not follow: {cause}")


class KernelError(SvcnatError):
    """The kernel, or libnftables, refused; the rules are as they were."""


class PrivilegeError(KernelError):
    """The caller lacks CAP_NET_ADMIN (or CAP_SYS_ADMIN to enter a namespace)."""


class MissingError(KernelError):
    """A library, a kernel feature or a network namespace is not there."""


class TooLargeError(KernelError):
    """The transaction does not fit the socket's buffer, which only CAP_NET_ADMIN of the machine may enlarge."""


class StaleError(KernelError):
    """The rules in the kernel are not those that the transaction was computed from."""


class BusyError(KernelError):
    """Another process is the writer of this network namespace, or the owner of a table of ours."""


class EndedError(KernelError):
    """The agent ended before it answered; whether it did what it was asked to is not known."""


class LabError(SvcnatError):
    """A lab could not be built, found or entered."""
