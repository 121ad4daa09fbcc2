"""Judging what the doctor saw: the finding of every check, those that passed too.

Pure: facts in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from svcnat.agent.doctor import machine, network, ports, strangers, sysctls
from svcnat.agent.doctor.facts import Facts
from svcnat.agent.doctor.findings import ORDER, Finding

# What svcnat tells of itself in other ways, and what is advice on any host with the kernel's defaults.
_NO_HINDRANCE = frozenset({"agent", "clock", "configuration", "rules", "state file", "tcp_be_liberal"})


def examine(facts: Facts) -> list[Finding]:
    """Every finding, the worst first; within a severity, those of the machine before those of its nodes."""
    return sorted(_all(facts), key=lambda each: ORDER.index(each.severity))


def hindrances(facts: Facts) -> list[Finding]:
    """What keeps services from working, or may, and no agent can repair: the worst first.

    How the agent, its objects and its rules fare is another question, and advice is the doctor's alone.
    """
    return [
        each for each in examine(facts) if each.severity in ("error", "warning") and each.subject not in _NO_HINDRANCE
    ]


def _all(facts: Facts) -> Iterator[Finding]:
    yield from machine.check(facts)
    for place in facts.places:
        for check in (sysctls.check, network.check, ports.check, strangers.check):
            for finding in check(facts, place):
                yield replace(finding, node=place.node)
