"""Flows of tests, and who answered them: TCP connections and UDP datagrams, sent one after the other.

A socket belongs to the network namespace where it is opened, so the test's own thread sends and receives. Where a flow
goes is decided elsewhere (:mod:`svcnat.testing.destinations`); real clients are run as commands in a pod instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from svcnat.kernel import netns
from svcnat.testing.destinations import Destination

PATIENCE = 2.0
"""Seconds to wait for an answer."""

_LINE = re.compile(r"(?P<pod>\S+) (?P<address>\S+) saw (?P<source>\S+) (?P<port>\d+)")
_LARGEST = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: `text`, and, if it is a lab's stand-in, what that tells.

    Attributes:
        text: the first line of the answer.
        pod: the name of the pod that answered, "" if it is no stand-in.
        address: the address that the request came to at the pod.
        source: the address that the pod saw the request come from.
        source_port: the port that it saw.

    """

    text: str
    pod: str = ""
    address: str = ""
    source: str = ""
    source_port: int = 0


@dataclass(frozen=True, slots=True)
class Flows:
    """The outcome of many flows; there are `failures`, one text each, only if they were allowed."""

    answers: tuple[Answer, ...]
    failures: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def pods(self) -> Counter[str]:
        """How many flows each pod answered."""
        return Counter(answer.pod for answer in self.answers)

    @property
    def sources(self) -> Counter[str]:
        """From how many flows each source address was seen."""
        return Counter(answer.source for answer in self.answers)


def connected(place: Path, destination: Destination, patience: float = PATIENCE) -> socket.socket:
    """A socket in the network namespace `place` that is connected to a destination, TCP or UDP.

    Raises:
        OSError: it cannot be; TimeoutError if nobody answered.

    """
    family = socket.AF_INET6 if ":" in destination.address else socket.AF_INET
    kind = socket.SOCK_DGRAM if destination.protocol == "UDP" else socket.SOCK_STREAM
    protocol = socket.IPPROTO_SCTP if destination.protocol == "SCTP" else 0
    with netns.entered(place):
        opened = socket.socket(family, kind, protocol)
    try:
        opened.settimeout(patience)
        opened.connect((destination.address, destination.port))
    except BaseException:
        opened.close()
        raise
    return opened


def ask(place: Path, destination: Destination, patience: float = PATIENCE, say: bytes = b"hello\n") -> Answer:
    """Send one flow from the network namespace `place`, and wait for the first line of the answer.

    Raises:
        OSError: there was none; ConnectionRefusedError, TimeoutError and others tell why.

    """
    with connected(place, destination, patience) as client:
        client.sendall(say)
        data = b""
        while b"\n" not in data:
            part = client.recv(_LARGEST)
            data += part
            if not part or destination.protocol == "UDP":
                break
    text = data.decode(errors="replace").partition("\n")[0].rstrip("\r")
    if not data:
        raise ConnectionResetError(errno.ECONNRESET, "the connection was closed without an answer")
    found = _LINE.fullmatch(text)
    return Answer(text, found["pod"], found["address"], found["source"], int(found["port"])) if found else Answer(text)


def many(count: int, one: Callable[[], Answer], *, strict: bool) -> Flows:
    """Ask `count` times; `strict` raises what the first failure raises.

    Raises:
        OSError: see :func:`ask`.

    """
    answers, failures = [], []
    for _ in range(count):
        try:
            answers.append(one())
        except OSError as error:
            if strict:
                raise
            failures.append(reason(error))
    return Flows(tuple(answers), tuple(failures))


def reason(error: OSError) -> str:
    """Why there was no answer, in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return os.strerror(error.errno) if error.errno else str(error)


def listens(place: Path, port: int) -> bool:
    """True if a TCP server answers at that port of the namespace's loopback addresses."""
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), connected(place, Destination("", address, port, "TCP"), PATIENCE):
            return True
    return False
