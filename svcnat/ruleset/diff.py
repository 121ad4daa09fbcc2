"""The difference of two rulesets, as a value.

``diff(outline(a), b)`` says what turns `a` into `b`; with what :mod:`svcnat.kernel` observed in place of ``outline(a)``
it says what the kernel lacks. Structure and elements are apart, since elements are many and travel their own way.
How a change becomes text is :mod:`svcnat.ruleset.nftables`' subject.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Chain, ChainSignature, Data, Elements, Key, Ruleset, Set, Table
from svcnat.ruleset.plan import FAMILIES
from svcnat.ruleset.words import KEYWORDS

# A stranger's name that nft's text may not be able to say: the kernel takes any (nft(8), LEXICAL CONVENTIONS).
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_/.-]*")
# Named objects that every nft can say (nft(8), STATEFUL OBJECTS, FLOWTABLES); svcnat makes none of them.
_OBJECTS = frozenset(
    (
        *("counter", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "secmark", "synproxy"),
        "flowtable",
    )
)


@dataclass(frozen=True, slots=True)
class Outline:
    """What one family's table looks like from outside; ``readable`` is False if it must be made anew.

    ``sets`` maps a name to (signature, size); ``chains`` to hook and rule signatures. A noun that svcnat did not
    make has a signature that no noun of svcnat has. ``objects``: kinds and names of what else has a name there.
    ``strange``: elements that no :data:`Key` can say, by set, as the bytes that the kernel knows them by.
    """

    sets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    chains: Mapping[str, ChainSignature] = field(default_factory=dict)
    elements: Elements = field(default_factory=dict)
    objects: tuple[tuple[str, str], ...] = ()
    strange: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    readable: bool = True


@dataclass(frozen=True, slots=True)
class TableChange:
    """What one table lacks and has too much of.

    ``remake``: the table is dropped and made in one transaction, because a set cannot change its type in place (or
    the table is not there: ``remake`` with nothing to drop is harmless). ``refill``: chains that exist with other
    rules, or must let go of a set. ``regrow``: those of ``sets`` that replace one of their name, which is too small, or
    has counters and should not, or the reverse (:mod:`svcnat.ruleset.regrowth` says how); ``kept`` is what they hold
    besides ``fresh``. ``sweep``, ``sweep_sets`` and ``sweep_objects``: what nothing needs; it goes in a later
    transaction, when no element and no rule points at it. ``strange``: elements that go in an earlier one, as bytes,
    since text cannot say them. ``forgotten``: what packets have learned and must not stay; it may be gone by itself at
    any moment. ``unhook``: base chains that nothing needs, a stranger's above all: packets meet them, so they go now.
    """

    family: Family
    remake: bool = False
    unhook: tuple[str, ...] = ()
    sets: tuple[Set, ...] = ()
    regrow: tuple[str, ...] = ()
    chains: tuple[Chain, ...] = ()
    refill: tuple[Chain, ...] = ()
    sweep: tuple[str, ...] = ()
    sweep_sets: tuple[str, ...] = ()
    sweep_objects: tuple[tuple[str, str], ...] = ()
    strange: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    stale: Elements = field(default_factory=dict)
    fresh: Elements = field(default_factory=dict)
    kept: Elements = field(default_factory=dict)
    forgotten: Elements = field(default_factory=dict)

    @property
    def sweeps_only(self) -> bool:
        """True if packets would see no difference."""
        return not (
            self.remake
            or self.unhook
            or self.sets
            or self.chains
            or self.refill
            or self.strange
            or self.stale
            or self.fresh
            or self.forgotten
        )

    @property
    def size(self) -> int:
        """How many elements are written, one way or the other."""
        parts = self.stale, self.fresh, self.kept, self.forgotten
        return sum(len(held) for part in parts for held in part.values())

    def counts(self) -> dict[str, int]:
        """How many nouns are added and deleted: what ``sync`` prints. A refilled chain counts on both sides."""
        gone = (*self.stale.values(), *self.strange.values(), *self.forgotten.values())
        return {
            "elements added": sum(map(len, self.fresh.values())),
            "elements deleted": sum(map(len, gone)),
            "chains added": len(self.chains) + len(self.refill),
            "chains deleted": len(self.sweep) + len(self.unhook) + len(self.refill),
            "sets added": len(self.sets),
            "sets deleted": len(self.sweep_sets) + len(self.regrow),
            "objects deleted": len(self.sweep_objects),
        }


Change = Mapping[Family, TableChange]  # only the families that differ; empty: nothing to do


def outline(ruleset: Ruleset) -> dict[Family, Outline]:
    """The outline of a ruleset value."""
    return {
        family: Outline(
            {name: (declared.signature, declared.size) for name, declared in table.sets.items()},
            {name: chain.signature for name, chain in table.chains.items()},
            table.elements,
        )
        for family, table in ruleset.items()
    }


def diff(have: Mapping[Family, Outline], want: Ruleset) -> Change:
    """What turns `have` into `want`: empty exactly if they are equal (larger sets are as good)."""
    changes = {}
    for family in FAMILIES:
        if (table := want.get(family)) and (change := _table_change(have.get(family), table)):
            changes[family] = change
    return changes


def _table_change(have: Outline | None, want: Table) -> TableChange | None:
    grown = _grown(have, want) if have and have.readable else None
    if have is None or grown is None or not _can_be_said(have, want):
        fresh = {name: dict(elements) for name, elements in want.elements.items() if elements}
        return TableChange(
            want.family,
            remake=True,
            sets=tuple(want.sets.values()),
            chains=tuple(want.chains.values()),
            fresh=fresh,
        )
    stale, fresh = _element_changes(have.elements, want)
    unhook = tuple(name for name in have.chains if name not in want.chains and have.chains[name].hook)
    sweep = tuple(name for name in have.chains if name not in want.chains and name not in unhook)
    # What is to be swept may use the sets that grow: it lets go of them now.
    emptied = (Chain(name, hook=have.chains[name].hook) for name in sweep) if grown else ()
    change = TableChange(
        want.family,
        unhook=unhook,
        sets=tuple(declared for name, declared in want.sets.items() if name not in have.sets or name in grown),
        regrow=grown,
        chains=tuple(chain for name, chain in want.chains.items() if name not in have.chains),
        refill=(
            *(
                chain
                for name, chain in want.chains.items()
                if name in have.chains and (have.chains[name] != chain.signature or chain.uses(grown))
            ),
            *emptied,
        ),
        sweep=sweep,
        sweep_sets=tuple(name for name in have.sets if name not in want.sets),
        sweep_objects=have.objects,
        strange=have.strange,
        stale=stale,
        fresh=fresh,
        kept=kept({name: want.elements[name] for name in grown}, fresh),
        forgotten=_forgotten(have.elements, want),
    )
    if any(have.chains[chain.name].hook != chain.hook for chain in change.refill):
        return _table_change(None, want)  # a chain cannot change its hook in place
    sweeps = change.sweep or change.sweep_sets or change.sweep_objects
    return change if sweeps or not change.sweeps_only else None


def _can_be_said(have: Outline, want: Table) -> bool:
    """True if nft's text has words for everything of a stranger's that must go."""
    names = {*have.chains, *have.sets} - {*want.chains, *want.sets} | {name for _, name in have.objects}
    sayable = all(_NAME.fullmatch(name) and name not in KEYWORDS for name in names)
    return sayable and all(kind in _OBJECTS for kind, _ in have.objects)


def _grown(have: Outline, want: Table) -> tuple[str, ...] | None:
    """The sets that are there and too small, or with counters that should have none; None if any is of another type."""
    found = []
    for name, declared in want.sets.items():
        signature, size = have.sets.get(name, (declared.signature, declared.size))
        if signature == replace(declared, counter=not declared.counter).signature:
            found.append(name)
        elif signature != declared.signature:
            return None
        elif is_tight(size, len(want.elements.get(name, ()))):
            found.append(name)
    return tuple(found)


def kept(elements: Elements, fresh: Elements) -> dict[str, dict[Key, Data]]:
    """Those of the elements that are not fresh."""
    without = {
        name: {key: data for key, data in held.items() if key not in fresh.get(name, {})}
        for name, held in elements.items()
    }
    return {name: held for name, held in without.items() if held}


def is_tight(size: int, count: int) -> bool:
    """True if a set of this size must grow to hold `count` elements.

    A full set would refuse an element that comes before the deletions of its own transaction are counted: it grows at
    three quarters. It never shrinks: a set that is too large costs little, a remake costs the counters.
    """
    return 4 * count > 3 * size


def _element_changes(have: Elements, want: Table) -> tuple[dict[str, dict[Key, Data]], dict[str, dict[Key, Data]]]:
    """Elements to delete and to add; one whose data differs is in both, since adding it alone would be EEXIST."""
    stale: dict[str, dict[Key, Data]] = {}
    fresh: dict[str, dict[Key, Data]] = {}
    missing = object()
    for name in want.sets:
        if want.sets[name].dynamic:
            continue
        old, new = have.get(name, {}), want.elements.get(name, {})
        gone = {key: data for key, data in old.items() if new.get(key, missing) != data}
        come = {key: data for key, data in new.items() if old.get(key, missing) != data}
        if gone:
            stale[name] = gone
        if come:
            fresh[name] = come
    return stale, fresh


def forget(have: Elements, want: Table) -> TableChange | None:
    """What clients remember, by the maps in `have`, that they must not; None if there is nothing."""
    forgotten = _forgotten(have, want)
    return TableChange(want.family, forgotten=forgotten) if forgotten else None


def _forgotten(have: Elements, want: Table) -> dict[str, dict[Key, Data]]:
    """Learned entries of endpoints that may not be chosen any more, by map."""
    forgotten: dict[str, dict[Key, Data]] = {}
    for learned in want.learned:
        memories = {name: have.get(name, {}) for name in learned.maps}
        clients = {client for memory in memories.values() for client in memory}
        # One map has address and port together, two have one each; half a memory is none.
        remembered = {
            client: tuple(part for memory in memories.values() for part in (memory.get(client) or ()))
            for client in clients
        }
        gone = [client for client, endpoint in remembered.items() if endpoint not in learned.endpoints]
        for name, memory in memories.items():
            if mine := {client: memory[client] for client in gone if client in memory}:
                forgotten[name] = mine
    return forgotten


def apply(change: Change, ruleset: Ruleset) -> dict[Family, Table]:
    """The ruleset that the change makes of another: the law is ``apply(diff(outline(a), b), a) == b``."""
    result = dict(ruleset)
    for family, part in change.items():
        before = Table(family) if part.remake else ruleset.get(family, Table(family))
        chains = {**before.chains, **{chain.name: chain for chain in (*part.chains, *part.refill)}}
        elements: dict[str, dict[Key, Data]] = {declared.name: {} for declared in part.sets}
        elements |= {name: dict(held) for name, held in before.elements.items()}
        for name, gone in (*part.stale.items(), *part.forgotten.items()):
            for key in gone:
                elements.get(name, {}).pop(key, None)
        for name, come in part.fresh.items():
            elements[name].update(come)
        result[family] = replace(
            before,
            sets={
                name: declared
                for name, declared in {**before.sets, **{each.name: each for each in part.sets}}.items()
                if name not in part.sweep_sets
            },
            chains={name: chain for name, chain in chains.items() if name not in (*part.sweep, *part.unhook)},
            elements=elements,
        )
    return result
