"""The constant part of the ruleset: sets, maps and dispatch chains, which no Service changes.

ARCHITECTURE.md draws how a packet goes through it. Every name here is a contract with whoever reads ``nft list``.
NAT chains only: they see the first packet of a flow and may reject and drop (since Linux 5.9), so there is no filter
chain to clash with another tool's. Which elements a Service gets is :mod:`svcnat.ruleset.compile`'s subject.
"""

from __future__ import annotations

from svcnat.ruleset.nouns import (
    Chain,
    Dnat,
    Goto,
    Hook,
    In,
    Is,
    Jump,
    Masquerade,
    Reject,
    Return,
    Rule,
    Set,
    Vmap,
)
from svcnat.ruleset.plan import PROTOCOLS, Family, Settings

LAYOUT = 1  # raised when a newer svcnat cannot read, or must remake, what an older one left in the kernel

# A set of at least this many elements, doubled as needed. A declared size makes the kernel use the fixed hash table,
# four times faster to fill than the growing one (0.7 against 2.6 us an element, Linux 6.18).
SMALLEST_SIZE = 4096

ADDRESS_TYPE: dict[Family, str] = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}


def sets(family: Family) -> tuple[Set, ...]:
    """The sets and maps of one family's table, at their smallest size."""
    address = ADDRESS_TYPE[family]
    declared = [
        Set(
            "frontends",
            key=f"{address} . inet_proto . inet_service",
            fields=(address, "inet_proto", "inet_service"),
            data="verdict",
            data_fields=("verdict",),
            counter=True,
        ),
        Set("cluster-ips", key=address, fields=(address,)),
        Set("hairpins", key=f"{address} . {address}", fields=(address, address)),
    ]
    for protocol in PROTOCOLS:
        # A map for each protocol: a typeof of `th dport`, or one map for all keyed with meta l4proto, makes nft
        # misread rules that are added in a later transaction (nft 1.0.6 and 1.1.3).
        declared.append(
            Set(
                f"backends-{protocol}",
                key=f"{family} daddr . {protocol} dport . numgen random mod 65536",
                fields=(address, "inet_service", "slot"),
                data=f"{family} daddr . {protocol} dport",
                data_fields=(address, "inet_service"),
                typeof=True,
                counter=True,
            )
        )
        declared.append(
            Set(
                f"origins-{protocol}",
                key=f"{address} . inet_service",
                fields=(address, "inet_service"),
                data="verdict",
                data_fields=("verdict",),
            )
        )
    return tuple(declared)


def chains(family: Family, settings: Settings, origin: str) -> tuple[Chain, ...]:
    """The dispatch chains of one family's table; `origin` says in the ``about`` chain where the rules came from."""
    return (
        Chain("about", (Rule((), Return(), comment=f"svcnat layout {LAYOUT}, from {origin}"),)),
        Chain("nat-prerouting", (Rule((), Jump("services")),), Hook("prerouting", -100)),
        Chain("nat-output", (Rule((), Jump("services")),), Hook("output", -100)),
        # 99: before another tool's masquerade at srcnat (100), which would hide who the client was.
        Chain(
            "nat-postrouting",
            (Rule((Is("ct status", "dnat"),), Jump("translated")),),
            Hook("postrouting", 99),
        ),
        Chain(
            "services",
            (
                Rule(
                    (),
                    Vmap((f"{family} daddr", "meta l4proto", "th dport"), "frontends"),
                    comment="a service's address and port",
                ),
                Rule(
                    (In((f"{family} daddr",), "cluster-ips"),),
                    Goto("refuse"),
                    comment="another port of a cluster IP",
                ),
            ),
        ),
        Chain(
            "refuse",
            (
                # A reset is answered at once; ICMP is rate limited, and a TCP client waits for it.
                Rule((Is("meta l4proto", "tcp"),), Reject(tcp_reset=True)),
                Rule((), Reject()),
            ),
        ),
        Chain(
            "translated",
            (
                Rule(
                    (In((f"{family} saddr", f"{family} daddr"), "hairpins"),),
                    Masquerade(),
                    comment="an endpoint that reached itself must answer through this node",
                ),
                *(
                    Rule(
                        (Is("meta l4proto", protocol),),
                        Vmap((f"ct original {family} daddr", "ct original proto-dst"), f"origins-{protocol}"),
                    )
                    for protocol in PROTOCOLS
                ),
            ),
        ),
        Chain("masquerade-off-cluster", _off_cluster(family, settings)),
    )


def _off_cluster(family: Family, settings: Settings) -> tuple[Rule, ...]:
    if settings.masquerade_all:
        return (Rule((), Masquerade(), comment="masqueradeAll"),)
    ranges = settings.pod_ranges(family)
    if not ranges:
        return ()
    return (
        *(Rule((Is(f"{family} saddr", cidr),), Return(), comment="clusterCIDR") for cidr in ranges),
        Rule((), Masquerade(), comment="a client from outside the cluster"),
    )


def selector(family: Family, protocol: str, slots: int) -> Chain:
    """The chain that picks one of `slots` endpoints, each with probability exactly 1/slots.

    It serves every service port of its shape: the chain is made from the shape, never from a Service.
    """
    fields = (f"{family} daddr", f"{protocol} dport")
    backends = f"backends-{protocol}"
    pick = Rule(
        (),
        Dnat(family, (*fields, f"numgen random mod {slots}"), backends),
        comment=f"each of {slots} endpoints with probability 1/{slots}",
    )
    if slots == 1:
        return Chain(selector_name(protocol, slots), (pick,))
    # The lookups of one packet are not one snapshot: while N shrinks, it can meet the old frontends (mod N) and the
    # new backends (fewer slots). Slot 0 exists as long as there is any endpoint.
    first = Rule(
        (),
        Dnat(family, (*fields, "numgen random mod 1"), backends),
        comment="the set of endpoints shrank under this packet",
    )
    return Chain(selector_name(protocol, slots), (pick, first))


def selector_name(protocol: str, slots: int) -> str:
    """The name of :func:`selector`'s chain."""
    return f"{protocol}-random-{slots}"
