"""The constant part of the ruleset: sets, maps and dispatch chains, which no Service changes.

ARCHITECTURE.md draws how a packet goes through it. Every name here is a contract with whoever reads ``nft list``.
NAT chains only: they see the first packet of a flow and may reject and drop (since Linux 5.9), so there is no filter
chain to clash with another tool's (but for the guard of localhost node ports). The chains that Services send packets
to are :mod:`svcnat.ruleset.selectors`' subject, the elements :mod:`svcnat.ruleset.compile`'s.
"""

from __future__ import annotations

from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import (
    Chain,
    Drop,
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
from svcnat.ruleset.plan import PROTOCOLS, Settings, of_family

LAYOUT = 1  # raised when a newer svcnat must remake what an older one left in the kernel

# A set of at least this many elements, doubled as needed. A declared size makes the kernel use the fixed hash table,
# four times faster to fill than the growing one (0.7 against 2.6 us an element, Linux 6.18).
SMALLEST_SIZE = 4096

ADDRESS_TYPE: dict[Family, str] = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
GUARD = "guard"  # the chain that keeps others off the loopback
LINKS = "bridge-hairpins"  # the set whose fields are names of links
LOOPBACK: dict[Family, str] = {"ip": "127.0.0.0/8", "ip6": "::1"}


def sets(family: Family, *, endpoint_counters: bool = True) -> tuple[Set, ...]:
    """The sets and maps of one family's table, at their smallest size; endpoints may do without a counter each."""
    address = ADDRESS_TYPE[family]
    frontend, node_port = (address, "inet_proto", "inet_service"), ("inet_proto", "inet_service")
    return (
        _verdicts("frontends", frontend, counter=True),
        _verdicts("nodeports", node_port, counter=True),
        _verdicts("inside-frontends", frontend),
        _verdicts("inside-nodeports", node_port),
        _plain("cluster-ips", (address,)),
        _plain("nodeport-ips", (address,)),
        _plain("hairpins", (address, address)),
        _plain(LINKS, ("ifname", "ifname")),
        _plain("local-endpoints", frontend),
        _plain("unchosen", frontend),
        Set(
            "source-ranges",
            key=" . ".join((*frontend, address)),
            fields=(*frontend, f"{address}/prefix"),
            flags=("interval",),
        ),
        *(each for protocol in PROTOCOLS for each in _of_protocol(family, protocol, counter=endpoint_counters)),
    )


def _of_protocol(family: Family, protocol: str, *, counter: bool) -> tuple[Set, ...]:
    """Maps of one protocol.

    A map for each, keyed without it: a typeof of `th dport`, or one map keyed with meta l4proto, makes nft misread
    rules that are added in a later transaction (nft 1.0.6 and 1.1.3).
    """
    address = ADDRESS_TYPE[family]

    def backends(name: str, *fields: str) -> Set:
        parts = {"inet_service": f"{protocol} dport", address: f"{family} daddr"}
        return Set(
            f"{name}-{protocol}",
            key=" . ".join((*(parts[each] for each in fields), "numgen random mod 65536")),
            fields=(*fields, "slot"),
            data=f"{family} daddr . {protocol} dport",
            data_fields=(address, "inet_service"),
            typeof=True,
            counter=counter,
        )

    return (
        backends("backends", address, "inet_service"),
        backends("nodeport-backends", "inet_service"),
        backends("local-backends", address, "inet_service"),
        backends("local-nodeport-backends", "inet_service"),
        *(
            _verdicts(f"{name}-{protocol}", fields)
            for name, fields in (
                ("origins", (address, "inet_service")),
                ("nodeport-origins", ("inet_service",)),
                ("learners", (address, "inet_service")),
                ("nodeport-learners", ("inet_service",)),
            )
        ),
    )


def _plain(name: str, fields: tuple[str, ...]) -> Set:
    return Set(name, key=" . ".join(fields), fields=fields)


def _verdicts(name: str, fields: tuple[str, ...], *, counter: bool = False) -> Set:
    return Set(name, key=" . ".join(fields), fields=fields, data="verdict", data_fields=("verdict",), counter=counter)


def chains(family: Family, settings: Settings, origin: str) -> tuple[Chain, ...]:
    """The dispatch chains of one family's table; `origin` says in the ``about`` chain where the rules came from."""
    return (
        Chain("about", (Rule((), Return(), comment=f"svcnat layout {LAYOUT}, from {origin}"),)),
        *_guard(family, settings),
        Chain("nat-prerouting", (Rule((), Jump("services")),), Hook("prerouting", -100)),
        Chain("nat-output", (Rule((), Jump("services")),), Hook("output", -100)),
        # 99: before another tool's masquerade at srcnat (100), which would hide who the client was.
        Chain(
            "nat-postrouting",
            (Rule((Is("ct status", "dnat"),), Jump("translated")),),
            Hook("postrouting", 99),
        ),
        # Flows to endpoints on the node's own addresses end here, and never pass postrouting.
        Chain("nat-input", (Rule((Is("ct status", "dnat"),), Jump("learn")),), Hook("input", 100)),
        Chain("services", tuple(_services(family, settings))),
        Chain("inside", (Rule((), Vmap(_frontend(family), "inside-frontends")),)),
        Chain("inside-nodeports", (Rule((), Vmap(_NODE_PORT, "inside-nodeports")),)),
        Chain(
            "refuse",
            (
                # A reset is answered at once; ICMP is rate limited, and a TCP client waits for it.
                Rule((Is("meta l4proto", "tcp"),), Reject(tcp_reset=True)),
                Rule((), Reject()),
            ),
        ),
        Chain("translated", (Rule((), Jump("learn")), *_by_origin(family, "origins"))),
        Chain("learn", tuple(_by_origin(family, "learners"))),
        Chain("masquerade-all", (Rule((), Masquerade()),)),
        Chain("masquerade-off-cluster", (*_hairpins(family), *_off_cluster(family, settings))),
        Chain(
            "masquerade-node",
            (
                *_hairpins(family),
                Rule((Is("fib saddr type", "local"),), Masquerade(), comment="the node itself"),
            ),
        ),
    )


_NODE_PORT = ("meta l4proto", "th dport")


def _frontend(family: Family) -> tuple[str, ...]:
    return f"{family} daddr", "meta l4proto", "th dport"


def _services(family: Family, settings: Settings) -> list[Rule]:
    destination = f"{family} daddr"
    return [
        Rule((), Vmap(_frontend(family), "frontends"), comment="a service's address and port"),
        Rule((In((destination,), "nodeport-ips"),), Vmap(_NODE_PORT, "nodeports"), comment="a node port"),
        Rule((In((destination,), "cluster-ips"),), Goto("refuse"), comment="another port of a service's address"),
        *(
            Rule((Is(destination, cidr),), Drop(), comment="a service address that nobody has")
            for cidr in of_family(settings.drop_cidrs, family)
        ),
    ]


def _by_origin(family: Family, maps: str) -> list[Rule]:
    """Look up what a flow was sent to before it was translated, by protocol: first as an address, then a node port."""
    address, port = f"ct original {family} daddr", "ct original proto-dst"
    rules = []
    for protocol in PROTOCOLS:
        # ct original proto-dst has no type of its own: nft wants the protocol before it.
        known = Is("meta l4proto", protocol)
        rules += [
            Rule((known,), Vmap((address, port), f"{maps}-{protocol}")),
            Rule((known, In((address,), "nodeport-ips")), Vmap((port,), f"nodeport-{maps}-{protocol}")),
        ]
    return rules


def _hairpins(family: Family) -> tuple[Rule, ...]:
    return (
        Rule(
            (In((f"{family} saddr", f"{family} daddr"), "hairpins"),),
            Masquerade(),
            comment="an endpoint that reached itself must answer through this node",
        ),
        Rule(
            (In(("meta iifname", "meta oifname"), LINKS),),
            Masquerade(),
            comment="the answer would stay on the bridge, out of sight",
        ),
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


def _guard(family: Family, settings: Settings) -> tuple[Chain, ...]:
    """Keep packets from outside away from the node's loopback, which route_localnet opens (CVE-2020-8558)."""
    if not settings.localhost_node_ports:
        return ()
    rule = Rule(
        (Is("meta iifname", "lo", negated=True), Is(f"{family} daddr", LOOPBACK[family])),
        Drop(),
        comment="only this node may use its loopback",
    )
    return (Chain(GUARD, (rule,), Hook("prerouting", -300, "filter")),)
