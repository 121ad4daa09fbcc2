"""svcnat's tables in one network namespace: read, check, commit.

What is read is an :class:`~svcnat.ruleset.diff.Outline`, to be compared with what should be there. This module knows
the nouns of :mod:`svcnat.ruleset.nouns`, and nothing of Services.
"""

from __future__ import annotations

import contextlib
import errno
import select
from collections.abc import Iterable, Iterator

from svcnat.errors import BusyError, KernelError, MissingError, PrivilegeError, StaleError
from svcnat.kernel import netns
from svcnat.kernel.batch import batch
from svcnat.kernel.elements import (
    comment,
    counter,
    identity,
    one_element,
    over_limit,
    read_elements,
    read_verdict,
    width,
)
from svcnat.kernel.events import Overrun, RulesetEvents
from svcnat.kernel.libnftables import Libnftables
from svcnat.kernel.netlink import Attributes, attribute, attributes, nest, text, walk
from svcnat.kernel.nfnetlink import (
    GETCHAIN,
    GETFLOWTABLE,
    GETOBJECT,
    GETRULE,
    GETSET,
    GETSETELEM,
    GETTABLE,
    Connection,
    following,
    is_newer,
)
from svcnat.ruleset.diff import Change, Outline
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import TABLE, ChainSignature, Data, Hook, Key, Set, Table
from svcnat.ruleset.plan import FAMILIES

_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}  # enum nf_inet_hooks
_ACCEPT = 1
_EFFECTS = frozenset({"nat", "masq", "redir", "reject", "tproxy", "dup", "fwd", "notrack", "queue", "synproxy"})
_TABLE_DORMANT = 1
_SET_COMMENT = 7  # NFTNL_UDATA_SET_COMMENT
_VERDICT = 0xFFFFFF00  # NFT_DATA_VERDICT
_INTERVAL, _MAP, _TIMEOUT = 0x4, 0x8, 0x10  # NFT_SET_*
# NFT_OBJECT_*, in nft's words; the others cannot be made or deleted by every nft.
_OBJECTS = {
    1: "counter",
    2: "quota",
    3: "ct helper",
    4: "limit",
    7: "ct timeout",
    8: "secmark",
    9: "ct expectation",
    10: "synproxy",
}
_DYNAMIC_MAXIMUM = 2**32 - 1
_READS = 20  # a foreign commit to our tables every few milliseconds, twenty times in a row, is a fault of its own
_TOLD_SECONDS = 5.0  # for the kernel to tell of a commit whose generation it has already: a large one takes so long


class Namespace:
    """svcnat's tables in one network namespace.

    Sockets are opened there and stay, so the methods work from any thread, one at a time.
    """

    def __init__(self, name_or_path: str | None = None) -> None:
        """Open the namespace by name or path; None is the current one.

        Raises:
            MissingError: no such namespace, or libnftables is not installed.
            PrivilegeError: entering it, or nftables there, is not allowed.

        """
        with netns.entered(name_or_path):
            self._connection = Connection()
            try:
                self._connection.generation()  # the first question tells whether we may ask at all
                self._writer = Libnftables()
                self._events = RulesetEvents()
                self._events.pause()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the sockets."""
        self._events.close()
        self._connection.close()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generation(self) -> int:
        """The ruleset's generation id: any commit of anybody in this namespace moves it."""
        return self._connection.generation()

    def check(self, script: str) -> None:
        """Ask the kernel whether it would take the script; see :meth:`Libnftables.check` for the errors."""
        try:
            self._writer.check(script)
        except PrivilegeError as error:
            raise self._forbidden() from error

    def commit(self, script: str) -> None:
        """Run the script as one transaction; see :meth:`Libnftables.commit` for the errors."""
        if script:
            try:
                self._writer.commit(script)
            except PrivilegeError as error:
                raise self._forbidden() from error

    def commit_elements(self, change: Change, *, generation: int) -> int:
        """Write a change of elements alone as one transaction, if the ruleset is still of that generation.

        Returns:
            The generation that it has now.

        Raises:
            StaleError: somebody else has committed since, or an element is not what the caller thinks: read again.
            TooLargeError: in a user namespace, net.core.wmem_max caps a transaction at some 10,000 elements.
            PrivilegeError: CAP_NET_ADMIN is missing.
            KernelError: any other refusal, naming the set and the element.
            ValueError: the change is not of elements alone.

        """
        made = batch(change)
        if not made.requests:
            return generation
        if refusals := self._connection.transact(made.requests, generation):
            if any(each.number == errno.EPERM for each in refusals):
                raise self._forbidden()
            raise made.error(refusals)
        return following(generation)

    def families(self) -> list[Family]:
        """The families that have an svcnat table."""
        return [family for family in FAMILIES if self._table(family) is not None]

    def read(self, tables: Iterable[Table]) -> dict[Family, Outline]:
        """The outlines of those tables that exist; the declarations say how elements are to be read.

        Others may go on changing tables of their own meanwhile: events tell whether they left these alone.

        Raises:
            StaleError: others keep changing these tables, so that no consistent answer could be had.

        """
        tables = tuple(tables)
        self._events.resume()
        try:
            for _ in range(_READS):
                before = self.generation()
                with contextlib.suppress(StaleError, MissingError):  # a set may go while it is being read
                    found = {table.family: outline for table in tables if (outline := self._outline(table)) is not None}
                    if self._are_as_at(before):
                        return found
        finally:
            self._events.pause()
        raise StaleError("another program keeps changing svcnat's tables in this network namespace")

    def _are_as_at(self, generation: int) -> bool:
        """True if nobody has touched our tables since they were of this generation, as the events tell."""
        now, known = self.generation(), generation
        while True:
            for event in self._events.read():
                if isinstance(event, Overrun):
                    return False
                if event.ours and not is_newer(known, event.generation):
                    return False
                if is_newer(event.generation, known):
                    if event.generation != following(known):
                        return False  # what came between was lost
                    known = event.generation
            if not is_newer(now, known):
                return True
            # The generation moves before the kernel tells of it.
            if not select.select([self._events], [], [], _TOLD_SECONDS)[0]:
                return False

    def remembered(self, table: Table) -> dict[str, dict[Key, Data]]:
        """What packets have learned, by map; a map that is not there is left out."""
        found = {}
        for learned in table.learned:
            for name in learned.maps:
                with contextlib.suppress(MissingError):
                    found[name] = self._elements(table.family, table.sets[name])
        return found

    def counters(self, family: Family, declared: Set, keys: Iterable[Key]) -> dict[Key, tuple[int, int] | None]:
        """The (packets, bytes) of these elements, one question each; None for those without a counter.

        Keys that are not there are left out.
        """
        counted: dict[Key, tuple[int, int] | None] = {}
        for key in keys:
            query = _in_set(declared.name) + nest(3, one_element(declared, key))
            if answer := self._connection.get(GETSETELEM, family, payload=query):
                for _, element in walk(answer[3]):
                    counted[key] = counter(element)
        return counted

    def about(self, family: Family) -> str:
        """The comment of the first rule of chain ``about``: who made this table; "" if there is none."""
        chain = attribute(1, text(TABLE)) + attribute(2, text("about"))
        for rule in self._connection.dump_in(GETRULE, family, chain):
            return comment(rule.get(7))
        return ""

    def _forbidden(self) -> KernelError:
        """What EPERM means where :meth:`generation` may be asked: it is this table that may not be changed."""
        self.generation()
        return BusyError("nftables: another program owns svcnat's table (flags owner): end it")

    def _table(self, family: Family) -> Attributes | None:
        return self._connection.get(GETTABLE, family, payload=attribute(1, text(TABLE)))

    def _outline(self, table: Table) -> Outline | None:
        found = self._table(table.family)
        if found is None:
            return None
        if int.from_bytes(found[2], "big") & _TABLE_DORMANT or comment(found.get(6)):
            return Outline(readable=False)  # it must be made anew: what is in it is of no interest
        sets = dict(self._sets(table))
        memories = {name for learned in table.learned for name in learned.maps}
        strange: dict[str, list[bytes]] = {}
        elements = {
            name: self._elements(table.family, declared, strange.setdefault(name, []))
            for name, declared in table.sets.items()
            if sets.get(name, ("",))[0] == declared.signature and (not declared.dynamic or name in memories)
        }
        for name, limit in table.limits.items():
            if sets.get(name, ("",))[0] == table.sets[name].signature:
                strange[name] = self._otherwise_limited(table.family, name, limit)
        return Outline(
            sets=sets,
            chains=self._chains(table),
            elements=elements,
            objects=tuple(self._objects(table.family)),
            strange={name: tuple(found) for name, found in strange.items() if found},
        )

    def _otherwise_limited(self, family: Family, name: str, limit: str) -> list[bytes]:
        """The clients that have another limit than packets give them."""
        return [
            identity(attributes(element))
            for answer in self._connection.dump_in(GETSETELEM, family, _in_set(name))
            if 3 in answer
            for _, element in walk(answer[3])
            if over_limit(element) != limit
        ]

    def _objects(self, family: Family) -> Iterator[tuple[str, str]]:
        """The kinds and names of what is neither set nor chain."""
        ours = attribute(1, text(TABLE))
        for answer in self._connection.dump_in(GETOBJECT, family, ours):
            if _name(answer[1]) == TABLE:
                number = int.from_bytes(answer[3], "big")
                yield _OBJECTS.get(number, str(number)), _name(answer[2])
        for answer in self._connection.dump_in(GETFLOWTABLE, family, ours):
            if _name(answer[1]) == TABLE:
                yield "flowtable", _name(answer[2])

    def _sets(self, table: Table) -> Iterator[tuple[str, tuple[str, int]]]:
        for answer in self._connection.dump_in(GETSET, table.family, attribute(1, text(TABLE))):
            declared = table.sets.get(_name(answer[2]))
            signature = comment(answer.get(13), _SET_COMMENT).removeprefix("#")
            if declared and not _has_form_of(declared, answer):
                signature = ""  # somebody made another set, with its comment
            size = attributes(answer[9]).get(1) if 9 in answer else None
            yield _name(answer[2]), (signature, int.from_bytes(size, "big") if size else _DYNAMIC_MAXIMUM)

    def _chains(self, table: Table) -> dict[str, ChainSignature]:
        ours = attribute(1, text(TABLE))
        rules: dict[str, list[str]] = {}
        for answer in self._connection.dump_in(GETRULE, table.family, ours):
            rules.setdefault(_name(answer[2]), []).append(f"{comment(answer.get(7))} {_effect(answer.get(4))}")
        return {
            name: ChainSignature(_hook(answer, mine=name in table.chains), tuple(rules.get(name, ())))
            for answer in self._connection.dump(GETCHAIN, table.family)
            if _name(answer[1]) == TABLE
            for name in [_name(answer[3])]
        }

    def _elements(self, family: Family, declared: Set, strange: list[bytes] | None = None) -> dict[Key, Data]:
        return {
            key: data
            for answer in self._connection.dump_in(GETSETELEM, family, _in_set(declared.name))
            if 3 in answer
            for key, data in read_elements(declared, answer[3], strange=strange)
        }


def _name(raw: memoryview) -> str:
    return bytes(raw).rstrip(b"\0").decode(errors="replace")


def _in_set(name: str) -> bytes:
    return attribute(1, text(TABLE)) + attribute(2, text(name))


def _effect(expressions: memoryview | None) -> str:
    """Which sets a rule asks and what it does: see :attr:`svcnat.ruleset.nouns.Rule.effect`."""
    parts = []
    for _, element in walk(expressions) if expressions is not None else ():
        expression = attributes(element)
        name = _name(expression[1])
        held = attributes(expression[2]) if 2 in expression else {}
        if name in ("lookup", "dynset"):
            parts.append(f"{name}:{_name(held[1])}")
        elif name == "immediate" and 2 in held and (verdict := read_verdict(held[2])):
            parts.append(verdict.action if not verdict.chain else f"{verdict.action}:{verdict.chain}")
        elif name in _EFFECTS:
            parts.append(name)
    return " ".join(parts)


def _has_form_of(declared: Set, found: Attributes) -> bool:
    """True if a set of the kernel's holds what the declared one does, and as long."""
    flags = int.from_bytes(found.get(3, b""), "big")
    made = [name for name, bit in (("interval", _INTERVAL), ("timeout", _TIMEOUT)) if flags & bit]
    if made != [name for name in ("interval", "timeout") if name in declared.flags]:
        return False
    if bool(flags & _MAP) != declared.is_map or _number(found.get(5)) != width(declared.fields):
        return False
    if (_number(found.get(6)) == _VERDICT) != (declared.data_fields == ("verdict",)):
        return False
    if (
        declared.is_map
        and declared.data_fields != ("verdict",)
        and _number(found.get(7)) != width(declared.data_fields)
    ):
        return False
    return abs(_number(found.get(11)) - 1000 * declared.timeout) < 1000  # the kernel rounds


def _number(raw: memoryview | None) -> int:
    return int.from_bytes(raw or b"", "big")


def _hook(chain: Attributes, *, mine: bool) -> Hook | None:
    """Where a base chain hangs; one of `mine` that svcnat would not have made gets a name that no hook has."""
    if mine and comment(chain.get(12)):
        return Hook("?", 0)
    if 4 not in chain:
        return None
    hook = attributes(chain[4])
    number, priority = int.from_bytes(hook[1], "big"), int.from_bytes(hook[2], "big", signed=True)
    accepts = int.from_bytes(chain[5], "big") == _ACCEPT
    return Hook(_HOOKS.get(number, "?") if accepts else "?", priority, _name(chain[7]))
