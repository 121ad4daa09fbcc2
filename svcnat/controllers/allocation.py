"""Which cluster addresses a Service gets: families, ranges, bands, and the choice within them.

It remembers nothing: a :class:`Pool` knows who holds which address, and where a search starts (at random in the store,
at a hash in stateless runs). Sources: core/v1 Service (ipFamilyPolicy, ipFamilies, clusterIPs), KEP-3070 (bands) and
kube-apiserver's ``pkg/registry/core/service/storage/alloc.go`` for everything else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from typing import Literal, Protocol

from msgspec.structs import replace

from svcnat.errors import ExhaustedError, Finding, ManifestError, SvcnatError, UsageError
from svcnat.model.addresses import canonical, family, parse_network
from svcnat.model.objects import Service, ServiceSpec

FamilyName = Literal["IPv4", "IPv6"]
HEADLESS = "None"

DEFAULT_SERVICE_CIDRS = ("10.96.0.0/12", "fd00:10:96::/112")


class Pool(Protocol):
    """Who holds which cluster address."""

    def claim(self, address: str, service: Service) -> bool:
        """Give `address` (canonical text) to the Service; False if another one holds it."""
        ...

    def release(self, address: str) -> None:
        """Take the address back; nothing happens if nobody holds it."""
        ...

    def draw(self, seed: str, bound: int) -> int:
        """Return a number from 0 to `bound` - 1; a World without randomness derives it from `seed`."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceRange:
    """The usable addresses of a service CIDR, as integers: first, last, and where the upper band begins."""

    cidr: str
    family: FamilyName
    first: int
    last: int
    upper: int

    @classmethod
    def parse(cls, cidr: str) -> ServiceRange:
        """Return the range of a CIDR; its lower band holds min(max(16, size/16), 256) addresses.

        Raises:
            UsageError: it is no CIDR, or has no usable address.

        """
        network = parse_network(cidr)
        if network is None:
            raise UsageError(f"service CIDR {cidr!r} is no IP range: write it like 10.96.0.0/12")
        first = int(network.network_address) + 1
        # IPv6 has no broadcast address, so its last one is usable.
        last = int(network.broadcast_address) - (network.version == 4)
        if first > last:
            raise UsageError(f"service CIDR {cidr} has no usable address: take a shorter prefix")
        size = network.num_addresses
        upper = first + (min(max(16, size // 16), 256) if size >= 16 else 0)
        return cls(str(network), "IPv4" if network.version == 4 else "IPv6", first, last, min(upper, last))

    @property
    def kubernetes(self) -> str:
        """The first address: that of ``default/kubernetes``."""
        return self._text(self.first)

    def __contains__(self, address: str) -> bool:
        name = family_name(address)
        return name == self.family and self.first <= _number(address) <= self.last

    def candidates(self, start: int) -> Iterator[str]:
        """Yield the addresses that nobody asked for, upper band first, from its address number `start` on.

        The first address (``kubernetes``) and the tenth (DNS, by custom) are only given on request.
        """
        begin = self.upper + start % (self.last - self.upper + 1)
        order = chain(range(begin, self.last + 1), range(self.upper, begin), range(self.first, self.upper))
        return (self._text(number) for number in order if number - self.first not in (0, 9))

    def _text(self, number: int) -> str:
        return str(IPv4Address(number) if self.family == "IPv4" else IPv6Address(number))


def parse_ranges(cidrs: Iterable[str]) -> tuple[ServiceRange, ...]:
    """Return the ranges of one or two service CIDRs; the first is that of the default family.

    Raises:
        UsageError: a CIDR is wrong, or two are of the same family.

    """
    ranges = tuple(ServiceRange.parse(cidr) for cidr in cidrs)
    if len({each.family for each in ranges}) != len(ranges) or not ranges:
        raise UsageError("service CIDRs: give one, or one of each address family")
    return ranges


def family_name(address: str) -> FamilyName:
    """Return the family of an address as Kubernetes spells it."""
    return "IPv6" if family(address) == 6 else "IPv4"


def _number(address: str) -> int:
    return int(IPv6Address(address) if family(address) == 6 else IPv4Address(address))


def has_addresses(spec: ServiceSpec) -> bool:
    """Tell whether a Service of this kind has cluster addresses: neither ExternalName nor headless."""
    return spec.type != "ExternalName" and HEADLESS not in (spec.cluster_ip, *spec.cluster_ips)


def addresses_of(service: Service) -> tuple[str, ...]:
    """Return the cluster addresses of a Service as written; none if it is headless or an ExternalName."""
    spec = service.spec
    if not has_addresses(spec):
        return ()
    return tuple(spec.cluster_ips) or ((spec.cluster_ip,) if spec.cluster_ip else ())


def allocate(service: Service, old: Service | None, ranges: tuple[ServiceRange, ...], pool: Pool) -> Service:
    """Return the Service with its families and cluster addresses; claim what it gains, release what it loses.

    What `old` held stays its own, even outside today's ranges.

    Raises:
        ManifestError: an address asked for is taken or outside the ranges, or a family is not to be had.
        ExhaustedError: a range is full.

    """
    service = with_families(service, old, ranges)
    held = {canonical(address) or address for address in (addresses_of(old) if old else ())}
    given: list[str] = []
    if has_addresses(service.spec):
        try:
            given.extend(_addresses(service, held, ranges, pool))  # What came before an error is in `given`.
        except SvcnatError:
            _release({canonical(address) or address for address in given} - held, pool)
            raise
        service = replace(service, spec=replace(service.spec, cluster_ip=given[0], cluster_ips=given))
    _release(held - {canonical(address) or address for address in given}, pool)
    return service


def _addresses(service: Service, held: Container[str], ranges: tuple[ServiceRange, ...], pool: Pool) -> Iterator[str]:
    """Claim and yield an address for each family, the one asked for or any; those held are the Service's already."""
    by_family: dict[str, ServiceRange] = {each.family: each for each in ranges}
    requested = addresses_of(service)
    for index, name in enumerate(service.spec.ip_families):
        asked = requested[index] if index < len(requested) else None
        if asked is None:
            yield _claim_any(service, by_family[name], pool)
        elif canonical(asked) in held:
            yield asked
        else:
            yield _claim_requested(service, asked, ranges, pool)


def _release(addresses: Iterable[str], pool: Pool) -> None:
    for address in addresses:
        pool.release(address)


def _claim_requested(service: Service, asked: str, ranges: tuple[ServiceRange, ...], pool: Pool) -> str:
    address = canonical(asked) or asked
    if not any(address in each for each in ranges):
        valid = " and ".join(each.cidr for each in ranges)
        reason = f"provided IP is not in the valid range. The range of valid IPs is {valid}"
    elif not pool.claim(address, service):
        reason = "provided IP is already allocated"
    else:
        return asked
    index = service.spec.cluster_ips.index(asked) if asked in service.spec.cluster_ips else 0
    field = "spec.clusterIP" if service.spec.cluster_ip == asked else f"spec.clusterIPs[{index}]"
    raise _refused(service, field, asked, f"failed to allocate IP {asked}: {reason}")


def _claim_any(service: Service, wanted: ServiceRange, pool: Pool) -> str:
    meta = service.metadata
    start = pool.draw(f"{wanted.family}/{meta.namespace}/{meta.name}", wanted.last - wanted.upper + 1)
    for address in wanted.candidates(start):
        if pool.claim(address, service):
            return address
    raise ExhaustedError(
        f'services "{meta.name}": failed to allocate a cluster IP: the range {wanted.cidr} is full; '
        "delete services or configure a larger serviceCIDR"
    )


def with_families(service: Service, old: Service | None, ranges: tuple[ServiceRange, ...]) -> Service:
    """Return the Service with ipFamilyPolicy and ipFamilies filled in, from what it says and what there is.

    Raises:
        ManifestError: it demands a family, or both, and there is no range for it.

    """
    spec = service.spec
    if spec.type == "ExternalName":
        return service
    if old and spec.ip_family_policy == "PreferDualStack" and _same_stack(spec, old.spec):
        return service  # A range that came later does not change a Service that merely prefers two families.
    families = list(spec.ip_families)
    families += [family_name(address) for address in addresses_of(service)[len(families) :]]
    # Nothing can go wrong with the addresses of a Service that has neither an address nor Pods of its own.
    free = HEADLESS in spec.cluster_ips and not spec.selector
    policy = spec.ip_family_policy or ("RequireDualStack" if free or len(families) > 1 else "SingleStack")
    available = [each.family for each in ranges]
    if policy == "RequireDualStack" and len(available) < 2 and not free:
        raise _refused(service, "spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
    families = families or [available[0]]
    if policy != "SingleStack" and len(families) == 1 and (free or len(available) > 1):
        families.append("IPv4" if families[0] == "IPv6" else "IPv6")
    for index, name in enumerate(families):
        if name not in available and not free:
            raise _refused(service, f"spec.ipFamilies[{index}]", name, "not configured on this cluster")
    return replace(service, spec=replace(spec, ip_family_policy=policy, ip_families=families))


def _same_stack(spec: ServiceSpec, old: ServiceSpec) -> bool:
    return (spec.ip_family_policy, spec.ip_families, spec.cluster_ips) == (
        old.ip_family_policy,
        old.ip_families,
        old.cluster_ips,
    )


def _refused(service: Service, field: str, value: str, reason: str) -> ManifestError:
    subject = f"Service {service.metadata.namespace}/{service.metadata.name}"
    return ManifestError((Finding("", 0, subject, field, f'Invalid value: "{value}": {reason}'),))
