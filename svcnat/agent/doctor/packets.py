"""The packets that services consist of, as other programs' chains meet them.

Pure. For each endpoint: what comes from each device that clients may be behind, what the host itself sends, and the
answers. Who the clients are is not known, so neither are their addresses.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from svcnat.agent.doctor.facts import Facts, Place, Spot, Wanted
from svcnat.agent.doctor.paper import Packet
from svcnat.kernel.foreign import Foreign
from svcnat.kernel.host import Address
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.plan import FAMILIES

_MOST_SPOTS = 64  # endpoints and frontends that are tried: others mostly meet the same rules
_MOST_DEVICES = 8
_NEW, _ESTABLISHED = 8, 2  # NF_CT_STATE_BIT of IP_CT_NEW and of IP_CT_ESTABLISHED
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_NFPROTO = {
    "ip": (2, 0x0800, 9, 12, 16),
    "ip6": (10, 0x86DD, 6, 8, 24),
}  # and where headers have protocol and addresses
_UNICAST, _LOCAL = 1, 2  # RTN_*
_CLIENT = 49999  # a port that a client may have: firewalls tell clients' ports from servers', not from each other
_TRACKED, _TRANSLATED = -200, -100  # NF_IP_PRI_CONNTRACK, _NAT_DST


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet on its way: in by a device ("": not known, or from this host) for a spot (None: any)."""

    packet: Packet
    device: str = ""
    spot: Spot | None = None


def _wanted(facts: Facts) -> Wanted:
    return facts.state.wanted if isinstance(facts.state.wanted, Wanted) else Wanted()


@dataclass(frozen=True, slots=True)
class Traffic:
    """The packets of one place."""

    facts: Facts
    place: Place

    def forwarded(self, family: Family, *, answers: bool = False) -> Iterator[Sent]:
        """What others send to endpoints elsewhere, after translation; or what the endpoints answer."""
        for spot in self._backends(family):
            if spot is None:
                yield Sent(self._packet(family, None, state=_NEW, translated=True))
                continue
            if spot.address in self._own():
                continue
            way, alone = self.way(spot)
            for device in self._devices(family):
                if device and device == way and alone:
                    continue  # behind that device there is nobody but the endpoint
                packet = (
                    self._packet(family, spot, way, device, _ESTABLISHED, translated=True, answer=True)
                    if answers
                    else self._packet(family, spot, device, way, _NEW, translated=True)
                )
                yield Sent(packet, device, spot)

    def taken(self, family: Family) -> Iterator[Sent]:
        """What others send to endpoints that are this host's own."""
        for spot in self._backends(family):
            if spot is not None and spot.address in self._own():
                for device in self._devices(family):
                    yield Sent(self._packet(family, spot, device, "", _NEW, translated=True, local=True), device, spot)

    def sent(self, family: Family) -> Iterator[Sent]:
        """What this host itself sends to endpoints elsewhere."""
        for spot in self._backends(family):
            if spot is not None and spot.address not in self._own():
                yield Sent(self._packet(family, spot, "", self.way(spot)[0], _NEW, translated=True), "", spot)

    def asked(self, family: Family, priority: int, *, own: bool = False) -> Iterator[Sent]:
        """What clients send, before translation; `own`: this host is the client."""
        state = _NEW if priority > _TRACKED else 0
        for spot in [each for each in _wanted(self.facts).frontends if each.family == family][:_MOST_SPOTS]:
            for address in (spot.address,) if spot.address else self._addresses(family):
                sent, local = replace(spot, address=address), address == "" or address in self._own()
                for device in ("",) if own else self._devices(family):
                    yield Sent(self._packet(family, sent, device, "", state, local=local), device, spot)

    def answered(self, family: Family) -> Iterator[Sent]:
        """What endpoints answer, before connection tracking sees it."""
        for spot in self._backends(family):
            if spot is not None and spot.address not in self._own():
                way = self.way(spot)[0]
                yield Sent(self._packet(family, spot, way, "", 0, answer=True), way, spot)

    def _backends(self, family: Family) -> list[Spot | None]:
        """The endpoints of a family; where there is nothing to serve yet, one that nothing is known of."""
        wanted = _wanted(self.facts)
        if not wanted.backends:
            return [] if wanted.lacks(family) else [None]
        return [*tried(wanted, family)]

    def _own(self) -> set[str]:
        return {each.address for each in self.place.addresses} if isinstance(self.place.addresses, tuple) else set()

    def _devices(self, family: Family) -> list[str]:
        """The devices that clients may be behind: those with an address. One that is not known if there is none."""
        return list(dict.fromkeys(each.device for each in self._global(family)))[:_MOST_DEVICES] or [""]

    def _addresses(self, family: Family) -> list[str]:
        """The addresses that node ports may answer at; one that is not known if there is none."""
        return [each.address for each in self._global(family)][:_MOST_DEVICES] or [""]

    def _global(self, family: Family) -> list[Address]:
        addresses = self.place.addresses if isinstance(self.place.addresses, tuple) else ()
        return [each for each in addresses if (each.family, each.scope) == (family, "global") and each.device != "lo"]

    def way(self, spot: Spot) -> tuple[str, bool]:
        """The device that leads to an address, "" if that is not known; and whether it leads to nothing else."""
        address, best = ip_address(spot.address), (-1, 0, "")
        for route in self.place.routes if isinstance(self.place.routes, tuple) else ():
            network = ip_network(route.destination)
            if route.usable and address in network:
                best = max(best, (network.prefixlen, -route.metric, route.device))
        return best[2], best[0] == address.max_prefixlen

    def _packet(
        self,
        family: Family,
        spot: Spot | None,
        device: str = "",
        way: str = "",
        state: int = 0,
        *,
        translated: bool = False,
        answer: bool = False,
        local: bool = False,
    ) -> Packet:
        number, kind, protocol, sender, receiver = _NFPROTO[family]
        fields = {"nfproto": bytes([number]), "protocol": struct.pack("!H", kind), "direction": bytes([answer])}
        headers: dict[tuple[str, int], bytes] = {}
        foreign = self.place.foreign
        for name, which in (("iif", device), ("oif", way)):
            if which:
                fields[f"{name}name"] = which.encode(errors="surrogateescape").ljust(16, b"\0")
                if isinstance(foreign, Foreign) and which in foreign.devices:
                    fields[name] = struct.pack("=I", foreign.devices[which])
        if not answer and (local or translated or (spot and spot.address)):
            fields["daddr type"] = struct.pack("=I", _LOCAL if local else _UNICAST)
        transport = _PROTOCOLS[spot.protocol] if spot else _PROTOCOLS["tcp"]
        fields["l4proto"] = headers["network", protocol] = bytes([transport])
        if spot:
            headers["transport", 0 if answer else 2] = struct.pack("!H", spot.port)
            headers["transport", 2 if answer else 0] = struct.pack("!H", _CLIENT)
            if spot.address:
                version = socket.AF_INET if family == "ip" else socket.AF_INET6
                headers["network", sender if answer else receiver] = socket.inet_pton(version, spot.address)
        return Packet(fields, headers, state, translated)


def tried(wanted: Wanted, family: Family) -> list[Spot]:
    """The endpoints whose packets are followed; the ways to them have to be known."""
    return [each for each in wanted.backends if each.family == family][:_MOST_SPOTS]


def families_of(chain_family: str) -> tuple[Family, ...]:
    """The families whose packets a chain of a table's family sees."""
    return tuple(each for each in FAMILIES if chain_family in ("inet", each))
