"""The names of a cluster, kept in step with its Services, EndpointSlices and Pods, and what they are answered with.

Source: Kubernetes DNS-Based Service Discovery, version 1.1.0; where it is silent, CoreDNS' kubernetes plugin. A name
exists if it has records, or if a name below it may have (RFC 8020): asked for a type that it has not, it is NOERROR
without records; every other name is NXDOMAIN. There are no wildcards: ``*`` is a label like any other. A headless
Service without ready endpoints does not exist (section 2.4.1).

A change costs what it changes: a Service's names are made when it, or one of its slices, is put. It asks nobody, knows
no clock, and no wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from svcnat.dns.answers import Answer, Data, Name, Record, Soa, Srv, Type
from svcnat.model.addresses import canonical
from svcnat.model.extensions import PROBE, PROBE_RESULTS, parse_probe_results
from svcnat.model.objects import Endpoint, EndpointSlice, Pod, Service
from svcnat.model.services import cluster_ips_of, has_cluster_ips

SCHEMA_VERSION = "1.1.0"
TTL = 5  # seconds: CoreDNS' default for a cluster
_VERSION_TTL = 28800
_MOST_ALIASES = 8  # one ExternalName may lead to another
_WHOLE_WEIGHT = 100
_REVERSE = (("in-addr", "arpa"), ("ip6", "arpa"))
_DNS_SERVICE = ("kube-system", "kube-dns")
_ANY_OF: tuple[Type, ...] = ("A", "AAAA", "CNAME", "SRV", "PTR", "TXT", "SOA", "NS")

Identity = tuple[str, str]
"""Namespace and name."""
_Types = Mapping[Type, tuple[Data, ...]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a Service brings: names below its own, () being its own, and the names of addresses."""

    names: Mapping[Name, _Types] = field(default_factory=dict)
    addresses: tuple[tuple[str, Name], ...] = ()


@dataclass(frozen=True, slots=True)
class _Host:
    """A ready endpoint: its label, where it is, and whether somebody chose that label."""

    label: str
    address: str
    chosen: bool


class Records:
    """All names of one cluster. Law: whatever was put and removed before, equal objects give equal records."""

    def __init__(self, domain: str = "cluster.local", *, ttl: int = TTL, serial: int = 1) -> None:
        """Know no name but the domain's own; `serial` is the SOA's, and grows with every change."""
        self.domain: Name = tuple(domain.strip(".").lower().split("."))
        self.serial = serial
        self._ttl = ttl
        self._services: dict[str, dict[str, _Entry]] = {}
        self._pods: set[Identity] = set()
        self._pods_in: Counter[str] = Counter()
        self._reverse: dict[Name, dict[Identity, tuple[Name, ...]]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and self._all() == other._all()

    __hash__ = None  # type: ignore[assignment]

    def _all(self) -> tuple[object, ...]:
        return self.domain, self._ttl, self._services, self._pods, self._pods_in, self._reverse

    # --- what is known ---------------------------------------------------------------------------------------

    def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Take a Service as it is now, with the EndpointSlices that name it, in any order."""
        place = (service.metadata.namespace, service.metadata.name)
        entry = _entry(service, slices)
        old = self._services.get(place[0], {}).get(place[1])
        if entry == old:
            return
        if old:
            self._forget_addresses(place, old)
        self._services.setdefault(place[0], {})[place[1]] = entry
        for address, name in entry.addresses:
            named = self._reverse.setdefault(_reverse_name(address), {})
            named[place] = (*named.get(place, ()), name)
        self.serial += 1

    def remove(self, place: Identity) -> None:
        """Forget a Service; one that is not known is fine."""
        services = self._services.get(place[0], {})
        if place[1] in services:
            self._forget_addresses(place, services.pop(place[1]))
            if not services:
                del self._services[place[0]]
            self.serial += 1

    def put_pod(self, pod: Pod) -> None:
        """Take a Pod: its namespace exists."""
        place = (pod.metadata.namespace, pod.metadata.name)
        if place not in self._pods:
            self._pods.add(place)
            self._pods_in[place[0]] += 1
            self.serial += self._pods_in[place[0]] == 1

    def remove_pod(self, place: Identity) -> None:
        """Forget a Pod; one that is not known is fine."""
        if place in self._pods:
            self._pods.remove(place)
            self._pods_in[place[0]] -= 1
            if not self._pods_in[place[0]]:
                del self._pods_in[place[0]]
                self.serial += 1

    def _forget_addresses(self, place: Identity, entry: _Entry) -> None:
        for name in {_reverse_name(address) for address, _ in entry.addresses}:
            named = self._reverse[name]
            del named[place]
            if not named:
                del self._reverse[name]

    # --- answers ---------------------------------------------------------------------------------------------

    def answer(self, name: Name, type_: str) -> Answer | None:
        """Answer a question about a name in lower case; None: it is not ours to answer. ``ANY`` is any one type."""
        if name[-2:] in _REVERSE:
            return self._answer_reverse(name, type_)
        if not self._is_ours(name):
            return None
        records: list[Record] = []
        owner = name
        for _ in range(_MOST_ALIASES):
            types = self._find(owner[: -len(self.domain)])
            if types is None:
                return Answer("NXDOMAIN", tuple(records), (self._soa(),))
            found = self._chosen(types, type_, owner)
            records += found
            if not found:
                return Answer("NOERROR", tuple(records), (self._soa(),))
            if found[0].type != "CNAME" or type_ in ("CNAME", "ANY"):
                return Answer("NOERROR", tuple(records), (), tuple(self._beside(found)))
            target = found[0].data
            assert isinstance(target, tuple)
            owner = tuple(label.lower() for label in target)
            if any(each.owner == owner for each in records):
                break  # a circle: whoever made it sees it, each record once (RFC 2181, section 5)
            if not self._is_ours(owner):
                return Answer("NOERROR", tuple(records), elsewhere=target)
        return Answer("NOERROR", tuple(records))

    def _is_ours(self, name: Name) -> bool:
        return name[-len(self.domain) :] == self.domain

    def _answer_reverse(self, name: Name, type_: str) -> Answer | None:
        found = self._reverse.get(name)
        if found is None:
            return None
        if type_ not in ("PTR", "ANY"):
            return Answer()
        targets = [(*each, place[1], place[0], "svc", *self.domain) for place in sorted(found) for each in found[place]]
        return Answer(records=tuple(Record(name, "PTR", self._ttl, target) for target in targets))

    def _chosen(self, types: _Types, type_: str, owner: Name) -> list[Record]:
        """The records of a type; of an alias, the CNAME whatever the type; of any type, those of one (RFC 8482)."""
        if type_ == "ANY":
            type_ = next((each for each in _ANY_OF if types.get(each)), "")
        kind: Type
        for kind in _ANY_OF:
            if kind in types and (kind in (type_, "CNAME")):
                ttl = _VERSION_TTL if kind == "TXT" else self._ttl
                return [Record(owner, kind, ttl, self._absolute(data, owner)) for data in types[kind]]
        return []

    def _absolute(self, data: Data, owner: Name) -> Data:
        """The data as seen from outside: targets of SRV are kept relative to their Service."""
        if isinstance(data, Srv):
            service = owner[-(len(self.domain) + 3) :]
            return Srv(data.weight, data.port, (*data.target, *service), data.priority)
        return data

    def _beside(self, found: Iterable[Record]) -> Iterator[Record]:
        """The addresses of what SRV records point to, which saves the client a question."""
        targets = dict.fromkeys(each.data.target for each in found if isinstance(each.data, Srv))
        for target in targets:
            types = self._find(target[: -len(self.domain)]) or {}
            kinds: tuple[Type, ...] = ("A", "AAAA")
            for kind in kinds:
                yield from (Record(target, kind, self._ttl, data) for data in types.get(kind, ()))

    def _find(self, name: Name) -> _Types | None:
        """What there is of a name below the domain; None if there is no such name."""
        match name:
            case ():
                return {"SOA": (self._soa_data(),), "NS": (self._server(),)}
            case ("dns-version",):
                return {"TXT": (SCHEMA_VERSION,)}
            case ("dns",) | ("svc",) | ("pod",):
                return {}
            case ("ns", "dns"):
                entry = self._services.get(_DNS_SERVICE[0], {}).get(_DNS_SERVICE[1], _Entry())
                return {kind: data for kind, data in entry.names.get((), {}).items() if kind in ("A", "AAAA")}
            case (namespace, "svc" | "pod"):
                return {} if self._has_namespace(namespace) else None
            case (*below, service, namespace, "svc"):
                found = self._services.get(namespace, {}).get(service)
                return found.names.get(tuple(below)) if found else None
            case (address, namespace, "pod"):
                return _pod_of(address) if self._has_namespace(namespace) else None
        return None

    def _has_namespace(self, name: str) -> bool:
        """Tell whether anything that can be named lives in a namespace."""
        return name in self._services or name in self._pods_in

    def _server(self) -> Name:
        return ("ns", "dns", *self.domain)

    def _soa_data(self) -> Soa:
        return Soa(self._server(), ("hostmaster", *self.domain), self.serial & 0xFFFFFFFF, self._ttl)

    def _soa(self) -> Record:
        return Record(self.domain, "SOA", self._ttl, self._soa_data())


# --- what a Service brings -----------------------------------------------------------------------------------


def _entry(service: Service, slices: Iterable[EndpointSlice]) -> _Entry:
    spec = service.spec
    if spec.type == "ExternalName":
        target = (spec.external_name or "").rstrip(".")
        # An address is no name: Kubernetes' own words are that it is not resolved.
        alias: _Types = {"CNAME": (tuple(target.split(".")),)} if target and not canonical(target) else {}
        return _Entry({(): alias})
    pieces = sorted(slices, key=lambda each: each.metadata.name)
    probed = PROBE in service.metadata.annotations
    found = [(piece, _hosts(piece, probed=probed, all_=bool(spec.publish_not_ready_addresses))) for piece in pieces]
    if has_cluster_ips(spec):
        return _of_cluster_ips(service, found)
    return _headless(found)


def _of_cluster_ips(service: Service, found: Iterable[tuple[EndpointSlice, list[_Host]]]) -> _Entry:
    """Section 2.3, and the endpoints to which somebody gave names."""
    addresses = [address for each in cluster_ips_of(service.spec) if (address := canonical(each))]
    names: dict[Name, dict[Type, tuple[Data, ...]]] = {(): _typed(addresses)}
    for port in service.spec.ports:
        record = Srv(_WHOLE_WEIGHT, port.port or 0, ())
        _add_srv(names, port.name, port.protocol, (record,))
    named = {host for _, hosts in found for host in hosts if host.chosen}
    _add_hosts(names, named)
    back: list[tuple[str, Name]] = [(address, ()) for address in addresses]
    return _Entry(names, (*back, *_addresses_of(named)))


def _headless(found: list[tuple[EndpointSlice, list[_Host]]]) -> _Entry:
    """Section 2.4."""
    everyone = {host for _, hosts in found for host in hosts}
    if not everyone:
        return _Entry()
    # Who has a name that was chosen needs no other for the same address.
    chosen = {host.address for host in everyone if host.chosen}
    everyone = {host for host in everyone if host.chosen or host.address not in chosen}
    names: dict[Name, dict[Type, tuple[Data, ...]]] = {(): _typed({host.address for host in everyone})}
    _add_hosts(names, everyone)
    offered: dict[tuple[str, str], set[tuple[int, str]]] = {}
    for piece, hosts in found:
        for port in piece.ports:
            if port.port is not None:
                where = offered.setdefault((port.name or "", port.protocol or "TCP"), set())
                where |= {(port.port, host.label) for host in hosts if host in everyone}
    for (name, protocol), where in sorted(offered.items()):
        weight = max(1, _WHOLE_WEIGHT // max(1, len(where)))
        _add_srv(names, name, protocol, [Srv(weight, number, (label,)) for number, label in sorted(where)])
    return _Entry(names, tuple(_addresses_of(everyone)))


def _hosts(piece: EndpointSlice, *, probed: bool, all_: bool) -> list[_Host]:
    """The ready endpoints of a slice, `all_` counting as ready; whoever failed a probe that is asked for is not."""
    if piece.address_type not in ("IPv4", "IPv6"):
        return []
    text = piece.metadata.annotations.get(PROBE_RESULTS) if probed else None
    results = parse_probe_results(text) if text else {}
    found = []
    for each in piece.endpoints:
        address = canonical(each.addresses[0]) if each.addresses else None
        if address and (all_ or (each.conditions.ready is not False and results.get(address, True))):
            found.append(_Host(_label_of(each, address), address, bool(each.hostname)))
    return found


def _label_of(endpoint: Endpoint, address: str) -> str:
    """What an endpoint is called: as somebody chose, or after its address, as CoreDNS does."""
    return (endpoint.hostname or address.replace(".", "-").replace(":", "-")).lower()


def _add_hosts(names: dict[Name, dict[Type, tuple[Data, ...]]], hosts: Iterable[_Host]) -> None:
    addresses: dict[str, set[str]] = {}
    for host in hosts:
        addresses.setdefault(host.label, set()).add(host.address)
    for label, found in addresses.items():
        names[(label,)] = _typed(found)


def _add_srv(
    names: dict[Name, dict[Type, tuple[Data, ...]]], name: str, protocol: str | None, records: Iterable[Data]
) -> None:
    """Name a port; the Service's own name has the records of all its ports, as CoreDNS has it."""
    records = tuple(records)
    names[()]["SRV"] = (*names[()].get("SRV", ()), *records)
    if name and records:
        below = f"_{(protocol or 'TCP').lower()}"
        names.setdefault((below,), {})
        names[f"_{name.lower()}", below] = {"SRV": records}


def _addresses_of(hosts: Iterable[_Host]) -> Iterator[tuple[str, Name]]:
    for host in sorted(hosts, key=lambda each: (_number(each.address), not each.chosen, each.label)):
        yield host.address, (host.label,)


def _typed(addresses: Iterable[str]) -> dict[Type, tuple[Data, ...]]:
    """Addresses as A and AAAA, each in the order of numbers."""
    ordered = sorted(set(addresses), key=_number)
    four: tuple[Data, ...] = tuple(each for each in ordered if ":" not in each)
    six: tuple[Data, ...] = tuple(each for each in ordered if ":" in each)
    types: dict[Type, tuple[Data, ...]] = {}
    if four:
        types["A"] = four
    if six:
        types["AAAA"] = six
    return types


def _pod_of(label: str) -> _Types | None:
    """Section 2.6: an address with dashes, whether or not a Pod has it."""
    address = canonical(label.replace("-", ".")) or canonical(label.replace("-", ":"))
    return _typed((address,)) if address and "." not in label and ":" not in label else None


def _number(address: str) -> int:
    return int(ip_address(address))


def _reverse_name(address: str) -> Name:
    return tuple(ip_address(address).reverse_pointer.split("."))
