"""Conditions in a status: finding the one of a type, and putting another in its place.

What a condition says, and when its time changes, is decided by those who write it.
"""

from __future__ import annotations

from collections.abc import Iterable

from svcnat.model.objects import Condition


def condition_of(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type, None if nobody set it."""
    return next((each for each in conditions if each.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Tell whether the condition of a type is there, and True."""
    found = condition_of(conditions, kind)
    return found is not None and found.status == "True"


def with_condition(conditions: Iterable[Condition], new: Condition) -> list[Condition]:
    """Return the conditions with another one in the place of that of its type, if there is one."""
    return [new if each.type == new.type else each for each in conditions]
