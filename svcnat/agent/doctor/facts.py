"""What the doctor saw, as values: of the machine, of the state file, and of each network namespace.

What could not be looked at is an :class:`Unknown`, with the reason: an unprivileged look is a look all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from svcnat.kernel.bridgeports import Port
from svcnat.kernel.features import Missing
from svcnat.kernel.foreign import Chain, Foreign
from svcnat.kernel.host import Address, Route
from svcnat.kernel.listeners import Listener
from svcnat.model.configuration import Configuration
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.plan import FAMILIES


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be looked at, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tool:
    """An nft command, and the version that it tells; "" if it tells none."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What all network namespaces share. ``library``: why libnftables cannot be used from Python, "" if it can."""

    kernel: str
    now: datetime
    tools: tuple[Tool, ...] = ()
    library: str = ""
    missing: tuple[Missing, ...] | Unknown = ()


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something is served: tcp, udp or sctp, an address ("": every one of a node's), and a port."""

    family: Family
    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        """As people write it, with the protocol if it is not TCP."""
        address = f"[{self.address}]" if ":" in self.address else self.address or "node port "
        colon = ":" if self.address else ""
        return f"{address}{colon}{self.port}" + (f"/{self.protocol}" if self.protocol != "tcp" else "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the objects of a state file ask for.

    ``addresses``: those that clients use, node ports aside. ``endpoints``: the endpoints' addresses. ``ending``: the
    Services that end connections to endpoints that go. ``newest``: the latest time that an object was made.
    ``frontends`` are where clients connect to, ``backends`` the endpoints that may have new connections.
    """

    services: int = 0
    addresses: tuple[str, ...] = ()
    endpoints: frozenset[str] = frozenset()
    ending: tuple[str, ...] = ()
    newest: datetime | None = None
    frontends: tuple[Spot, ...] = ()
    backends: tuple[Spot, ...] = ()

    def has(self, family: Family) -> bool:
        """True if clients use an address of that family."""
        return any((":" in address) == (family == "ip6") for address in self.addresses)

    def lacks(self, family: str) -> bool:
        """True if there are services, and none that has an address of that family (ip, ip6; inet is both)."""
        return bool(self.addresses) and any(each == family and not self.has(each) for each in FAMILIES)


@dataclass(frozen=True, slots=True)
class State:
    """The state file; ``present`` is None if that cannot be told. ``trouble``: why it cannot be used, "" if it can.

    ``file_system`` is the kind of the one that it is, or would be, on; ``free`` bytes are left there. ``mode``: its
    permissions.
    """

    path: str
    present: bool | None = False
    trouble: str = ""
    identity: str = ""
    mode: int = 0o600
    file_system: str = ""
    free: int | None = None
    wanted: Wanted | Unknown = field(default_factory=Wanted)


@dataclass(frozen=True, slots=True)
class Agent:
    """Is an agent alive that follows the state file? None: that is not known. ``detail`` says who, or why not."""

    alive: bool | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One network namespace whose rules are svcnat's; ``enter`` is what a shell command begins with to run there.

    ``settings``: what is below /proc/sys, by key; those that are not there are left out. ``unreachable``: addresses of
    services that no route leads to, with the reason. ``unseen``: bridges that netfilter does not see, by family.
    ``families`` have svcnat's table, ``origin`` is where its rules came from.
    """

    node: str = ""
    enter: str = ""
    settings: Mapping[str, str] | Unknown = field(default_factory=dict)
    addresses: tuple[Address, ...] | Unknown = ()
    routes: tuple[Route, ...] | Unknown = ()
    unseen: Mapping[Family, tuple[str, ...]] | Unknown = field(default_factory=dict)
    unreachable: Mapping[str, str] | Unknown = field(default_factory=dict)
    foreign: Foreign | Unknown = field(default_factory=Foreign)
    legacy: tuple[Chain, ...] | Unknown = ()
    families: tuple[Family, ...] | Unknown = ()
    origin: str = ""
    listeners: frozenset[Listener] | Unknown = frozenset()
    ports: tuple[Port, ...] | Unknown = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. ``trouble``: what is wrong with the configuration file, a line each; then it is the default one.

    ``begin``: how one has an agent.
    """

    machine: Machine
    state: State
    config: Configuration = field(default_factory=Configuration)
    trouble: tuple[str, ...] = ()
    agent: Agent = field(default_factory=Agent)
    begin: str = ""
    places: tuple[Place, ...] = ()
