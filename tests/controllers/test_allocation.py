from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.allocation import allocate
from svcnat.controllers.claims import cluster_ip
from svcnat.controllers.ranges import Ranges, ServiceRange
from svcnat.controllers.world import MemoryWorld
from svcnat.errors import ExhaustedError, ManifestError, UsageError
from svcnat.model.defaults import with_defaults
from svcnat.model.objects import Service
from tests.controllers.build import service

DUAL = ("10.96.0.0/12", "fd00:10:96::/112")


def allocated(new: Service, *, old: Service | None = None, cidrs: tuple[str, ...] = DUAL) -> Service:
    world = MemoryWorld(Ranges.of(cidrs))
    if old:
        for address in old.spec.cluster_ips:
            assert world.claim(cluster_ip(address), old)
    return allocate(with_defaults(new), old, world.ranges, world)


@pytest.mark.parametrize(
    ("cidr", "lower"),
    [("10.96.0.0/12", 256), ("10.0.0.0/24", 16), ("10.0.0.0/23", 32), ("fd00::/112", 256), ("10.0.0.0/30", 0)],
)
def test_the_lower_band_has_the_size_of_kep_3070(cidr: str, lower: int) -> None:
    """Automatic addresses leave min(max(16, size/16), 256) addresses to requests."""
    found = ServiceRange.parse(cidr)
    assert found.upper - found.first == lower


def test_automatic_addresses_come_from_the_upper_band_then_the_lower() -> None:
    """The lower band when the upper one is full; first and tenth address never, nor network or broadcast."""
    order = list(ServiceRange.parse("10.0.0.0/27").candidates(3))
    assert order[:3] == ["10.0.0.20", "10.0.0.21", "10.0.0.22"]
    assert order[-1] == "10.0.0.16"
    assert len(order) == len(set(order)) == 28
    assert not {"10.0.0.0", "10.0.0.1", "10.0.0.10", "10.0.0.31"} & set(order)


def test_ipv6_has_no_broadcast_address() -> None:
    """The last address of an IPv6 range is usable."""
    assert "fd00::ff" in ServiceRange.parse("fd00::/120")
    assert "fd00::" not in ServiceRange.parse("fd00::/120")


@pytest.mark.parametrize("cidr", ["10.96.0.0", "10.96.0.0/33", "fd00::/129", "nonsense", "10.0.0.1/32", "010.0.0.0/8"])
def test_a_wrong_range_is_the_callers_mistake(cidr: str) -> None:
    """A service CIDR that is none, or too small, is a UsageError that names it."""
    with pytest.raises(UsageError, match=cidr.partition("/")[0].replace(".", r"\.")):
        Ranges.of([cidr])


def test_two_ranges_of_one_family_are_refused() -> None:
    """Two ranges mean dual stack."""
    with pytest.raises(UsageError, match="one of each"):
        Ranges.of(["10.96.0.0/12", "10.0.0.0/16"])


@pytest.mark.parametrize(
    ("spec", "policy", "families"),
    [
        ({}, "SingleStack", ["IPv4"]),
        ({"ip_families": ["IPv6"]}, "SingleStack", ["IPv6"]),
        ({"ip_family_policy": "PreferDualStack"}, "PreferDualStack", ["IPv4", "IPv6"]),
        ({"ip_family_policy": "RequireDualStack", "ip_families": ["IPv6"]}, "RequireDualStack", ["IPv6", "IPv4"]),
        ({"cluster_ip": "fd00:10:96::99"}, "SingleStack", ["IPv6"]),
        ({"cluster_ip": "None"}, "SingleStack", ["IPv4"]),
        ({"cluster_ip": "None", "selector": {}}, "RequireDualStack", ["IPv4", "IPv6"]),
    ],
)
def test_families_follow_policy_addresses_and_the_default(spec: dict, policy: str, families: list[str]) -> None:
    """What is not said is inferred as kube-apiserver does."""
    result = allocated(service(**spec)).spec
    assert (result.ip_family_policy, result.ip_families) == (policy, families)
    expected = 0 if spec.get("cluster_ip") == "None" else len(families)
    assert len([ip for ip in result.cluster_ips if ip != "None"]) == expected


def test_one_family_prefers_but_does_not_require_two() -> None:
    """PreferDualStack is content with one range, RequireDualStack is not."""
    one = ("10.96.0.0/12",)
    assert allocated(service(ip_family_policy="PreferDualStack"), cidrs=one).spec.ip_families == ["IPv4"]
    with pytest.raises(ManifestError, match=r"spec.ipFamilyPolicy: .*not configured for dual-stack services"):
        allocated(service(ip_family_policy="RequireDualStack"), cidrs=one)
    with pytest.raises(ManifestError, match=r"spec.ipFamilies\[0\]: .*not configured on this cluster"):
        allocated(service(ip_families=["IPv6"]), cidrs=one)


def test_headless_and_external_names_have_no_address() -> None:
    """Neither claims anything."""
    assert allocated(service(cluster_ip="None")).spec.cluster_ips == ["None"]
    assert allocated(service(type="ExternalName", external_name="example.org")).spec.cluster_ips == []


def test_a_request_is_honoured_once() -> None:
    """Kubernetes' words say that an address is taken, and the finding names the Service and the field."""
    world = MemoryWorld.of([service("a", cluster_ip="10.96.0.10")])
    with pytest.raises(ManifestError) as caught:
        allocate(with_defaults(service("b", cluster_ip="10.96.0.10")), None, world.ranges, world)
    assert str(caught.value) == (
        'Service default/b: spec.clusterIP: Invalid value: "10.96.0.10": '
        "failed to allocate IP 10.96.0.10: provided IP is already allocated"
    )


def test_another_spelling_is_the_same_address() -> None:
    """IPv6 addresses are compared by value, and kept as they were written."""
    world = MemoryWorld.of([service("a", cluster_ip="FD00:10:96:0::99")])
    assert world.list(Service)[0].spec.cluster_ip == "FD00:10:96:0::99"
    with pytest.raises(ManifestError, match="already allocated"):
        allocate(with_defaults(service("b", cluster_ip="fd00:10:96::99")), None, world.ranges, world)


@pytest.mark.parametrize("address", ["10.112.0.1", "10.96.0.0", "10.111.255.255", "192.0.2.1"])
def test_a_request_outside_the_range_is_refused(address: str) -> None:
    """The message names the valid range."""
    with pytest.raises(ManifestError, match=r"not in the valid range. The range of valid IPs is 10.96.0.0/12"):
        allocated(service(cluster_ip=address))


def test_an_address_that_is_held_stays_even_outside_the_range() -> None:
    """A changed service CIDR takes no address away."""
    old = allocated(service())
    kept = allocated(old, old=old, cidrs=("10.200.0.0/16",))
    assert kept.spec.cluster_ips == old.spec.cluster_ips


def test_dual_stack_comes_and_goes() -> None:
    """A change of policy claims the second address, and releases it; the first one stays."""
    world = MemoryWorld(Ranges.of(DUAL))
    single = allocate(with_defaults(service()), None, world.ranges, world)
    dual = allocate(
        replace(single, spec=replace(single.spec, ip_family_policy="PreferDualStack")), single, world.ranges, world
    )
    assert dual.spec.cluster_ips[0] == single.spec.cluster_ip
    assert len(dual.spec.cluster_ips) == 2
    allocate(single, dual, world.ranges, world)
    assert world.claim(cluster_ip(dual.spec.cluster_ips[1]), service("other"))


def test_a_full_range_is_an_exhausted_error() -> None:
    """A /29 has six usable addresses, of which one is kept for default/kubernetes."""
    services = [service(f"s{number}") for number in range(5)]
    MemoryWorld.of(services, ["10.0.0.0/29"])
    with pytest.raises(ExhaustedError, match=r"the range 10.0.0.0/29 is full"):
        MemoryWorld.of([*services, service("one-more")], ["10.0.0.0/29"])


@settings(derandomize=True, max_examples=30)
@given(
    names=st.sets(st.text("abcdef", min_size=1, max_size=3), max_size=12),
    asked=st.sets(st.integers(1, 30), max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_stateless_addresses_do_not_depend_on_the_order(names: set[str], asked: set[int], order) -> None:
    """Same input, same addresses, no address twice, requests first: in whatever order the documents come."""
    services = [service(f"auto-{name}") for name in sorted(names)]
    services += [service(f"asked-{number}", cluster_ip=f"10.0.0.{number}") for number in sorted(asked)]
    first = MemoryWorld.of(services, ["10.0.0.0/27"]).list(Service)
    order.shuffle(services)
    assert MemoryWorld.of(services, ["10.0.0.0/27"]).list(Service) == first
    given_out = [address for each in first for address in each.spec.cluster_ips]
    assert len(given_out) == len(set(given_out))
    assert {f"10.0.0.{number}" for number in asked} <= set(given_out)


def test_all_collisions_are_reported_at_once() -> None:
    """A stateless run names every Service that asks for a taken address."""
    with pytest.raises(ManifestError) as caught:
        MemoryWorld.of([service(name, cluster_ip="10.96.0.7") for name in ("a", "b", "c")])
    assert [finding.subject for finding in caught.value.findings] == ["Service default/b", "Service default/c"]
