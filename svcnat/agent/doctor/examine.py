"""Judging what the doctor saw: the finding of every check, those that passed too.

Pure: facts in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from svcnat.agent.doctor import machine, network, ports, strangers, sysctls
from svcnat.agent.doctor.facts import Facts
from svcnat.agent.doctor.findings import ORDER, Finding


def examine(facts: Facts) -> list[Finding]:
    """Every finding, the worst first; within a severity, those of the machine before those of its nodes."""
    return sorted(_all(facts), key=lambda each: ORDER.index(each.severity))


def _all(facts: Facts) -> Iterator[Finding]:
    yield from machine.check(facts)
    for place in facts.places:
        for check in (sysctls.check, network.check, ports.check, strangers.check):
            for finding in check(facts, place):
                yield replace(finding, node=place.node)
