"""Values by key that several holders share: counted, and with a journal of what differs from some moment before.

Whatever is asked of it costs what was changed since that moment. What the values are, and who holds them, is
:mod:`svcnat.ruleset.assembly`'s subject.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)


class Union(Generic[K, V]):
    """Values by key that several holders may share, and what they were at the last settle."""

    __slots__ = ("_before", "_shared", "held")

    def __init__(self) -> None:
        self.held: dict[K, V] = {}
        # What further holders hold, and how many of them: nearly all keys have a single one.
        self._shared: dict[K, dict[V, int]] = {}
        self._before: dict[K, tuple[V, ...]] | None = None  # () if it was not there; None: no journal is kept

    def add(self, key: K, value: V) -> None:
        """One more holder of a key. Of values that differ, the choice does not depend on who came first."""
        if key not in self.held:
            self._set(key, (value,))
            return
        held = self.held[key]
        if value != held and repr(value) < repr(held):
            self._set(key, (value,))
            value = held
        others = self._shared.setdefault(key, {})
        others[value] = others.get(value, 0) + 1

    def remove(self, key: K, value: V) -> None:
        """One holder less; the key goes with its last one."""
        others = self._shared.get(key)
        if others is None:
            self._set(key, ())
            return
        if value not in others:  # it is the one that is held
            value = min(others, key=repr)
            self._set(key, (value,))
        others[value] -= 1
        if not others[value]:
            del others[value]
        if not others:
            del self._shared[key]

    def was(self, key: K) -> tuple[V, ...]:
        """The value at the last settle, () if there was none."""
        return (self._before or {}).get(key, self._now(key))

    def changes(self) -> Iterator[tuple[K, tuple[V, ...], tuple[V, ...]]]:
        """What differs from the last settle: a key, its value then, its value now; () for none."""
        for key, was in (self._before or {}).items():
            if was != (now := self._now(key)):
                yield key, was, now

    def settle(self, leftover: Mapping[K, V]) -> None:
        """Begin a new journal; `leftover` is there, though nobody holds it."""
        self._before = {key: (value,) for key, value in leftover.items()}

    def gone(self) -> dict[K, V]:
        """What was there at the last settle, and is not any more."""
        return {key: was[0] for key, was, now in self.changes() if not now}

    def forget(self) -> None:
        """Keep no journal: there is nothing to compare with."""
        self._before = None

    def _now(self, key: K) -> tuple[V, ...]:
        return (self.held[key],) if key in self.held else ()

    def _set(self, key: K, value: tuple[V, ...]) -> None:
        if self._before is not None:
            self._before.setdefault(key, self._now(key))
        if value:
            self.held[key] = value[0]
        else:
            del self.held[key]
