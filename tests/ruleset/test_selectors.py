"""Selector chains: one a shape, and the four kinds that belong to a service port."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from svcnat.model.objects import Service
from svcnat.ruleset.assembly import Assembly
from svcnat.ruleset.compile import backend_keys, compile_plan, compile_service, frontend_keys
from svcnat.ruleset.nouns import Table
from svcnat.ruleset.plan import Settings, plan, plan_service
from tests.ruleset.build import LEAVING, service, slice_of

SETTINGS = Settings(node_name="node-1", cluster_cidrs=("10.244.0.0/16",))


def annotated(name: str = "web", **notes: str) -> Service:
    one = service(name, "10.96.0.10")
    notes = {f"svcnat.io/{key.replace('_', '-')}": value for key, value in notes.items()}
    return replace(one, metadata=replace(one.metadata, annotations=notes))


def table(one: Service, settings: Settings = SETTINGS, family: str = "ip") -> Table:
    slices = [slice_of("web", "10.0.0.1", "10.0.0.2"), slice_of("web", "fd01::1", "fd01::2", kind="IPv6")]
    return compile_plan(plan([one], slices, settings))[family]


def rules(made: Table, prefix: str) -> list[str]:
    return [rule.text for name, chain in made.chains.items() if name.startswith(prefix) for rule in chain.rules]


@pytest.mark.parametrize(
    ("scheduler", "chain", "draw"),
    [
        ("random", "tcp-random-2", "numgen random mod 2"),
        ("source-hash", "tcp-source-hash-2", "jhash ip saddr mod 2 seed 0x2a"),
        ("maglev", "tcp-maglev-1021", "jhash ip saddr . tcp sport mod 1021 seed 0x2a"),
    ],
)
def test_schedulers_differ_in_how_they_draw(scheduler, chain, draw) -> None:
    """One map of endpoints serves every scheduler; the seed keeps a client's slot over reloads."""
    made = table(annotated(scheduler=scheduler))
    assert rules(made, chain)[0] == f"dnat ip to ip daddr . tcp dport . {draw} map @backends-tcp"
    assert rules(made, chain)[1] == "dnat ip to ip daddr . tcp dport . numgen random mod 1 map @backends-tcp"


def test_round_robin_counts_for_one_service_port() -> None:
    """The counter of numgen inc is the rule's, so two services must not share the chain."""
    slices = [slice_of(name, "10.0.0.1", "10.0.0.2") for name in ("web", "api")]
    one, two = (annotated(name, scheduler="round-robin") for name in ("web", "api"))
    two = replace(two, spec=replace(two.spec, cluster_ips=["10.96.0.11"]))
    chains = compile_plan(plan([one, two], slices, SETTINGS))["ip"].chains
    assert len([name for name in chains if name.startswith("tcp-round-robin-2-")]) == 2


def test_each_limit_alone_and_both() -> None:
    """A client over a limit is refused; what each client used up is the kernel's."""
    made = table(annotated(max_connections="20"))
    assert next(text for text in rules(made, "limited-") if "ct count over 20" in text).endswith("goto refuse")
    made = table(annotated(connection_rate="5/minute"))
    assert any("limit rate over 5/minute burst 5 packets" in text for text in rules(made, "limited-"))
    made = table(annotated(connection_rate="5/minute", max_connections="20"))
    assert {name.partition("-")[0] for name, declared in made.sets.items() if declared.dynamic} == {
        "rates",
        "connections",
    }


def test_another_limit_begins_anew() -> None:
    """An element keeps the limit that it was made with: known clients would never get the new one."""

    def dynamic(**notes: str) -> set[str]:
        return {name for name, declared in table(annotated(**notes)).sets.items() if declared.dynamic}

    limits = [dynamic(connection_rate=rate) for rate in ("5/minute", "6/minute", "5/hour")]
    limits += [dynamic(max_connections=most) for most in ("5", "6")]
    assert len(set().union(*limits)) == 5


def test_nobody_is_counted_twice() -> None:
    """With policy Local, pods and the node go through a second chain of the same service port: without limits."""
    one = annotated(connection_rate="5/minute", max_connections="20")
    one = replace(one, spec=replace(one.spec, external_traffic_policy="Local", external_ips=["198.51.100.1"]))
    made = table(one)
    key = ("198.51.100.1", "tcp", 80)
    assert made.elements["frontends"][key].chain.startswith("limited-")
    assert made.elements["inside-frontends"][key].chain == "tcp-random-2"


def test_services_without_a_choice_share_a_chain_whatever_their_scheduler() -> None:
    """Policy Local and no endpoint here: the chain that drops is the same for all."""
    spec = {"external_traffic_policy": "Local", "external_ips": ["198.51.100.1"]}
    one, two = (annotated(name, scheduler=how) for name, how in (("web", "maglev"), ("api", "random")))
    one = replace(one, spec=replace(one.spec, **spec))
    two = replace(two, spec=replace(two.spec, cluster_ips=["10.96.0.11"], **{**spec, "external_ips": ["198.51.100.2"]}))
    slices = [slice_of(name, "10.0.0.1", node="node-2") for name in ("web", "api")]
    frontends = compile_plan(plan([one, two], slices, SETTINGS))["ip"].elements["frontends"]
    assert {frontends[ip, "tcp", 80].chain for ip in ("198.51.100.1", "198.51.100.2")} == {"tcp-local-0"}


def test_not_everyone_remembers_what_only_policy_local_chooses() -> None:
    """An endpoint that terminates serves this node's outsiders, alone; through the cluster IP, others are better."""
    one = service("web", "10.96.0.10", session_affinity="ClientIP", internal_traffic_policy="Local")
    pieces = [slice_of("web", ("10.0.0.1", LEAVING), node="node-1"), slice_of("web", "10.0.0.2", node="node-2")]
    made = compile_plan(plan([one], pieces, SETTINGS))["ip"]
    near, excluded, everyone = rules(made, "learn-")
    assert "local-endpoints update @local-affinity-" in near
    assert excluded == "ip daddr 10.0.0.1 tcp dport 8080 return"
    assert " update @affinity-" in everyone


@pytest.mark.parametrize(("family", "maps"), [("ip", 1), ("ip6", 2)])
def test_affinity_needs_two_maps_for_ipv6(family, maps) -> None:
    """Because nft 1.0.6 aborts on a dynamic map from an address to ``ipv6_addr . inet_service``."""
    one = service("web", "10.96.0.10", "fd00::a", session_affinity="ClientIP")
    made = table(one, family=family)
    assert len([name for name in made.sets if name.startswith("affinity-")]) == maps
    assert len(rules(made, "learn-")) == maps


def test_what_is_learned_goes_with_its_service() -> None:
    """The memories of a service that is gone are neither declared nor read."""
    one = service("web", "10.96.0.10", session_affinity="ClientIP", internal_traffic_policy="Local")
    fragments = compile_service(plan_service(one, [slice_of("web", "10.0.0.1", node="node-1")], SETTINGS))
    assembly = Assembly(SETTINGS)
    assembly.put(("default", "web"), fragments)
    assert [len(learned.maps) for learned in assembly.ruleset()["ip"].learned] == [1, 1]
    assembly.drop(("default", "web"))
    made = assembly.ruleset()["ip"]
    assert not made.learned
    assert not any(declared.dynamic for declared in made.sets.values())


def test_a_thousand_services_of_one_shape_add_no_chain() -> None:
    """Whatever the shape: node ports, policies, ranges; affinity excepted."""
    spec = {"type": "NodePort", "external_traffic_policy": "Local", "internal_traffic_policy": "Local"}

    def chains(count: int) -> set[str]:
        many = []
        for number in range(count):
            one = service(f"s{number}", f"10.96.{number // 250}.{number % 250 + 1}", **spec)
            ports = [replace(one.spec.ports[0], node_port=30000 + number)]
            many.append(replace(one, spec=replace(one.spec, ports=ports)))
        slices = [slice_of(f"s{number}", "10.0.0.1", "10.0.0.2", node="node-1") for number in range(count)]
        return set(compile_plan(plan(many, slices, SETTINGS))["ip"].chains)

    assert chains(1000) == chains(1)


def test_localhost_node_ports_come_with_a_guard() -> None:
    """Opening route_localnet would let a pod reach the node's loopback."""
    made = table(service("web", "10.96.0.10"), Settings(localhost_node_ports=True, node_port_addresses=("127.0.0.1",)))
    assert rules(made, "guard") == ["meta iifname != lo ip daddr 127.0.0.0/8 drop"]
    assert made.elements["nodeport-ips"] == {("127.0.0.1",): None}


def test_counters_are_asked_for_where_the_endpoints_are() -> None:
    """Every map and key that leads to an endpoint, those of node ports and of policy Local too."""
    one = service("web", "10.96.0.10", type="NodePort", external_traffic_policy="Local")
    one = replace(one, spec=replace(one.spec, ports=[replace(one.spec.ports[0], node_port=30080)]))
    port = plan_service(one, [slice_of("web", "10.0.0.1", node="node-1")], SETTINGS)[0]
    assert {part.declared.name: part.keys for part in backend_keys(port)} == {
        "backends-tcp": {("10.96.0.10", 80, 0): ("10.0.0.1", 8080)},
        "nodeport-backends-tcp": {(30080, 0): ("10.0.0.1", 8080)},
        "local-nodeport-backends-tcp": {(30080, 0): ("10.0.0.1", 8080)},
    }
    assert [(declared.name, key) for declared, key in frontend_keys(port)] == [
        ("frontends", ("10.96.0.10", "tcp", 80)),
        ("nodeports", ("tcp", 30080)),
    ]
