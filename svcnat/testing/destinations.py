"""What a test means by ``back-end:80``: the address, port and protocol behind the name of a service, pod or host.

Pure: it looks into objects that were read, and sends nothing. Names are those of the objects, not the cluster's DNS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from svcnat.errors import UsageError
from svcnat.model.objects import Pod, Service, ServicePort
from svcnat.model.pods import addresses_of
from svcnat.model.services import cluster_ips_of

_FORM = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[^:]+))?")
_FAMILY = {4: "IPv4", 6: "IPv6"}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a flow goes; `text` is what was asked for."""

    text: str
    address: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.text} ({self.address}, {self.protocol} port {self.port})"


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that has a name and addresses; `hosts` are nodes and clients."""

    services: Sequence[Service]
    pods: Sequence[Pod]
    hosts: Mapping[str, tuple[str, ...]]
    namespace: str = "default"

    def resolve(self, text: str, protocol: str | None = None, family: int | None = None) -> Destination:
        """Find ``NAME:PORT``, where NAME is an address, a service, a pod or a host, in that order.

        ``[ADDRESS]:PORT`` for IPv6; ``NAME.NAMESPACE`` for another namespace; ``service/NAME``, ``pod/NAME`` if two
        have the same name. A service's port may be a name, or left out if it has one; its protocol is its own.

        Raises:
            UsageError: there is nothing of that name, or it has no such port or no address of that `family`.

        """
        form = _FORM.fullmatch(text)
        if not form:
            raise UsageError(f"{text!r} is no destination: NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT")
        name, port = form["bracketed"] or form["name"], form["port"] or ""
        if _is_address(name):
            return Destination(text, name, _number(text, port), protocol or "TCP")
        kind, slash, bare = name.rpartition("/")
        found = [each for each in self._named(bare) if not slash or type(each).__name__.lower() == kind.lower()]
        for each in found:
            if isinstance(each, Service):
                chosen = _port_of(each, port, protocol)
                address = _of_family(f"service {bare}", cluster_ips_of(each.spec), family)
                return Destination(text, address, chosen.port or 0, chosen.protocol or "TCP")
            return Destination(
                text, _of_family(f"pod {bare}", addresses_of(each), family), _number(text, port), protocol or "TCP"
            )
        if bare in self.hosts and not slash:
            return Destination(text, _of_family(bare, self.hosts[bare], family), _number(text, port), protocol or "TCP")
        raise UsageError(f"{text}: there is no {kind or 'service, pod, node or client'} {bare!r}; there are {self}")

    def _named(self, name: str) -> list[Service | Pod]:
        """Services first; a name may be followed by its namespace, as in the names of cluster DNS."""
        bare, _, rest = name.partition(".")
        places = [(self.namespace, name), (rest.removesuffix(".svc.cluster.local").removesuffix(".svc"), bare)]
        return [
            each
            for objects in (self.services, self.pods)
            for each in objects
            if (each.metadata.namespace, each.metadata.name) in places
        ]

    def __str__(self) -> str:
        return (
            f"services: {_listed(self.services)}; pods: {_listed(self.pods)}; "
            f"nodes and clients: {', '.join(self.hosts) or 'none'}"
        )


def _listed(objects: Iterable[Service | Pod]) -> str:
    return ", ".join(each.metadata.qualified_name for each in objects) or "none"


def _port_of(service: Service, wanted: str, protocol: str | None) -> ServicePort:
    ports = [each for each in service.spec.ports if protocol in (None, each.protocol)]
    fitting = [each for each in ports if wanted in {str(each.port), each.name}] if wanted else ports
    if not fitting or (not wanted and len(fitting) > 1):
        has = ", ".join(f"{each.port}/{each.protocol}" + f" {each.name}".rstrip() for each in service.spec.ports)
        asked = f"no port {wanted}" if wanted else "more than one port, or none"
        asked += f" of {protocol}" if protocol else ""
        raise UsageError(
            f"service {service.metadata.name} has {asked}: it has {has or 'none'}; "
            "to try what is not there, give its address"
        )
    return fitting[0]


def _of_family(what: str, addresses: Sequence[str], family: int | None) -> str:
    for address in addresses:
        if family in (None, ip_address(address).version):
            return address
    wanted = f"{_FAMILY.get(family, str(family))} " if family else ""
    raise UsageError(f"{what} has no {wanted}address: it has {', '.join(addresses) or 'none'}")


def _number(text: str, port: str) -> int:
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"{text}: a port number is missing: only ports of services have names")
    return int(port)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
