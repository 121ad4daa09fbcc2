"""From a configuration and what a host looks like to the settings that its rules are compiled with.

Pure: what a host looks like is read by :mod:`svcnat.agent.host`, and what rules make of it is the ruleset's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from svcnat.model.addresses import canonical_network, parse_network
from svcnat.model.configuration import Configuration
from svcnat.ruleset.plan import Settings

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class Host:
    """What svcnat looks at in a network namespace; addresses and ranges are canonical text of both families.

    ``addresses``: its own, without loopback and link-local ones. ``primary``: at most one of a family, which its
    default route uses. ``routes``: destinations without the default ones, at least those that overlap the service
    ranges that are configured. ``bridges``: those that netfilter does not see.
    """

    addresses: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()


def settings_for(config: Configuration, host: Host, node: str, zone: str = "") -> Settings:
    """The settings of a node, by name, that is this host."""
    return Settings(
        node_name=node,
        zone=config.zone or zone,
        cluster_cidrs=tuple(map(str, config.cluster_networks)),
        masquerade_all=config.masquerade_all,
        addresses=host.addresses,
        node_port_addresses=node_port_addresses(config, host),
        localhost_node_ports=config.localhost_node_ports,
        announces=bool(config.load_balancer_interfaces),
        drop_cidrs=_drop_cidrs(config, host),
        bridges=() if config.bridge_masquerade == "off" else host.bridges,
        endpoint_counters={"on": True, "off": False}.get(config.endpoint_counters),
    )


def node_port_addresses(config: Configuration, host: Host) -> tuple[str, ...]:
    """The node's addresses that answer node ports: ``primary``, or those in the ranges that are configured.

    A range of a single address counts without asking the host, so that rules can be rendered for another one.
    Loopback answers only with localhostNodePorts. Source: KubeProxyConfiguration.nodePortAddresses, with the default
    of kube-proxy's nftables mode.
    """
    found: dict[str, None] = {}
    for text in config.node_port_addresses:
        network = parse_network(text)
        if text == "primary":
            found |= dict.fromkeys(host.primary)
        elif network is not None and network.num_addresses == 1:
            found[str(network[0])] = None
        elif network is not None:
            found |= dict.fromkeys(each for each in host.addresses if ip_address(each) in network)
    if config.localhost_node_ports:
        found |= dict.fromkeys(LOOPBACK.values())
    return tuple(found)


def _drop_cidrs(config: Configuration, host: Host) -> tuple[str, ...]:
    """The service ranges whose free addresses may be dropped: those configured that are nobody's real network."""
    if not config.service_cidr:
        return ()
    routed = [ip_network(route) for route in host.routes if canonical_network(route)]
    return tuple(
        str(mine)
        for mine in config.service_networks
        if not any(mine.version == other.version and mine.overlaps(other) for other in routed)
    )
