"""The ruleset of all services as one value that is edited: what each change costs follows the change.

A service's part is a :class:`Fragment`; a ruleset is the counted union of fragments, so that what services share (an
endpoint's hairpin, the selector chain of a shape) goes when its last user goes. A journal holds what differs from the
ruleset that the kernel was last known to have. Neither the kernel nor a Service is known here: see
:mod:`svcnat.ruleset.diff` for the comparison with what a kernel really holds, :mod:`svcnat.ruleset.compile` for how
fragments are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from svcnat.ruleset import layout
from svcnat.ruleset.diff import Change, Outline, TableChange, diff, is_tight, kept
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.journal import Union
from svcnat.ruleset.nouns import Chain, Data, Elements, Key, Learned, Ruleset, Set, Table
from svcnat.ruleset.plan import FAMILIES, Identity, Settings, of_family
from svcnat.ruleset.selectors import Shape

MOST_COUNTED = 50_000  # slots of a table: with a counter each, the kernel takes 0.3 s to add them (Linux 6.18)


@dataclass(frozen=True, slots=True)
class Fragment:
    """One Service's part of one family's table: its elements, the shapes it goes to, what its clients may remember."""

    family: Family
    elements: Elements = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    learned: tuple[Learned, ...] = ()


class Assembly:
    """The counted union of fragments, and its difference to what it was when the kernel last had it.

    The law: ``change()`` is what ``diff(outline(before), ruleset())`` says, where `before` is the ruleset at the last
    :meth:`settle`, or nothing if there was none. A family that no service has used yet has no table in the kernel;
    once it has one, it stays.
    """

    def __init__(self, settings: Settings, origin: str = "manifests") -> None:
        """Begin without any service, for a kernel without tables; `origin` goes into the ``about`` chain."""
        self._fragments: dict[Identity, tuple[Fragment, ...]] = {}
        self._before: dict[Identity, tuple[Fragment, ...]] = {}  # of services that changed since the last settle
        self._tables = {family: _Table(family, settings, origin) for family in FAMILIES}

    def retune(self, settings: Settings) -> bool:
        """Take other settings, if only elements of the node itself follow from what is new about them.

        Otherwise, because chains follow from it, or whether endpoints are counted, nothing changes, and it is False.
        """
        if not all(table.fits(settings) for table in self._tables.values()):
            return False
        for table in self._tables.values():
            table.retune(settings)
        return True

    @property
    def fragments(self) -> Mapping[Identity, tuple[Fragment, ...]]:
        """What every service has put here; it follows the assembly."""
        return MappingProxyType(self._fragments)

    def put(self, identity: Identity, fragments: Iterable[Fragment]) -> None:
        """Exchange a service's fragments, or add those of a new one."""
        fragments = tuple(fragments)
        old = self._fragments.get(identity, ())
        self._before.setdefault(identity, old)
        self._exchange(identity, old, fragments)

    def drop(self, identity: Identity) -> None:
        """Take a service's fragments away; what another service has too stays."""
        self.put(identity, ())

    def change(self) -> Change:
        """What turns the ruleset of the last settle into the present one; empty if nothing does.

        What packets have learned is not in it: see :meth:`learned`.
        """
        changes = {family: table.change() for family, table in self._tables.items()}
        return {family: change for family, change in changes.items() if change}

    def settle(self, *, swept: bool = True) -> None:
        """Begin a new journal: the kernel has the present ruleset, because :meth:`change` was committed.

        Without `swept`, what nothing needs is still there: it is in the next change again, unless it is needed by then.
        """
        for table in self._tables.values():
            table.settle(swept=swept)
        self._before.clear()

    def adopt(self, have: Mapping[Family, Outline], change: Change, *, swept: bool = True) -> None:
        """Begin a new journal after a pass that compared with the kernel itself.

        The kernel had `have`, and has the present ruleset now, because `change`, the difference of the two, was
        committed. Its sets may be larger than the ruleset asks for; `swept` as in :meth:`settle`.
        """
        for family, table in self._tables.items():
            table.adopt(have.get(family), change.get(family), swept=swept)
        self._before.clear()

    def undo(self) -> None:
        """Go back to the ruleset of the last settle."""
        before, self._before = self._before, {}
        for identity, fragments in before.items():
            self._exchange(identity, self._fragments.get(identity, ()), fragments)

    def learned(self) -> Ruleset:
        """The maps of the kernel in which packets may have remembered what the change takes away.

        The tables hold nothing else: read those maps, and :func:`svcnat.ruleset.diff.forget` says what must go. Ask
        before :meth:`settle`, and read once more after the commit: what was translated before it is learned after.
        """
        tables = {family: table.learned() for family, table in self._tables.items()}
        return {family: table for family, table in tables.items() if table.learned}

    def ruleset(self) -> Ruleset:
        """The whole ruleset of both families."""
        return {family: table.value() for family, table in self._tables.items()}

    def _exchange(self, identity: Identity, old: tuple[Fragment, ...], new: tuple[Fragment, ...]) -> None:
        goes, comes = ({fragment.family: fragment for fragment in fragments} for fragments in (old, new))
        for family in goes.keys() | comes.keys():
            self._tables[family].exchange(goes.get(family, Fragment(family)), comes.get(family, Fragment(family)))
        if new:
            self._fragments[identity] = new
        else:
            self._fragments.pop(identity, None)


class _Made:
    """The nouns of a shape, made when its first user comes, and how many users it has."""

    __slots__ = ("chains", "sets", "users")

    def __init__(self, shape: Shape, family: Family, settings: Settings) -> None:
        self.chains = tuple(shape.chains(family, settings))
        self.sets = tuple(shape.sets(family))
        self.users = 0


class _Table:
    """One family's part of an assembly."""

    def __init__(self, family: Family, settings: Settings, origin: str) -> None:
        self._family, self._settings, self._origin = family, settings, origin
        self._constant = layout.chains(family, settings, origin)
        self._elements: dict[str, Union[Key, Data]] = {each.name: Union() for each in layout.sets(family)}
        self._backends = [union for name, union in self._elements.items() if "backends-" in name]
        self._node = Fragment(family, _node_elements(family, settings))
        self._shapes: dict[Shape, _Made] = {}
        # By name. What chains and sets of one name hold never differs between services: state that is a service
        # port's own has its ident in its name.
        self._chains: Union[str, Chain] = Union()
        self._sets: Union[str, Set] = Union()
        self._learned: Union[tuple[str, ...], Learned] = Union()
        self._unions: list[Union[Any, Any]] = [*self._elements.values(), self._chains, self._sets, self._learned]
        self._users = 0  # fragments with elements
        # What the kernel has: None without a table; else the size of each set, and whether endpoints have counters.
        self._sizes: Mapping[str, int] | None = None
        self._counted = False

    def fits(self, settings: Settings) -> bool:
        """True if no chain would be another one with these settings, and no set."""
        return (
            settings.endpoint_counters == self._settings.endpoint_counters
            and layout.chains(self._family, settings, self._origin) == self._constant
            and all(tuple(shape.chains(self._family, settings)) == made.chains for shape, made in self._shapes.items())
        )

    def retune(self, settings: Settings) -> None:
        """Take settings that fit: what the node itself brings may be other elements."""
        node = Fragment(self._family, _node_elements(self._family, settings))
        if self._users:
            self._swap(self._node, node)
        self._settings, self._node = settings, node

    def exchange(self, old: Fragment, new: Fragment) -> None:
        """Replace a service's fragment; what is in both is not touched."""
        self._swap(old, new)
        users = self._users - bool(old.elements) + bool(new.elements)
        # The node's own elements are there as long as any service's are: a family that none uses stays empty.
        if bool(users) is not bool(self._users):
            nothing = Fragment(self._family)
            self._swap(*((nothing, self._node) if users else (self._node, nothing)))
        self._users = users

    def _swap(self, old: Fragment, new: Fragment) -> None:
        # What goes, goes first: a chain of a name whose rules change is in both.
        for name, key, data in _without(old.elements, new.elements):
            self._elements[name].remove(key, data)
        for shape in set(old.shapes) - set(new.shapes):
            self._leave(shape)
        for learned in old.learned:
            self._learned.remove(learned.maps, learned)
        for name, key, data in _without(new.elements, old.elements):
            self._elements[name].add(key, data)
        for shape in set(new.shapes) - set(old.shapes):
            self._enter(shape)
        for learned in new.learned:
            self._learned.add(learned.maps, learned)

    def _enter(self, shape: Shape) -> None:
        made = self._shapes.get(shape)
        if made is None:
            made = self._shapes[shape] = _Made(shape, self._family, self._settings)
            for chain in made.chains:
                self._chains.add(chain.name, chain)
            for declared in made.sets:
                self._sets.add(declared.name, declared)
        made.users += 1

    def _leave(self, shape: Shape) -> None:
        made = self._shapes[shape]
        made.users -= 1
        if not made.users:
            del self._shapes[shape]
            for chain in made.chains:
                self._chains.remove(chain.name, chain)
            for declared in made.sets:
                self._sets.remove(declared.name, declared)

    def change(self) -> TableChange | None:
        """What the kernel's table lacks, and has too much of."""
        if self._remakes():
            return diff({}, {self._family: self.value()})[self._family]
        grown = self._grown()
        stale: dict[str, dict[Key, Data]] = {}
        fresh: dict[str, dict[Key, Data]] = {}
        for name, union in self._elements.items():
            for key, was, now in union.changes():
                if was:
                    stale.setdefault(name, {})[key] = was[0]
                if now:
                    fresh.setdefault(name, {})[key] = now[0]
        chains, sets = tuple(self._chains.changes()), tuple(self._sets.changes())
        sweep = tuple(name for name, _, now in chains if not now)
        refill = [now[0] for _, was, now in chains if was and now and was[0].signature != now[0].signature]
        change = TableChange(
            self._family,
            sets=(*grown.values(), *(now[0] for _, was, now in sets if not was)),
            regrow=tuple(grown),
            chains=tuple(now[0] for _, was, now in chains if not was),
            refill=(*refill, *(self._emptied(refill, sweep, grown) if grown else ())),
            sweep=sweep,
            sweep_sets=tuple(name for name, _, now in sets if not now),
            stale=stale,
            fresh=fresh,
            kept=kept({name: self._elements[name].held for name in grown}, fresh),
        )
        return None if change == TableChange(self._family) else change

    def _emptied(self, refill: Iterable[Chain], sweep: Iterable[str], grown: Collection[str]) -> Iterator[Chain]:
        """The further chains that must let go of the sets that grow: they use them, or are to be swept."""
        known = {chain.name for chain in refill}
        yield from (chain for chain in self._constant if chain.uses(grown))
        for name, chain in self._chains.held.items():
            if name not in known and chain.uses(grown) and self._chains.was(name):
                yield chain
        yield from (Chain(name) for name in sweep)

    def settle(self, *, swept: bool) -> None:
        """Begin a new journal: the change was committed."""
        if self._remakes():
            self._begin({declared.name: declared.size for declared in self._declared()})
        elif self._sizes is not None:
            grown = self._grown()
            chains = {name: Chain(name) for name in gone} if (gone := self._chains.gone()) and grown else gone
            left = () if swept else (chains, self._sets.gone())
            self._begin({**self._sizes, **{name: declared.size for name, declared in grown.items()}}, *left)

    def adopt(self, have: Outline | None, change: TableChange | None, *, swept: bool) -> None:
        """Begin a new journal: the kernel had `have`, and `change` was committed."""
        part = change or TableChange(self._family)
        if part.remake:
            self._begin({declared.name: declared.size for declared in part.sets})
        elif have:
            sizes = {name: size for name, (_, size) in have.sets.items()}
            sizes |= {declared.name: declared.size for declared in part.sets}
            self._begin(sizes, *(() if swept else self._left(have, part)))
        else:
            self._sizes = None
            for union in self._unions:
                union.forget()

    def _left(self, have: Outline, part: TableChange) -> tuple[dict[str, Chain], dict[str, Set]]:
        """What should have been swept: as it was known, or with rules and a type that nobody wants."""
        chains, sets = self._chains.gone(), self._sets.gone()
        return (
            {
                name: chains[name]
                if not part.regrow and name in chains and chains[name].signature == have.chains[name]
                else Chain(name)
                for name in part.sweep
            },
            {
                name: sets[name] if name in sets and sets[name].signature == have.sets[name][0] else Set(name, "", ())
                for name in part.sweep_sets
            },
        )

    def _begin(
        self, sizes: Mapping[str, int], chains: Mapping[str, Chain] | None = None, sets: Mapping[str, Set] | None = None
    ) -> None:
        """Note from now on what changes in a table with sets of these sizes; chains and sets may be left over in it."""
        self._sizes, self._counted = sizes, self._counts()
        for union in self._unions:
            union.settle({})
        self._chains.settle(chains or {})
        self._sets.settle(sets or {})

    def learned(self) -> Table:
        """The maps that may hold what must not stay."""
        maps: dict[str, Set] = {}
        found: list[Learned] = []
        for names, was, now in () if self._remakes() else self._learned.changes():
            # Before, there were no maps, or none that could hold anything else.
            if not now or not any(map(self._sets.was, names)) or (was and was[0].endpoints <= now[0].endpoints):
                continue
            found.append(now[0])
            maps |= {name: self._sets.held[name] for name in names}
        return Table(self._family, sets=maps, learned=tuple(found))

    def value(self) -> Table:
        """The whole table."""
        sets = {declared.name: declared for declared in self._declared()}
        chains = {chain.name: chain for chain in self._constant}
        for _, made in sorted(self._shapes.items(), key=lambda each: each[0].name):
            sets |= {declared.name: declared for declared in made.sets}
            chains |= {chain.name: chain for chain in made.chains}
        return Table(
            self._family,
            sets,
            chains,
            {name: dict(union.held) for name, union in self._elements.items()},
            tuple(learned for _, learned in sorted(self._learned.held.items())),
        )

    def _declared(self) -> Iterator[Set]:
        """The sets that every table has."""
        for declared in layout.sets(self._family, endpoint_counters=self._counts()):
            yield sized(declared, len(self._elements[declared.name].held))

    def _counts(self) -> bool:
        """True if each endpoint gets a counter: as configured, or while there are not too many to add quickly."""
        if self._settings.endpoint_counters is not None:
            return self._settings.endpoint_counters
        return sum(len(union.held) for union in self._backends) <= MOST_COUNTED

    def _remakes(self) -> bool:
        """True if the kernel's table must be made anew, or for the first time."""
        if self._sizes is None:
            return self._users > 0
        return any(was and now and was[0].signature != now[0].signature for _, was, now in self._sets.changes())

    def _grown(self) -> dict[str, Set]:
        """The sets of the kernel that must grow, or gain or lose their counters, as they must be."""
        if self._sizes is None:
            return {}
        turned = self._counts() is not self._counted
        names = {
            name
            for name, union in self._elements.items()
            if is_tight(self._sizes[name], len(union.held)) or (turned and "backends-" in name)
        }
        return {declared.name: declared for declared in self._declared() if declared.name in names} if names else {}


def _without(elements: Elements, others: Elements) -> Iterator[tuple[str, Key, Data]]:
    """Those that the others lack, or have with other data: set, key and data."""
    for name, mine in elements.items():
        theirs = others.get(name, {})
        for key, data in mine.items():
            if key not in theirs or theirs[key] != data:
                yield name, key, data


def _node_elements(family: Family, settings: Settings) -> Elements:
    """What the node itself brings, whatever its services are."""
    return {
        "nodeport-ips": {(address,): None for address in of_family(settings.node_port_addresses, family)},
        layout.LINKS: {(bridge, bridge): None for bridge in settings.bridges},
    }


def sized(declared: Set, count: int) -> Set:
    """The set with room for twice `count` elements, in powers of two, so that growth is rare."""
    size = layout.SMALLEST_SIZE
    while size < 2 * count:
        size *= 2
    return replace(declared, size=size)
