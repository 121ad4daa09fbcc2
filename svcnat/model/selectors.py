"""Label selectors: which objects a set of labels picks.

Sources: metav1.LabelSelector, and the text form of ``kubectl -l``. It looks nothing up: callers bring the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from svcnat.errors import UsageError
from svcnat.model.objects import LabelSelector

Operator = Literal["in", "notin", "exists", "absent", "greater", "less"]

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_.]*"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*)?(?P<key>{_KEY})\s*"
    rf"(?:(?P<sign>==|=|!=|>|<)\s*(?P<value>{_VALUE})|(?P<word>in|notin)\s*\((?P<values>[^()]*)\))?\s*(?P<end>,|\Z)"
)
_SIGNS: dict[str, Operator] = {"=": "in", "==": "in", "!=": "notin", ">": "greater", "<": "less"}
_OPERATORS: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether `labels` holds every pair of `selector`; an empty selector is held by all.

    A Service without a selector selects nothing: that is the caller's to know.
    """
    return all(labels.get(key) == value for key, value in selector.items())


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether `labels` meets the condition; a label that is absent meets ``notin``."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case _:  # greater, less
                (bound,) = self.values
                if value is None or not _is_integer(value):
                    return False
                return int(value) > int(bound) if self.operator == "greater" else int(value) < int(bound)


@dataclass(frozen=True, slots=True)
class Selector:
    """A conjunction of requirements; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether `labels` meets every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Return the selector of kubectl's text form: ``a=b,c!=d,e in (x,y),f,!g,h>1``.

        Raises:
            UsageError: `text` is no selector.

        """
        requirements: list[Requirement] = []
        position, more = 0, bool(text.strip())
        while more:
            found = _REQUIREMENT.match(text, position)
            if found is None or (found["absent"] and (found["sign"] or found["word"])):
                rest = text[position : position + 60]
                raise UsageError(f"unable to parse requirement: {rest!r} is not KEY, !KEY, KEY=VALUE or KEY in (...)")
            requirements.append(_requirement(found))
            position, more = found.end(), found["end"] == ","
        return cls(tuple(requirements))

    @classmethod
    def of(cls, selector: LabelSelector) -> Selector:
        """Return the selector of a Deployment, which validation has passed."""
        pairs = (Requirement(key, "in", frozenset((value,))) for key, value in selector.match_labels.items())
        expressions = (
            Requirement(each.key, _OPERATORS[each.operator], frozenset(each.values))
            for each in selector.match_expressions
        )
        return cls((*pairs, *expressions))


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]{1,18}", text) is not None


def _requirement(found: re.Match[str]) -> Requirement:
    key = found["key"]
    if found["absent"]:
        return Requirement(key, "absent")
    if found["word"]:
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(key, "in" if found["word"] == "in" else "notin", values)
    if found["sign"] is None:
        return Requirement(key, "exists")
    operator = _SIGNS[found["sign"]]
    if operator in ("greater", "less") and not _is_integer(found["value"]):
        raise UsageError(f"unable to parse requirement: {key}: for 'Gt', 'Lt' operators, the value must be an integer")
    return Requirement(key, operator, frozenset((found["value"],)))
