"""Addresses for LoadBalancer Services from the configured pool, one of each family that both have.

An ingress that somebody else wrote is left as it is, and ``loadBalancerClass`` names somebody else. A Service that
cannot have its address, because the pool is empty or another one holds it, waits: that is no error. Addresses in the
pool are claimed even if they are given by hand, so that nobody gets them by chance. Nothing here answers to the
addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from svcnat.controllers.claims import Pool, balancer_ip, is_waiting
from svcnat.controllers.ranges import AddressRange, pool_candidates, pool_size
from svcnat.model.addresses import canonical, family_name
from svcnat.model.objects import LoadBalancerIngress, LoadBalancerStatus, Service


def with_ingress(service: Service, old: Service | None, ranges: Sequence[AddressRange], pool: Pool) -> Service:
    """Return the Service with its addresses, claimed; without any if it is no load balancer or has to wait.

    When its families or the address that it asks for change, what `old` had from the pool follows.
    """
    ingress = service.status.load_balancer.ingress
    if service.spec.type != "LoadBalancer":
        return _with_addresses(service, []) if ingress else service
    # What is given by hand may be shared by hand: whether it is free makes no difference.
    for address in (each.ip for each in ingress if each.ip):
        pool.claim(balancer_ip(address), service)
    if ranges and (is_waiting(service) or (old and _must_follow(service, old, ranges))):
        return _with_addresses(service, _addresses(service, ranges, pool))
    return service


def _must_follow(service: Service, old: Service, ranges: Sequence[AddressRange]) -> bool:
    """Tell whether addresses that are still those given from the pool no longer fit."""
    before, after = old.spec, service.spec
    changed = (before.ip_families, before.load_balancer_ip) != (after.ip_families, after.load_balancer_ip)
    ingress = service.status.load_balancer.ingress
    return (
        changed
        and after.load_balancer_class is None
        and ingress == old.status.load_balancer.ingress
        and all(each.ip and any(each.ip in one for one in ranges) for each in ingress)
    )


def _addresses(service: Service, ranges: Sequence[AddressRange], pool: Pool) -> list[str]:
    """Claim an address of each family, keeping those that fit; if one is not to be had, only those are returned."""
    spec = service.spec
    asked = (canonical(spec.load_balancer_ip) or "") if spec.load_balancer_ip else ""
    present = [each.ip for each in service.status.load_balancer.ingress if each.ip]
    kept: list[str] = []
    gained: list[str] = []
    complete = not asked or (family_name(asked) in spec.ip_families and any(asked in each for each in ranges))
    for family in spec.ip_families:
        here = [each for each in ranges if each.family == family]
        request = asked if asked and family_name(asked) == family else ""
        mine = [ip for ip in present if family_name(ip) == family and request in ("", canonical(ip))]
        if mine:
            kept.append(mine[0])
        elif here and complete:
            found = _claim(service, request, here, pool)
            complete = bool(found)
            gained += [found] if found else []
    if complete:
        return sorted(kept + gained, key=lambda ip: spec.ip_families.index(family_name(ip)))
    for address in {*gained, asked} - {*kept, ""}:
        pool.release(balancer_ip(address), service)
    return kept


def _claim(service: Service, request: str, ranges: Sequence[AddressRange], pool: Pool) -> str:
    """Claim the address asked for, or any; empty if that cannot be."""
    if request:
        return request if pool.claim(balancer_ip(request), service) else ""
    meta = service.metadata
    start = pool.draw(f"loadBalancer/{ranges[0].family}/{meta.namespace}/{meta.name}", pool_size(ranges))
    free = (each for each in pool_candidates(ranges, start) if pool.claim(balancer_ip(each), service))
    return next(free, "")


def _with_addresses(service: Service, addresses: Sequence[str]) -> Service:
    ingress = [LoadBalancerIngress(ip=address, ip_mode="VIP") for address in addresses]
    return replace(service, status=replace(service.status, load_balancer=LoadBalancerStatus(ingress=ingress)))
