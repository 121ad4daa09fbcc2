"""Tables of svcnat's own kind for tests of elements: every set there is, a chain for each to point at, no Service."""

from __future__ import annotations

from dataclasses import replace

from svcnat.kernel.netlink import attribute, attributes, text, walk
from svcnat.kernel.nfnetlink import GETSETELEM
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset import layout
from svcnat.ruleset.diff import TableChange
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nftables import render_change
from svcnat.ruleset.nouns import TABLE, Elements, Set, Verdict
from svcnat.ruleset.plan import FAMILIES, Settings
from svcnat.ruleset.selectors import Learner, Selector

LEARNER = Learner("1f2e3d", "tcp", 60, local=True)
CHOSEN = Selector("tcp", "random", 1)
_EXPIRATION = 5  # NFTA_SET_ELEM_EXPIRATION


def sets(family: Family) -> dict[str, Set]:
    return {each.name: each for each in (*layout.sets(family), *LEARNER.sets(family))}


def make(kernel: Namespace, *, size: int = 4096, families: tuple[Family, ...] = FAMILIES) -> int:
    """Make the tables of both families, empty; the generation then."""
    parts = {}
    for family in families:
        declared = tuple(replace(each, size=each.size or size) for each in sets(family).values())
        chains = [*layout.chains(family, Settings(), "tests"), *CHOSEN.chains(family, Settings())]
        chains += LEARNER.chains(family, Settings())
        parts[family] = TableChange(family, remake=True, sets=declared, chains=tuple(chains))
    kernel.commit(render_change(parts))
    return kernel.generation()


def targets(name: str) -> tuple[Verdict, ...]:
    """What the elements of a verdict map may say: the kernel follows every jump, and refuses what cannot work."""
    drop = Verdict("drop", comment="shop/web:80")
    if "origins" in name:
        return drop, Verdict("goto", "masquerade-all"), Verdict("goto", "masquerade-node", "x" * 117)
    if "learners" in name:
        return drop, Verdict("goto", LEARNER.name, "shop/web:80")
    return drop, Verdict("drop"), Verdict("goto", "refuse", "shop/web:80"), Verdict("goto", CHOSEN.name, "a b#1")


def dump(kernel: Namespace, family: Family, name: str) -> set[tuple[tuple[int, bytes], ...]]:
    """The elements of a set as the kernel holds them, every byte but for when they expire."""
    query = attribute(1, text(TABLE)) + attribute(2, text(name))
    return {
        tuple((kind, bytes(value)) for kind, value in sorted(attributes(element).items()) if kind != _EXPIRATION)
        for answer in kernel._connection.dump_in(GETSETELEM, family, query)
        if 3 in answer
        for _, element in walk(answer[3])
    }


def change(family: Family = "ip", **kinds: Elements) -> dict[Family, TableChange]:
    return {family: TableChange(family, **kinds)}
