"""What a lab says to its stand-in process, and hears: the words of :mod:`svcnat.lab.channel`, used by both sides.

It neither starts the process (:mod:`svcnat.lab.process`) nor serves pods (:mod:`svcnat.lab.standin`).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from svcnat.lab.channel import Channel, Reply, portions


class Port(Struct, frozen=True, array_like=True):
    """A port to serve; `protocol` is TCP, UDP or SCTP."""

    protocol: str
    number: int


class StandIn(Struct, frozen=True):
    """A pod to stand in for: `key` is its own in the lab, `netns` a path, `name` what its servers call themselves."""

    key: str
    netns: str
    name: str
    ports: tuple[Port, ...]


class Open(Struct, frozen=True, tag=True):
    """Serve these pods; one that is served already is left alone."""

    pods: tuple[StandIn, ...]


class Close(Struct, frozen=True, tag=True):
    """Finish the requests in hand, for at most `grace` seconds, then close every socket of these pods."""

    keys: tuple[str, ...]
    grace: float


class Served(Struct, frozen=True, tag=True):
    """Tell the keys of the pods that are served, in order, from the first one after `after`."""

    after: str = ""


class Identify(Struct, frozen=True, tag=True):
    """Tell the process's id."""


class Stop(Struct, frozen=True, tag=True):
    """Close everything and exit."""


Request = Open | Close | Served | Identify | Stop


class Answer(Reply, frozen=True, omit_defaults=True, kw_only=True):
    """`failures`: ports that could not be opened, by key; `keys`, `pid`: what was asked."""

    failures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    pid: int = 0


class Control(Channel[Answer]):
    """The lab's end of a conversation with its stand-in process; its methods raise LabErrors."""

    socket_name, log, whose, replies = "standin.sock", "standin.log", "the stand-in process", Answer

    def open(self, pods: Sequence[StandIn]) -> dict[str, tuple[str, ...]]:
        """Serve these pods; the answer is what could not be opened, by key."""
        failures: dict[str, tuple[str, ...]] = {}
        for portion in portions(pods):
            failures |= self.ask(Open(portion)).failures
        return failures

    def close_pods(self, keys: Sequence[str], grace: float = 0.5) -> None:
        """Close every socket of these pods, after at most `grace` seconds for the requests in hand."""
        for portion in portions(keys):
            self.ask(Close(portion, grace))

    def served(self) -> set[str]:
        """The keys of the pods that are served."""
        keys: set[str] = set()
        after = ""
        while part := self.ask(Served(after)).keys:
            keys.update(part)
            after = part[-1]
        return keys

    def identify(self) -> int:
        """The id of the process that serves."""
        return self.ask(Identify()).pid

    def stop(self) -> None:
        """Make the process close everything and exit; returns when it did."""
        self.ask(Stop())
        self.await_end()
