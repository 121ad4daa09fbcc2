"""The interpreter's own promises: exact fractions, and no expression that it does not know."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.interpreter import Outcome, Packet, outcomes
from svcnat.ruleset.nouns import Chain, Drop, Goto, Hook, In, Is, Reject, Return, Rule, Table, Verdict, Vmap
from svcnat.ruleset.plan import Settings, plan
from tests.ruleset.build import service, slice_of

RULES = compile_plan(
    plan(
        [service("web", "10.96.0.10", "fd00::a"), service("void", "10.96.0.11", ports=((80, "TCP"), (53, "UDP")))],
        [slice_of("web", "10.244.0.1", "10.244.0.2", "10.244.0.3"), slice_of("web", "fd01::1", kind="IPv6")],
        Settings(cluster_cidrs=("10.244.0.0/16",)),
    )
)


def send(source: str, destination: str, protocol: str = "tcp", port: int = 80, **more) -> dict[Outcome, Fraction]:
    return outcomes(RULES, Packet(source, destination, protocol, port, **more))


def test_each_endpoint_has_exactly_its_share() -> None:
    """Probability is a fraction, not an estimate: 1/3 each, and the client's own turn is masqueraded."""
    assert send("10.244.0.1", "10.96.0.10") == {
        Outcome("translated", "10.244.0.1", 8080, masqueraded=True): Fraction(1, 3),
        Outcome("translated", "10.244.0.2", 8080): Fraction(1, 3),
        Outcome("translated", "10.244.0.3", 8080): Fraction(1, 3),
    }


@pytest.mark.parametrize("local", [False, True])
def test_outsiders_and_the_node_are_masqueraded(local) -> None:
    """Addresses outside clusterCIDR are not the cluster's, the node's own among them."""
    assert all(end.masqueraded for end in send("192.0.2.1", "10.96.0.10", local=local))


def test_a_packet_that_meets_a_shrinking_service_still_reaches_an_endpoint() -> None:
    """The one-packet race: old frontends (1 of 3) with new backends (2 slots). The missing slot falls to slot 0."""
    elements = {name: dict(held) for name, held in RULES["ip"].elements.items()}
    del elements["backends-tcp"]["10.96.0.10", 80, 2]
    halfway = {"ip": replace(RULES["ip"], elements=elements)}
    assert outcomes(halfway, Packet("10.244.9.9", "10.96.0.10", "tcp", 80)) == {
        Outcome("translated", "10.244.0.1", 8080): Fraction(2, 3),
        Outcome("translated", "10.244.0.2", 8080): Fraction(1, 3),
    }


def test_ipv6_has_rules_of_its_own() -> None:
    """Without an IPv6 clusterCIDR nobody is masqueraded but a hairpin."""
    assert send("fd02::1", "fd00::a") == {Outcome("translated", "fd01::1", 8080): Fraction(1)}
    assert send("fd01::1", "fd00::a") == {Outcome("translated", "fd01::1", 8080, masqueraded=True): Fraction(1)}


@pytest.mark.parametrize(
    ("destination", "protocol", "port", "end"),
    [
        ("10.96.0.11", "tcp", 80, "reset"),
        ("10.96.0.11", "udp", 53, "rejected"),
        ("10.96.0.10", "tcp", 81, "reset"),
        ("10.96.0.10", "sctp", 80, "rejected"),
        ("10.96.0.12", "tcp", 80, "passed"),
    ],
)
def test_refusals(destination, protocol, port, end) -> None:
    """No endpoint, or no such port on a cluster IP: refused; any other address is not ours."""
    assert send("10.244.0.1", destination, protocol, port) == {Outcome(end): Fraction(1)}


def test_a_family_without_a_table_passes() -> None:
    """No table, no rule."""
    assert outcomes({}, Packet("10.0.0.1", "10.0.0.2", "tcp", 80)) == {Outcome("passed"): Fraction(1)}


def table(*rules: Rule, **elements) -> dict[str, Table]:
    chains = [
        Chain("nat-prerouting", rules, Hook("prerouting", -100)),
        Chain("nat-postrouting", (), Hook("postrouting", 99)),
        Chain("odd", (Rule((), Vmap(("ip daddr",), "m")), Rule((), Goto("refuse")))),
    ]
    return {"ip": Table("ip", {}, {chain.name: chain for chain in chains}, elements)}


@pytest.mark.parametrize(
    "strange",
    [
        Rule((Is("ct status", "snat"),), Return()),
        Rule((In(("ip ttl",), "m"),), Return()),
        Rule((), "log"),
        Rule((), Vmap(("ip daddr",), "m")),
    ],
    ids=["status", "field", "statement", "verdict"],
)
def test_unknown_expressions_are_refused(strange) -> None:
    """A new expression is a decision: the interpreter must learn it before a rule may use it."""
    with pytest.raises(NotImplementedError):
        outcomes(table(strange, m={("10.0.0.2",): Verdict("queue")}), Packet("10.0.0.1", "10.0.0.2", "tcp", 80))


def test_base_chains_of_a_hook_run_in_the_order_of_their_priorities() -> None:
    """What an earlier chain ends, a later one does not see."""
    packet = Packet("10.0.0.1", "10.0.0.2", "tcp", 80)
    rules = table(Rule((), Reject()))
    rules["ip"].chains["guard"] = Chain("guard", (Rule((), Drop()),), Hook("prerouting", -300, "filter"))
    assert outcomes(rules, packet) == {Outcome("dropped"): Fraction(1)}


def test_verdicts_drop_and_gotos_do_not_come_back() -> None:
    """A drop ends the packet; a goto's return leaves the chain that went there."""
    packet = Packet("10.0.0.1", "10.0.0.2", "tcp", 80)
    rules = (Rule((Is("ip saddr", "10.0.0.0/8"),), Goto("odd")),)
    assert outcomes(table(*rules, m={("10.0.0.2",): Verdict("drop")}), packet) == {Outcome("dropped"): Fraction(1)}
    back = (Rule((), Goto("back")), Rule((), "unreachable"))
    rules = table(*back)
    rules["ip"].chains["back"] = Chain("back", (Rule((), Return()),))
    assert outcomes(rules, packet) == {Outcome("passed"): Fraction(1)}
