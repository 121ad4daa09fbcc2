"""Which tracked flows no longer go where the rules would send them, and their removal.

Rules decide about the first packet of a flow only: what was decided lives on in connection tracking, for UDP as long
as packets come. When to look, and at which frontends, is the caller's decision. Source of the rule: kube-proxy's
conntrack clean-up, which compares addresses only; here the port counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping

from svcnat.agent.departures import Departures
from svcnat.kernel.conntrack import Conntrack, Flow
from svcnat.ruleset.endpoints import Backend, Family

Frontends = Mapping[tuple[Family, str, str, int], Container[Backend]]  # (family, address, protocol, port): serving
NodePorts = Mapping[tuple[Family, str, int], Container[Backend]]  # (family, protocol, port): serving

# A question about one frontend passes over the whole table once, as long as it takes to receive so many flows.
_FLOWS_A_QUESTION = 3000


def stale(flow: Flow, frontends: Frontends, node_ports: NodePorts, node_addresses: Collection[str]) -> bool:
    """True if the flow's client talks to a service, and something else than a serving endpoint answers.

    `frontends` and `node_ports` map a service's addresses and ports to the endpoints that may keep flows; none at all
    makes every flow stale. Node ports count on `node_addresses` alone, and only where no frontend has that port: the
    order in which the rules look. A flow that began while the rules were absent is answered by the frontend itself
    and so is stale, unless the frontend is its own endpoint (a host-network pod behind the node's address).
    """
    serving = frontends.get((flow.family, flow.destination, flow.protocol, flow.destination_port))
    if serving is None and flow.destination in node_addresses:
        serving = node_ports.get((flow.family, flow.protocol, flow.destination_port))
    return serving is not None and (flow.reply_source, flow.reply_source_port) not in serving


def clean(
    conntrack: Conntrack,
    frontends: Frontends,
    node_ports: NodePorts,
    node_addresses: Collection[str],
) -> int:
    """Delete the stale flows of these frontends and node ports; the rules must be in place already.

    The time follows the number of frontends given, and never exceeds that of listing all flows by much.

    Returns:
        How many flows there were to delete.

    Raises:
        KernelError: the kernel refused.

    """
    asked: set[tuple[Family, str, str | None, int]] = set()
    for family, address, protocol, port in frontends:
        # Of IPv6 the kernel can filter by port only: one question for all addresses.
        asked.add((family, protocol, address if family == "ip" else None, port))
    asked.update((family, protocol, None, port) for family, protocol, port in node_ports)
    known = conntrack.count() if asked else 0
    if not known:
        return 0
    if len(asked) > 1 + known // _FLOWS_A_QUESTION:
        found = _all(conntrack, {(family, protocol) for family, protocol, _, _ in asked})
    else:
        found = _few(conntrack, asked)
    return conntrack.delete([flow for flow in found if stale(flow, frontends, node_ports, node_addresses)])


def clean_in(netns: str | None, left: Departures, node_addresses: Collection[str]) -> int:
    """As :func:`clean`, in a network namespace by name or path, which is entered only if there is something to do."""
    if not left:
        return 0
    with Conntrack(netns) as conntrack:
        return clean(conntrack, left.frontends, left.node_ports, node_addresses)


class Cleaner:
    """:func:`clean`, again and again, in one network namespace by name or path.

    Its socket is opened when there is something to do, and stays open. The kernel lets nobody close one of netfilter's
    before it has destroyed what the last commit removed (nft_rcv_nl_event), which takes ten times as long as a change
    of UDP endpoints does otherwise.
    """

    def __init__(self, netns: str | None, tracker: Callable[[str | None], Conntrack] = Conntrack) -> None:
        self._netns, self._tracker = netns, tracker
        self._conntrack: Conntrack | None = None

    def clean(self, left: Departures, node_addresses: Collection[str]) -> None:
        """Delete stale flows; errors as :func:`clean`, after which the socket is another one."""
        if not left:
            return
        try:
            if self._conntrack is None:
                self._conntrack = self._tracker(self._netns)
            clean(self._conntrack, left.frontends, left.node_ports, node_addresses)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket; another call of :meth:`clean` opens one again."""
        if self._conntrack:
            self._conntrack.close()
            self._conntrack = None


def _all(conntrack: Conntrack, kinds: Collection[tuple[Family, str]]) -> Iterator[Flow]:
    if len(kinds) == 1:
        ((family, protocol),) = kinds
        return conntrack.flows(family, protocol)
    return (flow for flow in conntrack.flows() if (flow.family, flow.protocol) in kinds)


def _few(conntrack: Conntrack, asked: Collection[tuple[Family, str, str | None, int]]) -> Iterator[Flow]:
    for family, protocol, address, port in asked:
        yield from conntrack.flows(family, protocol, destination=address, port=port)
