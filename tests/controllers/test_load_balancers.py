from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.admission import admit, keep_status
from svcnat.controllers.ranges import AddressRange, pool_candidates, pool_size
from svcnat.controllers.react import react, settled
from svcnat.controllers.world import Change, MemoryWorld
from svcnat.errors import UsageError
from svcnat.model.objects import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus
from tests.controllers.build import service

POOL = ("192.0.2.10-192.0.2.12", "2001:db8::/126")


def balanced(name: str = "web", *by_hand: str, **spec: Any) -> Service:
    ingress = [LoadBalancerIngress(ip=ip) for ip in by_hand]
    status = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress))
    return replace(service(name, **{"type": "LoadBalancer", **spec}), status=status)


def given_to(world: MemoryWorld, name: str = "web") -> list[str | None]:
    found = world.get(Service, "default", name)
    assert found
    assert all(each.ip_mode == "VIP" for each in found.status.load_balancer.ingress if each.ip)
    return [each.ip for each in found.status.load_balancer.ingress]


def world_of(*services: Service, pool: tuple[str, ...] = POOL) -> MemoryWorld:
    return settled(services, load_balancer_pool=pool)


def change(world: MemoryWorld, new: Service) -> None:
    old = world.get(Service, "default", new.metadata.name)
    new = keep_status(new, old) if old else new
    react(world, [Change(old, world.put(admit(world, new, old)))])


def remove(world: MemoryWorld, name: str) -> None:
    gone = world.get(Service, "default", name)
    assert gone
    world.remove(gone)
    react(world, [Change(gone, None)])


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("192.0.2.0/24", "192.0.2.1", "192.0.2.254"),
        ("192.0.2.8/31", "192.0.2.8", "192.0.2.9"),
        ("192.0.2.8/32", "192.0.2.8", "192.0.2.8"),
        (" 192.0.2.0 - 192.0.2.255 ", "192.0.2.0", "192.0.2.255"),
        ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::4-2001:db8::4", "2001:db8::4", "2001:db8::4"),
    ],
)
def test_a_pool_is_written_as_cidr_or_from_to(text: str, first: str, last: str) -> None:
    """Of a CIDR, what a router would take for network or broadcast is left out."""
    found = AddressRange.parse(text)
    assert (found.text(found.first), found.text(found.last)) == (first, last)
    assert first in found


@pytest.mark.parametrize("text", ["", "192.0.2.1", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "x-y", "-"])
def test_what_is_no_range_is_the_callers_mistake(text: str) -> None:
    """With how to write one."""
    with pytest.raises(UsageError, match="FIRST-LAST"):
        world_of(pool=(text,))


def test_every_address_of_a_pool_is_tried_once() -> None:
    """Wherever the search starts."""
    ranges = [AddressRange.parse(text) for text in ("192.0.2.1-192.0.2.3", "192.0.2.7-192.0.2.7")]
    for start in range(pool_size(ranges)):
        found = list(pool_candidates(ranges, start))
        assert found[0] == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.7"][start]
        assert len(set(found)) == len(found) == 4


def test_a_load_balancer_gets_an_address_of_each_family() -> None:
    """Of those that both the Service and the pool have, in the order of the Service's families."""
    (four,) = given_to(world_of(balanced()))
    assert four in {"192.0.2.10", "192.0.2.11", "192.0.2.12"}
    six, four = given_to(world_of(balanced(ip_family_policy="RequireDualStack", ip_families=["IPv6", "IPv4"])))
    assert (":" in (six or ""), ":" in (four or "")) == (True, False)
    dual = balanced(ip_family_policy="PreferDualStack")
    assert len(given_to(world_of(dual, pool=POOL[:1]))) == 1
    assert given_to(world_of(balanced(), pool=POOL[1:])) == []


@pytest.mark.parametrize(
    ("one", "pool"),
    [
        (balanced(), ()),
        (balanced(load_balancer_class="example.org/theirs"), POOL),
        (balanced(load_balancer_ip="192.0.2.99"), POOL),
        (balanced(load_balancer_ip="2001:db8::1"), POOL),
        (service(type="NodePort"), POOL),
    ],
)
def test_who_gets_none(one: Service, pool: tuple[str, ...]) -> None:
    """Without a pool, of another class, of another type; and nobody gets another address than the one asked for."""
    assert given_to(world_of(one, pool=pool)) == []


def test_an_address_is_given_on_request() -> None:
    """Before any is given by chance; who comes too late waits, which is no error."""
    world = world_of(balanced("a"), balanced("b"), *(balanced(name, load_balancer_ip="192.0.2.12") for name in "yz"))
    assert given_to(world, "y") == ["192.0.2.12"]
    assert given_to(world, "z") == []
    assert {*given_to(world, "a"), *given_to(world, "b")} == {"192.0.2.10", "192.0.2.11"}


def test_what_is_given_by_hand_is_kept() -> None:
    """In the pool or not, shared or not; nobody else gets it."""
    by_hand = [balanced("x", "192.0.2.11", "198.51.100.1"), balanced("y", "192.0.2.11")]
    world = world_of(balanced("a"), balanced("b"), balanced("c"), *by_hand)
    assert given_to(world, "x") == ["192.0.2.11", "198.51.100.1"]
    assert given_to(world, "y") == ["192.0.2.11"]
    assert [given_to(world, name) for name in "abc"].count([]) == 1
    change(world, balanced("x", "203.0.113.1"))
    assert given_to(world, "x") == ["203.0.113.1"]


@pytest.mark.parametrize("how", ["deleted", "another type", "by hand"])
def test_an_address_that_is_released_goes_to_who_waits(how: str) -> None:
    """A full pool is no error; whoever waits is served as soon as one is free."""
    world = world_of(*(balanced(name) for name in "abcd"))
    assert given_to(world, "d") == []
    assert [each.metadata.name for each in world.waiting()] == ["d"]
    before = given_to(world, "b")
    if how == "deleted":
        remove(world, "b")
    else:
        change(world, service("b", type="NodePort") if how == "another type" else balanced("b", "203.0.113.1"))
        assert given_to(world, "b") == ([] if how == "another type" else ["203.0.113.1"])
    assert given_to(world, "d") == before
    assert world.waiting() == []


def test_addresses_follow_families_and_requests() -> None:
    """A family that comes or goes, another address asked for: the rest is kept; what is by hand is left alone."""
    world = world_of(balanced())
    (four,) = given_to(world)
    change(world, balanced(ip_family_policy="PreferDualStack"))
    assert given_to(world)[0] == four
    assert len(given_to(world)) == 2
    change(world, balanced(ip_family_policy="SingleStack"))
    assert given_to(world) == [four]
    other = next(ip for ip in ("192.0.2.10", "192.0.2.11") if ip != four)
    change(world, balanced(load_balancer_ip=other))
    assert given_to(world) == [other]
    change(world, balanced(load_balancer_ip="198.51.100.1"))
    assert given_to(world) == []
    change(world, balanced(load_balancer_ip=four))
    assert given_to(world) == [four]
    by_hand = world_of(balanced("web", "203.0.113.1"))
    change(by_hand, balanced(ip_family_policy="PreferDualStack", load_balancer_ip="192.0.2.10"))
    assert given_to(by_hand) == ["203.0.113.1"]


def test_a_service_keeps_its_address_when_others_come() -> None:
    """Over updates, and without state as long as nobody stands in its way."""
    alone = given_to(world_of(balanced("m"), pool=("192.0.2.0/24",)), "m")
    world = world_of(*(balanced(name) for name in "klmno"), pool=("192.0.2.0/24",))
    assert given_to(world, "m") == alone
    change(world, balanced("m", session_affinity="ClientIP"))
    assert given_to(world, "m") == alone


@settings(derandomize=True, max_examples=30)
@given(st.permutations([balanced(name) for name in "abcd"] + [balanced("z", load_balancer_ip="192.0.2.10")]))
def test_stateless_addresses_do_not_depend_on_the_order(services: list[Service]) -> None:
    """Nor does who waits."""
    assert world_of(*services).list(Service) == world_of(*reversed(services)).list(Service)
