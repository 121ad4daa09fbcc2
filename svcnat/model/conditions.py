"""Conditions in a status: finding the one of a type, and putting another in its place.

What a condition says, and when its time changes, is decided by those who write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from svcnat.model.objects import Condition, Resource


def condition_of(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type, None if nobody set it."""
    return next((each for each in conditions if each.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Tell whether the condition of a type is there, and True."""
    found = condition_of(conditions, kind)
    return found is not None and found.status == "True"


def has_condition(resource: Resource, kind: str, status: str) -> bool:
    """Tell whether an object's condition has a status, and is about the object as it is now; small letters will do.

    Source: ``checkCondition`` of k8s.io/kubectl's ``wait``.
    """
    about: Any = getattr(resource, "status", None)
    for each in getattr(about, "conditions", ()):
        if each.type.casefold() == kind.casefold():
            observed = each.observed_generation
            observed = getattr(about, "observed_generation", None) if observed is None else observed
            current: bool = observed is None or observed >= (resource.metadata.generation or 0)
            return current and bool(each.status.casefold() == status.casefold())
    return False


def with_condition(conditions: Iterable[Condition], new: Condition) -> list[Condition]:
    """Return the conditions with another one in the place of that of its type, if there is one."""
    return [new if each.type == new.type else each for each in conditions]
