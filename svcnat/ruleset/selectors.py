"""Selector chains: where a frontend's verdict sends a packet, to be translated to an endpoint.

A chain is made from a *shape* (protocol, scheduler, number of slots, ...), never from a Service, so that services of
one shape share it. Four things need a chain of a service port's own, because the kernel keeps state for it: affinity,
round robin, and the two limits; their shapes carry an ``ident``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from svcnat.model.extensions import Rate, Scheduler
from svcnat.ruleset.endpoints import Backend, Family
from svcnat.ruleset.layout import ADDRESS_TYPE
from svcnat.ruleset.nouns import (
    Chain,
    Dnat,
    DnatToPair,
    Drop,
    Goto,
    In,
    Is,
    Learned,
    OverLimit,
    Return,
    Rule,
    Set,
    Update,
)
from svcnat.ruleset.plan import Settings

# The hash of a client must not change when the rules are loaded again: without a seed, nft takes a random one.
_SEED = "seed 0x2a"
_DYNAMIC_SIZE = 65535  # clients; a full map lets traffic flow without affinity, and recovers
_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


@dataclass(frozen=True, slots=True)
class Selector:
    """Pick a slot, translate to the endpoint in it.

    ``node_port``: the key has no address. ``local``: outsiders only get endpoints of this node; pods and the node go
    ``inside``. No slots with ``local`` means that outsiders are dropped. ``ident`` only for round-robin.
    """

    protocol: str
    scheduler: Scheduler
    slots: int
    node_port: bool = False
    local: bool = False
    ident: str = ""

    @property
    def name(self) -> str:
        """``tcp-random-3``, ``nodeport-udp-local-maglev-1021``, ``tcp-local-0``, ``tcp-round-robin-3-1f2e3d``."""
        parts = (
            "nodeport" if self.node_port else "",
            self.protocol,
            "local" if self.local else "",
            self.scheduler if self.slots else "",
            str(self.slots),
            self.ident,
        )
        return "-".join(part for part in parts if part)

    def chains(self, family: Family, settings: Settings) -> Iterator[Chain]:
        """The chain itself."""
        rules = inside(family, settings, node_port=self.node_port) if self.local else []
        yield Chain(self.name, (*rules, *self._pick(family)))

    def sets(self, family: Family) -> Iterator[Set]:  # noqa: ARG002 - every shape is asked
        """No set of its own."""
        yield from ()

    def _pick(self, family: Family) -> Iterator[Rule]:
        if not self.slots:
            yield Rule((), Drop(), comment="no endpoint on this node")
            return
        fields = (*(() if self.node_port else (f"{family} daddr",)), f"{self.protocol} dport")
        backends = f"{'local-' if self.local else ''}{'nodeport-' if self.node_port else ''}backends-{self.protocol}"
        how, comment = self._draw(family)
        yield Rule((), Dnat(family, (*fields, how), backends), comment=comment)
        if self.slots > 1:
            # The lookups of one packet are not one snapshot: while N shrinks, it can meet the old frontends (mod N)
            # and the new backends (fewer slots). Slot 0 exists as long as there is any endpoint.
            yield Rule(
                (),
                Dnat(family, (*fields, "numgen random mod 1"), backends),
                comment="the set of endpoints shrank under this packet",
            )

    def _draw(self, family: Family) -> tuple[str, str]:
        match self.scheduler:
            case "random":
                return (
                    f"numgen random mod {self.slots}",
                    f"each of {self.slots} slots with probability 1/{self.slots}",
                )
            case "round-robin":
                return f"numgen inc mod {self.slots}", f"the next of {self.slots} slots"
            case "source-hash":
                return f"jhash {family} saddr mod {self.slots} {_SEED}", "a client keeps its slot"
            case "maglev":  # pragma: no branch - the last there is
                source = f"{family} saddr . {self.protocol} sport"
                return f"jhash {source} mod {self.slots} {_SEED}", "a flow's slot in the maglev table"


def inside(family: Family, settings: Settings, *, node_port: bool) -> list[Rule]:
    """Policy Local: pods and the node use all endpoints (kube-proxy's short circuit for internal traffic)."""
    target = "inside-nodeports" if node_port else "inside"
    return [
        *(
            Rule((Is(f"{family} saddr", cidr),), Goto(target), comment="a pod of this cluster")
            for cidr in settings.pod_ranges(family)
        ),
        Rule((Is("fib saddr type", "local"),), Goto(target), comment="the node itself"),
    ]


@dataclass(frozen=True, slots=True)
class Affine:
    """Send a client where it went before (sessionAffinity ClientIP); where it is new, go on to ``inner``.

    Clients are learned after translation (:class:`Learner`), so that only what really happened is remembered.
    ``local``: only endpoints of this node may be remembered.
    """

    ident: str
    inner: Selector
    local: bool

    @property
    def name(self) -> str:
        """``affinity-1f2e3d-tcp-random-3``."""
        near = "-here" if self.local and not self.inner.local else ""
        return f"affinity-{self.ident}{near}-{self.inner.name}"

    def chains(self, family: Family, settings: Settings) -> Iterator[Chain]:
        """The chain itself, and the inner selector's."""
        inner, source = self.inner, f"{family} saddr"
        maps = affinity_maps(family, self.ident, local=self.local)
        dnat = Dnat(family, (source,), maps[0]) if family == "ip" else DnatToPair(family, source, *maps)
        rules = inside(family, settings, node_port=inner.node_port) if inner.local else []
        yield Chain(
            self.name,
            (
                *rules,
                Rule((Is("meta l4proto", inner.protocol),), dnat, comment="a client that was here before"),
                Rule((), Goto(inner.name)),
            ),
        )
        yield from inner.chains(family, settings)

    def sets(self, family: Family) -> Iterator[Set]:
        """No set of its own: the maps are the :class:`Learner`'s."""
        return self.inner.sets(family)


@dataclass(frozen=True, slots=True)
class Learner:
    """Remember where a client of a service port went, for ``seconds`` from its newest connection.

    Two memories: of all endpoints, and of this node's, for policy Local: an outsider who learned a remote endpoint
    through the cluster IP must not be sent there, unmasqueraded, by the load balancer's. ``only_local``: endpoints that
    policy Local chooses and others do not, since they terminate or are meant for another zone.
    """

    ident: str
    protocol: str
    seconds: int
    local: bool
    only_local: tuple[Backend, ...] = ()

    @property
    def name(self) -> str:
        """``learn-1f2e3d``."""
        return f"learn-{self.ident}"

    def chains(self, family: Family, settings: Settings) -> Iterator[Chain]:  # noqa: ARG002 - every shape is asked
        """The chain itself."""
        rules = list(self._rules(family, local=True)) if self.local else []
        for address, port in self.only_local if self.local else ():
            endpoint = Is(f"{family} daddr", address), Is(f"{self.protocol} dport", str(port))
            rules.append(Rule(endpoint, Return(), comment="not for everyone"))
        yield Chain(self.name, (*rules, *self._rules(family, local=False)))

    def sets(self, family: Family) -> Iterator[Set]:
        """The maps from client to endpoint."""
        address = ADDRESS_TYPE[family]
        datas: tuple[tuple[str, ...], ...] = (
            ((address, "inet_service"),) if family == "ip" else ((address,), ("inet_service",))
        )
        for local in (False, True)[: 1 + self.local]:
            for name, data in zip(affinity_maps(family, self.ident, local=local), datas, strict=True):
                yield Set(
                    name,
                    key=address,
                    fields=(address,),
                    data=" . ".join(data),
                    data_fields=data,
                    size=_DYNAMIC_SIZE,
                    flags=("dynamic", "timeout"),
                    timeout=86400,
                )

    def learned(self, family: Family, cluster: frozenset[Backend], local: frozenset[Backend]) -> Iterator[Learned]:
        """Which endpoints the memories may hold."""
        yield Learned(affinity_maps(family, self.ident, local=False), cluster)
        if self.local:
            yield Learned(affinity_maps(family, self.ident, local=True), local)

    def _rules(self, family: Family, *, local: bool) -> Iterator[Rule]:
        protocol = Is("meta l4proto", self.protocol)
        endpoint = (f"{family} daddr", f"{self.protocol} dport")
        parts = (endpoint,) if family == "ip" else ((endpoint[0],), (endpoint[1],))
        here = In((f"{family} daddr", "meta l4proto", "th dport"), "local-endpoints")
        for name, data in zip(affinity_maps(family, self.ident, local=local), parts, strict=True):
            yield Rule(
                (protocol, here) if local else (protocol,),
                Update(name, f"{family} saddr", self.seconds, data),
                comment=f"stay for {self.seconds} s" if not local else "on this node",
            )


def affinity_maps(family: Family, ident: str, *, local: bool) -> tuple[str, ...]:
    """The names of a memory's maps: one for IPv4; for IPv6 one for addresses and one for ports."""
    base = f"{'local-' if local else ''}affinity"
    return (f"{base}-{ident}",) if family == "ip" else (f"{base}-{ident}", f"{base}-port-{ident}")


@dataclass(frozen=True, slots=True)
class Limited:
    """Refuse a client that is over its limits; others go on to ``inner``. 0 and None are no limit.

    An element keeps the limit that it was made with, so every limit has a set of its own, and another limit begins with
    an empty one.
    """

    ident: str
    max_connections: int
    rate: Rate | None
    inner: Selector | Affine

    @property
    def name(self) -> str:
        """``limited-1f2e3d-tcp-random-3``."""
        return f"limited-{self.ident}-{self.inner.name}"

    def chains(self, family: Family, settings: Settings) -> Iterator[Chain]:
        """The chain itself, and the inner ones."""
        rules = []
        source = f"{family} saddr"
        if self.rate:
            limit = f"limit rate over {self.rate.count}/{_UNITS[self.rate.seconds]} burst {self.rate.count} packets"
            rules.append(
                Rule(
                    (OverLimit("update", self._rates(self.rate), source, limit),),
                    Goto("refuse"),
                    comment="connection-rate",
                )
            )
        if self.max_connections:
            rules.append(
                Rule(
                    (OverLimit("add", self._connections, source, f"ct count over {self.max_connections}"),),
                    Goto("refuse"),
                    comment="max-connections",
                )
            )
        yield Chain(self.name, (*rules, Rule((), Goto(self.inner.name))))
        yield from self.inner.chains(family, settings)

    def sets(self, family: Family) -> Iterator[Set]:
        """What each client has used up; the kernel forgets a client itself."""
        address = ADDRESS_TYPE[family]
        if self.rate:
            yield Set(
                self._rates(self.rate),
                key=address,
                fields=(address,),
                size=_DYNAMIC_SIZE,
                flags=("dynamic", "timeout"),
                timeout=2 * self.rate.seconds,
            )
        if self.max_connections:
            yield Set(self._connections, key=address, fields=(address,), size=_DYNAMIC_SIZE, flags=("dynamic",))
        yield from self.inner.sets(family)

    def _rates(self, rate: Rate) -> str:
        return f"rates-{self.ident}-{rate.count}-{_UNITS[rate.seconds]}"

    @property
    def _connections(self) -> str:
        return f"connections-{self.ident}-{self.max_connections}"


@dataclass(frozen=True, slots=True)
class Restricted:
    """Drop sources outside loadBalancerSourceRanges, before translation; the rest goes on to ``inner``."""

    inner: Selector | Affine | Limited

    @property
    def name(self) -> str:
        """``restricted-tcp-random-3``."""
        return f"restricted-{self.inner.name}"

    def chains(self, family: Family, settings: Settings) -> Iterator[Chain]:
        """The chain itself, and the inner ones."""
        fields = (f"{family} daddr", "meta l4proto", "th dport", f"{family} saddr")
        outside = Rule((In(fields, "source-ranges", negated=True),), Drop(), comment="loadBalancerSourceRanges")
        yield Chain(self.name, (outside, Rule((), Goto(self.inner.name))))
        yield from self.inner.chains(family, settings)

    def sets(self, family: Family) -> Iterator[Set]:
        """The inner ones."""
        return self.inner.sets(family)


Shape = Selector | Affine | Learner | Limited | Restricted
