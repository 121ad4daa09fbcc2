"""From the Plan to the ruleset: shapes, shared elements, and text that stays a comment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.ruleset.compile import compile_plan, doubts, frontend_of
from svcnat.ruleset.endpoints import Endpoints, Pool
from svcnat.ruleset.nftables import render
from svcnat.ruleset.nouns import Verdict
from svcnat.ruleset.plan import (
    Frontend,
    Kind,
    Masquerade,
    Plan,
    Scope,
    ServicePortPlan,
    Settings,
    plan,
)
from svcnat.ruleset.strings import comment_text
from tests.ruleset.build import LEAVING, service, slice_of

SETTINGS = Settings(cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"))


def ruleset_of(services, slices):
    return compile_plan(plan(services, slices, SETTINGS))


def test_a_thousand_services_of_one_shape_add_no_chain() -> None:
    """Rules stay constant: only elements grow with the number of services."""
    slices = [slice_of(f"s{n}", "10.0.0.1", "10.0.0.2", "10.0.0.3") for n in range(1000)]
    many = [service(f"s{n}", f"10.96.{n // 250}.{n % 250 + 1}") for n in range(1000)]
    assert ruleset_of(many, slices)["ip"].chains == ruleset_of(many[:1], slices)["ip"].chains


def test_two_ports_of_a_service_share_its_cluster_ip() -> None:
    """One element of cluster-ips, whatever the number of ports; refused ports have no origin to masquerade."""
    ports = ((80, "TCP"), (81, "UDP"))
    elements = ruleset_of([service("a", "10.96.0.1", ports=ports)], [])["ip"].elements
    assert elements["cluster-ips"] == {("10.96.0.1",): None}
    assert elements["frontends"] == {
        ("10.96.0.1", "tcp", 80): Verdict("goto", "refuse", "default/a:p80"),
        ("10.96.0.1", "udp", 81): Verdict("goto", "refuse", "default/a:p81"),
    }
    assert not elements["origins-tcp"]


def test_off_cluster_masquerade_follows_the_configuration() -> None:
    """clusterCIDR: outsiders; masqueradeAll: everyone; neither: nobody."""

    def rules(**known) -> list[str]:
        chains = compile_plan(Plan(Settings(**known), {}))["ip"].chains
        return [rule.text for rule in chains["masquerade-off-cluster"].rules if "hairpins" not in rule.text]

    assert rules() == []
    assert rules(cluster_cidrs=("10.1.0.0/16", "10.2.0.0/16", "fd01::/64")) == [
        "ip saddr 10.1.0.0/16 return",
        "ip saddr 10.2.0.0/16 return",
        "masquerade fully-random",
    ]
    assert rules(masquerade_all=True) == ["masquerade fully-random"]


def test_sets_grow_in_powers_of_two() -> None:
    """A declared size has room for twice the need, so that growth (which remakes the table) is rare."""
    slices = [slice_of("a", *(f"10.1.{n // 250}.{n % 250 + 1}" for n in range(2100)))]
    table = ruleset_of([service("a", "10.96.0.1")], slices)["ip"]
    assert table.sets["backends-tcp"].size == 8192
    assert table.sets["frontends"].size == 4096


@given(st.text(max_size=300))
def test_any_text_becomes_one_harmless_comment(text) -> None:
    """A comment has neither quote, backslash nor newline, and is never longer than nft takes."""
    comment = comment_text(text)
    assert len(comment) <= 117
    assert not set(comment) & set('"\\\n\r;{}`$')


def test_render_names_every_family_and_nothing_twice() -> None:
    """The script is complete: it drops both tables first, and the same input gives the same bytes."""
    rules = ruleset_of([service("a", "10.96.0.1")], [slice_of("a", "10.0.0.1")])
    text = render(rules)
    assert text == render(ruleset_of([service("a", "10.96.0.1")], [slice_of("a", "10.0.0.1")]))
    assert text.startswith("add table ip svcnat\ndelete table ip svcnat\nadd table ip svcnat\n")
    assert "delete table ip6 svcnat\n" in text
    lines = [line for line in text.splitlines() if not line.startswith("add table")]
    assert len(lines) == len(set(lines))


def test_more_elements_than_a_line_takes_are_split() -> None:
    """Statements stay readable: 512 elements each."""
    frontends = tuple(
        Frontend(Kind.CLUSTER_IP, "10.96.0.1", n, Scope.CLUSTER, Masquerade.OFF_CLUSTER) for n in range(1, 1026)
    )
    port = ServicePortPlan("default/a:x", "ip", "tcp", frontends, Endpoints())
    text = render(compile_plan(Plan(SETTINGS, {("default", "a"): (port,)})))
    assert text.count("add element ip svcnat frontends") == 3


def test_weights_that_are_rounded_are_doubted() -> None:
    """The user is told; exact shares, and maglev's table, need no word."""
    rounded = [slice_of("a", "10.0.0.1", "10.0.0.2", weights='{"10.0.0.1": 1000, "10.0.0.2": 999}')]
    exact = [slice_of("a", "10.0.0.1", "10.0.0.2", weights='{"10.0.0.1": 1000, "10.0.0.2": 500}')]
    one = service("a", "10.96.0.1")
    assert [text.partition(":")[0] for text in doubts(plan([one], rounded, SETTINGS))] == ["default/a"]
    assert doubts(plan([one], exact, SETTINGS)) == []


def test_other_ports_of_an_announced_address_are_refused() -> None:
    """Nobody else can have an address that this host answers for; an address of the node is the node's."""
    one = service("a", "10.96.0.1", external_ips=["203.0.113.5", "172.30.0.11"])
    known = Settings(announces=True, addresses=("172.30.0.11",))
    elements = compile_plan(plan([one], [], known))["ip"].elements
    assert set(elements["cluster-ips"]) == {("10.96.0.1",), ("203.0.113.5",)}


@pytest.mark.parametrize(
    ("setting", "endpoints", "counted"),
    [(None, 2, True), (None, 50_001, False), (True, 50_001, True), (False, 2, False)],
)
def test_endpoints_are_counted_while_they_are_few(setting, endpoints, counted) -> None:
    """A counter makes an element slower to add: beyond 50,000 slots only on request."""
    backends = tuple((f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(endpoints))
    pool = Endpoints(cluster=Pool(backends, (1,) * endpoints), anywhere=True)
    frontend = Frontend(Kind.CLUSTER_IP, "10.96.0.1", 80, Scope.CLUSTER, Masquerade.OFF_CLUSTER)
    port = ServicePortPlan("default/a:x", "ip", "tcp", (frontend,), pool)
    known = Settings(endpoint_counters=setting)
    sets = compile_plan(Plan(known, {("default", "a"): (port,)}))["ip"].sets
    assert sets["backends-tcp"].counter == counted
    assert sets["frontends"].counter


def test_elements_of_a_service_name_its_frontends() -> None:
    """The names and keys are those that services really have."""
    udp = service("a", "10.96.0.1", ports=((80, "UDP"),), type="NodePort", external_ips=["203.0.113.5"])
    one = replace(udp, spec=replace(udp.spec, ports=[replace(udp.spec.ports[0], node_port=30080)]))
    slices = [slice_of("a", "10.0.0.1", "10.0.0.2", ports=(("p80", 8080, "UDP"),))]
    elements = compile_plan(plan([one], slices, SETTINGS))["ip"].elements
    found = {name: {frontend_of(name, key) for key in keys} for name, keys in elements.items() if keys}
    assert found["frontends"] == found["backends-udp"] == {("10.96.0.1", "udp", 80), ("203.0.113.5", "udp", 80)}
    assert found["nodeports"] == found["nodeport-backends-udp"] == {("", "udp", 30080)}
    assert found["hairpins"] == found["cluster-ips"] == found["origins-udp"] == {None}


@pytest.mark.parametrize(("protocol", "ends"), [("UDP", True), ("TCP", False)])
def test_endpoints_that_get_nothing_new_are_known_while_they_may_have_flows(protocol, ends) -> None:
    """They are in no slot: only by leaving this set are they seen to go, and their UDP flows ended."""
    piece = slice_of("a", "10.0.0.1", ("10.0.0.2", LEAVING), "10.0.0.3", ports=(("p80", 8080, protocol),))
    piece = replace(piece, metadata=slice_of("a", weights='{"10.0.0.3": 0}').metadata)
    one = service("a", "10.96.0.1", ports=((80, protocol),))
    found = compile_plan(plan([one], [piece], SETTINGS))["ip"].elements["unchosen"]
    assert set(found) == ({("10.0.0.2", "udp", 8080), ("10.0.0.3", "udp", 8080)} if ends else set())


@pytest.mark.parametrize(
    ("name", "key", "frontend"),
    [
        ("frontends", ("10.96.0.1", "udp", 53), ("10.96.0.1", "udp", 53)),
        ("nodeports", ("tcp", 30080), ("", "tcp", 30080)),
        ("local-backends-udp", ("10.96.0.1", 53, 2), ("10.96.0.1", "udp", 53)),
        ("nodeport-backends-sctp", (30080, 1), ("", "sctp", 30080)),
        ("hairpins", ("10.0.0.1", "10.0.0.1"), None),
        ("origins-udp", ("10.96.0.1", 53), None),
    ],
)
def test_every_element_that_leads_to_an_endpoint_names_its_frontend(name, key, frontend) -> None:
    """Whoever sees an element change knows whose flows to look at: cost follows the change."""
    assert frontend_of(name, key) == frontend
