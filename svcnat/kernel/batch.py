"""A change of elements as one netlink transaction.

Structure goes through libnftables as text; elements are many and alike, and the kernel takes them as bytes in a tenth
of the time. This module makes the messages and understands what the kernel says of them; it opens no socket
(:mod:`svcnat.kernel.nfnetlink` does), and it does not decide what is to be changed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from svcnat.errors import KernelError, StaleError
from svcnat.kernel.elements import read_elements
from svcnat.kernel.netlink import Refusal, Request, attribute, nest, text, walk
from svcnat.kernel.nfnetlink import DELSETELEM, NEWSETELEM, NFGENMSG, NFPROTO
from svcnat.kernel.packing import packer, runs
from svcnat.ruleset.catalogue import declared
from svcnat.ruleset.diff import Change, TableChange
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nftables import element_text
from svcnat.ruleset.nouns import TABLE, Data, Key

_CREATE, _EXCLUSIVE = 0x400, 0x200  # NLM_F_CREATE, NLM_F_EXCL
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of a transaction, each with the set that it is about."""

    requests: list[Request]
    sets: list[tuple[Family, str]]

    def error(self, refusals: list[Refusal]) -> KernelError:
        """What the first of the kernel's refusals stands for, in words that name the set and the element."""
        refusal = min(refusals, key=lambda each: each.place)
        if refusal.number == errno.ERESTART:
            return StaleError("nftables: another program changed the ruleset of this network namespace meanwhile")
        reason = _REASONS.get(refusal.number) or os.strerror(refusal.number)
        if refusal.detail:
            reason = f"{reason} ({refusal.detail})"
        kind = StaleError if refusal.number in _STALE else KernelError
        return kind(f"nftables: {self._where(refusal)}: {reason}")

    def _where(self, refusal: Refusal) -> str:
        if not 0 <= refusal.place < len(self.sets):
            return f"tables {TABLE}"
        family, name = self.sets[refusal.place]
        element = self._element(refusal)
        return f"{family} {TABLE} {name}{f' {{ {element} }}' if element else ''}"

    def _element(self, refusal: Refusal) -> str:
        """The element at the place that the kernel points to, "" if it points to none."""
        family, name = self.sets[refusal.place]
        body = memoryview(self.requests[refusal.place].body)
        if refusal.offset is None:
            return ""
        for kind, listed in walk(body[NFGENMSG.size :]):
            if kind != _ELEMENTS:
                continue
            # Where the list begins: it is the last attribute of the message.
            position = len(body) - len(listed)
            for _, element in walk(listed):
                end = position + 4 + len(element)
                if position <= refusal.offset < end:
                    found = body[position:end]
                    for key, _ in read_elements(declared(family, name), found, keys_only=True):
                        return element_text(key, None)
                    return ""  # a stranger's, which text cannot say
                position = end
        return ""


# Not what was read: somebody deleted or added it without a commit (what was learned), or the reader is mistaken.
_STALE = frozenset({errno.ENOENT, errno.EEXIST})
_REASONS = {errno.ENFILE: "the set is full"}


def elements_only(change: Change) -> bool:
    """True if the change is one that :func:`batch` can express."""
    return not any(
        part.remake or part.sets or part.chains or part.refill or part.sweep or part.sweep_sets
        for part in change.values()
    )


def batch(change: Change) -> Batch:
    """The transaction of a change of elements alone.

    Raises:
        ValueError: the change is of structure, too.

    """
    if not elements_only(change):
        raise ValueError("a change of structure cannot be written as elements")
    made = Batch([], [])
    for part in change.values():
        for name, request in _requests(part):
            made.requests.append(request)
            made.sets.append((part.family, name))
    return made


def _requests(part: TableChange) -> Iterator[tuple[str, Request]]:
    # The order is that of svcnat.ruleset.nftables: deletions first, since an element whose data changed is in both.
    for name, known in part.strange.items():
        for run in runs(known):
            yield name, Request(DELSETELEM, 0, _head(part.family, name) + nest(_ELEMENTS, run))
    for name, elements in part.stale.items():
        yield from _of_set(part.family, name, elements, DELSETELEM, 0)
    for name, elements in part.forgotten.items():
        # What expires on the way would be ENOENT, and undo everything: adding it while it is there does nothing.
        yield from _of_set(part.family, name, elements, NEWSETELEM, _CREATE)
        yield from _of_set(part.family, name, elements, DELSETELEM, 0)
    for name, elements in part.fresh.items():
        yield from _of_set(part.family, name, elements, NEWSETELEM, _CREATE | _EXCLUSIVE)


def _of_set(
    family: Family, name: str, elements: Mapping[Key, Data], message: int, flags: int
) -> Iterator[tuple[str, Request]]:
    head = _head(family, name)
    for run in packer(declared(family, name)).messages(elements, with_data=message == NEWSETELEM):
        yield name, Request(message, flags, head + nest(_ELEMENTS, run))


def _head(family: Family, name: str) -> bytes:
    return NFGENMSG.pack(NFPROTO[family], 0, 0) + attribute(_TABLE, text(TABLE)) + attribute(_SET, text(name))
