"""A change, or a whole ruleset, as text that ``nft -f`` loads.

Text, not JSON: libnftables takes elements from text twice as fast, and a person can read it. Every value that
reaches a line here is a number, a canonical address, a name that svcnat made, or a comment without quotes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from svcnat.ruleset.diff import Change, TableChange, diff
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.layout import LINKS
from svcnat.ruleset.nouns import TABLE, Chain, Data, Elements, Key, Ruleset, Verdict

_PART = 1000  # elements a transaction, where all at once are too many
_DISPATCH = ("frontends", "nodeports", "inside-frontends", "inside-nodeports")
_LINE = 512  # elements a statement: longer lines gain nothing and are hard to read


def render(ruleset: Ruleset) -> str:
    """A script that makes svcnat's tables equal to the ruleset, whatever was in them, in one transaction.

    A family without any element gets no table, since hooks cost every packet; one that was there is removed.
    """
    used = {family: table for family, table in ruleset.items() if any(table.elements.values())}
    unused = [family for family in ruleset if family not in used]
    return "".join(_script(change) for change in diff({}, used).values()) + render_cleanup(unused)


def render_change(change: Change) -> str:
    """The transaction that packets see; empty if the change only sweeps."""
    return "".join(_script(part) for part in change.values() if not part.sweeps_only)


def render_parts(change: Change) -> Iterator[str]:
    """The same as :func:`render_change` in several transactions, for where one would be too large.

    Each is safe alone, unless a table or a set is made anew: first structure, then elements by set, those that packets
    are dispatched by last, so that nothing points at what is not there yet. An element that changes does so in one
    piece.
    """
    for part in change.values():
        if part.sweeps_only:
            continue
        yield _script(replace(part, stale={}, fresh={}, kept={}, forgotten={}))
        stales, freshes = _deleted(part), _added(part)
        for name in sorted({**stales, **freshes}, key=lambda name: name in _DISPATCH):
            stale, fresh = stales.get(name, {}), freshes.get(name, {})
            keys = [*{**stale, **fresh}]
            for start in range(0, len(keys), _PART):
                piece = keys[start : start + _PART]
                yield _script(
                    TableChange(
                        part.family,
                        stale={name: {key: stale[key] for key in piece if key in stale}},
                        fresh={name: {key: fresh[key] for key in piece if key in fresh}},
                    )
                )
        for name, gone in part.forgotten.items():
            keys = [*gone]
            for start in range(0, len(keys), _PART // 2):  # each is written twice
                piece = keys[start : start + _PART // 2]
                yield _script(TableChange(part.family, forgotten={name: {key: gone[key] for key in piece}}))


def render_sweep(change: Change) -> str:
    """The transaction after it, which deletes the chains, sets and objects that nothing needs; empty if none."""
    lines = []
    for part in change.values():
        where = f"{part.family} {TABLE}"
        # All are emptied before the first is deleted: they may jump to each other, and elements of sets to them.
        lines += [f"flush chain {where} {name}\n" for name in part.sweep]
        lines += [f"delete set {where} {name}\n" for name in part.sweep_sets]
        lines += [f"delete chain {where} {name}\n" for name in part.sweep]
        lines += [f"delete {kind} {where} {name}\n" for kind, name in part.sweep_objects]
    return "".join(lines)


def render_sweep_singly(change: Change) -> Iterator[str]:
    """The same as :func:`render_sweep`, a statement a transaction, for where one of them is refused."""
    return (f"{line}\n" for line in render_sweep(change).splitlines())


def render_cleanup(families: Iterable[Family]) -> str:
    """A script that removes the tables of these families, whether or not they exist."""
    return "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in families)


def _script(part: TableChange) -> str:
    return "".join(f"{line}\n" for line in _statements(part))


def _statements(part: TableChange) -> Iterator[str]:
    where = f"{part.family} {TABLE}"
    if part.remake:
        # `destroy` would be one line, but nft 1.0.6 does not know it.
        yield f"add table {where}"
        yield f"delete table {where}"
        yield f"add table {where}"
    for name in part.unhook:
        yield f"flush chain {where} {name}"
        yield f"delete chain {where} {name}"
    # First of all, chains let go of the sets that are replaced.
    for chain in part.refill:
        yield f"flush chain {where} {chain.name}"
    for name in part.regrow:
        yield f"delete set {where} {name}"
    for declared in part.sets:
        yield f"add {'map' if declared.is_map else 'set'} {where} {declared.name} {{ {declared.declaration} }}"
    for chain in part.chains:
        hook = f" {{ {chain.hook} }}" if chain.hook else ""
        yield f"add chain {where} {chain.name}{hook}"
    for chain in (*part.chains, *part.refill):
        yield from _rules(where, chain)
    # Deletions first: an element whose data changed is in both, and adding it while it exists is EEXIST.
    for name, elements in _deleted(part).items():
        yield from _elements("delete", where, name, dict.fromkeys(elements))
    for name, elements in part.forgotten.items():
        # What expires on the way would be ENOENT, and undo everything: adding it while it is there does nothing.
        yield from _elements("add", where, name, elements)
        yield from _elements("delete", where, name, dict.fromkeys(elements))
    for name, elements in _added(part).items():
        yield from _elements("add", where, name, elements)


def _deleted(part: TableChange) -> Elements:
    """What is deleted one by one: a set that is replaced takes its elements along."""
    return {name: elements for name, elements in part.stale.items() if name not in part.regrow}


def _added(part: TableChange) -> Elements:
    """What is added, to sets that are replaced all they hold."""
    return {
        name: {**part.kept.get(name, {}), **part.fresh.get(name, {})}
        for name in dict.fromkeys((*part.kept, *part.fresh))
    }


def _rules(where: str, chain: Chain) -> Iterator[str]:
    return (f"add rule {where} {chain.name} {rule}" for rule in chain.rules)


def _elements(verb: str, where: str, name: str, elements: Mapping[Key, Data]) -> Iterator[str]:
    if name.startswith(LINKS):
        # Whoever made the link chose the name: without quotes, nft would read a word of its own, or worse, in it.
        elements = {tuple(f'"{part}"' for part in key): data for key, data in elements.items()}
    texts = [element_text(key, data) for key, data in elements.items()]
    for start in range(0, len(texts), _LINE):
        yield f"{verb} element {where} {name} {{ {', '.join(texts[start : start + _LINE])} }}"


def element_text(key: Key, data: Data) -> str:
    """One element as nft writes it: ``10.96.0.10 . tcp . 80 comment "shop/web:80" : goto tcp-random-3``."""
    left = " . ".join(map(str, key))
    if data is None:
        return left
    if isinstance(data, Verdict):
        comment = f' comment "{data.comment}"' if data.comment else ""
        return f"{left}{comment} : {data.action}{f' {data.chain}' if data.chain else ''}"
    return f"{left} : {' . '.join(map(str, data))}"
