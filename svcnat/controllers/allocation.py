"""What a Service gets when it is written: families and cluster addresses here, the rest from the neighbours.

It remembers nothing: a :class:`~svcnat.controllers.claims.Pool` knows who holds what, and where a search starts (at
random in the store, at a hash in stateless runs). Sources: core/v1 Service (ipFamilyPolicy, ipFamilies, clusterIPs) and
kube-apiserver's ``pkg/registry/core/service/storage/alloc.go``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec.structs import replace

from svcnat.controllers.claims import Claim, Ledger, Pool, claims_of, cluster_ip, refuse
from svcnat.controllers.load_balancers import with_ingress
from svcnat.controllers.node_ports import with_node_ports
from svcnat.controllers.ranges import Ranges, ServiceRange
from svcnat.errors import ExhaustedError, SvcnatError
from svcnat.model.addresses import family_name
from svcnat.model.objects import Service, ServiceSpec
from svcnat.model.services import HEADLESS, cluster_ips_of, has_cluster_ips


def allocate(service: Service, old: Service | None, ranges: Ranges, pool: Pool) -> Service:
    """Return the Service with all that its type has; claim what it gains, release what it loses.

    What `old` held stays its own, even outside today's ranges. After an error it holds what it held before.

    Raises:
        ManifestError: an address or port asked for is taken or outside the ranges, or a family is not to be had.
        ExhaustedError: a range is full.

    """
    held = claims_of(old) if old else set()
    ledger = Ledger(pool)
    service = with_families(service, old, ranges.services)
    try:
        service = _with_cluster_ips(service, held, ranges.services, ledger)
        service = with_node_ports(service, held, ranges.node_ports, ledger)
        service = with_ingress(service, old, ranges.balancers, ledger)
    except SvcnatError:
        for claim in set(ledger.claimed) - held:
            pool.release(claim, service)
        raise
    for claim in held - claims_of(service):
        pool.release(claim, service)
    return service


def _with_cluster_ips(
    service: Service, held: Collection[Claim], ranges: tuple[ServiceRange, ...], pool: Pool
) -> Service:
    if not has_cluster_ips(service.spec):
        return service
    given = list(_addresses(service, held, ranges, pool))
    return replace(service, spec=replace(service.spec, cluster_ip=given[0], cluster_ips=given))


def _addresses(
    service: Service, held: Collection[Claim], ranges: tuple[ServiceRange, ...], pool: Pool
) -> Iterator[str]:
    """Claim and yield an address for each family, the one asked for or any; those held are the Service's already."""
    by_family: dict[str, ServiceRange] = {each.family: each for each in ranges}
    requested = cluster_ips_of(service.spec)
    for index, name in enumerate(service.spec.ip_families):
        asked = requested[index] if index < len(requested) else None
        if asked is None:
            yield _claim_any(service, by_family[name], pool)
        elif cluster_ip(asked) in held:
            yield asked
        else:
            yield _claim_requested(service, asked, ranges, pool)


def _claim_requested(service: Service, asked: str, ranges: tuple[ServiceRange, ...], pool: Pool) -> str:
    claim = cluster_ip(asked)
    if not any(claim.value in each for each in ranges):
        valid = " and ".join(each.cidr for each in ranges)
        reason = f"provided IP is not in the valid range. The range of valid IPs is {valid}"
    elif not pool.claim(claim, service):
        reason = "provided IP is already allocated"
    else:
        return asked
    index = service.spec.cluster_ips.index(asked) if asked in service.spec.cluster_ips else 0
    field = "spec.clusterIP" if service.spec.cluster_ip == asked else f"spec.clusterIPs[{index}]"
    raise refuse(service, field, asked, f"failed to allocate IP {asked}: {reason}")


def _claim_any(service: Service, wanted: ServiceRange, pool: Pool) -> str:
    meta = service.metadata
    start = pool.draw(f"{wanted.family}/{meta.namespace}/{meta.name}", wanted.last - wanted.upper + 1)
    for address in wanted.candidates(start):
        if pool.claim(cluster_ip(address), service):
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
    families += [family_name(address) for address in cluster_ips_of(spec)[len(families) :]]
    # Nothing can go wrong with the addresses of a Service that has neither an address nor Pods of its own.
    free = HEADLESS in spec.cluster_ips and not spec.selector
    policy = spec.ip_family_policy or ("RequireDualStack" if free or len(families) > 1 else "SingleStack")
    available = [each.family for each in ranges]
    if policy == "RequireDualStack" and len(available) < 2 and not free:
        raise refuse(service, "spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
    families = families or [available[0]]
    if policy != "SingleStack" and len(families) == 1 and (free or len(available) > 1):
        families.append("IPv4" if families[0] == "IPv6" else "IPv6")
    for index, name in enumerate(families):
        if name not in available and not free:
            raise refuse(service, f"spec.ipFamilies[{index}]", name, "not configured on this cluster")
    return replace(service, spec=replace(spec, ip_family_policy=policy, ip_families=families))


def _same_stack(spec: ServiceSpec, old: ServiceSpec) -> bool:
    return (spec.ip_family_policy, spec.ip_families, spec.cluster_ips) == (
        old.ip_family_policy,
        old.ip_families,
        old.cluster_ips,
    )
