"""The shape of a document against its kind: which fields are unknown, which values have the wrong type.

The Structs of :mod:`svcnat.model.objects` say what the shape is. Everything wrong is collected, then pruned, so that
:mod:`svcnat.model.validation` can judge the meaning of what is left. What a value means is not judged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from svcnat.model import schema
from svcnat.model.contents import REDACTED
from svcnat.model.objects import Secret
from svcnat.model.quoting import child, entry, quoted
from svcnat.model.schema import Schema, Sort

_INT64 = 2**63
_MOST_SUGGESTIONS = 100


@dataclass(frozen=True, slots=True)
class Unknown:
    """A field that the kind does not have; `parent` is the path of what it stands in, `meant` a known one like it."""

    parent: str
    key: str
    meant: str

    @property
    def path(self) -> str:
        """The path of the field."""
        return child(self.parent, self.key)

    @property
    def hint(self) -> str:
        """What a message about the field ends with."""
        return f": did you mean {quoted(self.meant)}?" if self.meant else ""


@dataclass(slots=True)
class Shape:
    """A document without its kind, nulls, unknown fields and wrongly typed values, and what those were.

    A `discreet` one says of no value what it is: it may be what a Secret holds, wherever it stands.
    """

    pruned: dict[str, Any] = field(default_factory=dict)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    discreet: bool = False


def check(document: dict[str, Any], kind: type[msgspec.Struct]) -> Shape:
    """Return the shape of a document of `kind`: pairs of field path and reason for what has the wrong type.

    Nulls count as absent. Numbers that are whole are integers (``80.0`` is 80), as in JSON. A wrong item of a list
    leaves an empty one behind, so that the items after it keep their index.
    """
    shape = Shape(discreet=kind is Secret)
    shape.pruned = _struct(schema.of_kind(kind), document, "", shape)
    shape.pruned.pop("apiVersion", None)
    shape.pruned.pop("kind", None)
    return shape


_WRONG: Any = object()


def _say(shape: Shape, path: str, value: Any, reason: str) -> Any:
    shape.wrong.append((path, f"Invalid value: {quoted(REDACTED if shape.discreet else value)}: {reason}"))
    return _WRONG


def _struct(known: Schema, value: Any, path: str, shape: Shape) -> Any:
    if not isinstance(value, dict):
        return _say(shape, path, value, "must be an object, `key: value` lines indented below it")
    pruned: dict[str, Any] = {}
    fields = known.fields
    for key, item in value.items():
        inner = fields.get(key)
        if inner is None:
            shape.unknown.append(Unknown(path, key, _meant(key, fields, shape)))
        elif item is not None:
            result = _CHECKS[inner.sort](inner, item, f"{path}.{key}" if path else key, shape)
            if result is not _WRONG:
                pruned[key] = result
    return pruned


def _list(known: Schema, value: Any, path: str, shape: Shape) -> Any:
    if not isinstance(value, list):
        return _say(shape, path, value, "must be a list, each item beginning with `- `")
    inner, check_item = known.item, _CHECKS[known.item.sort]
    items = [check_item(inner, item, f"{path}[{index}]", shape) for index, item in enumerate(value)]
    empty: Any = {} if inner.sort == "struct" else ""
    return [empty if item is _WRONG else item for item in items]


def _map(known: Schema, value: Any, path: str, shape: Shape) -> Any:
    if not isinstance(value, dict):
        return _say(shape, path, value, "must be an object, `key: value` lines indented below it")
    pruned = {}
    for key, item in value.items():
        if item is not None:
            result = _CHECKS[known.item.sort](known.item, item, entry(path, key), shape)
            if result is not _WRONG:
                pruned[key] = result
    return pruned


def _text(_: Schema, value: Any, path: str, shape: Shape) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        # Whoever wrote `n` or `010` sees here what YAML made of it.
        return _say(shape, path, value, "must be text, not what YAML reads here: put it in quotes")
    return _say(shape, path, value, "must be text")


def _integer(_: Schema, value: Any, path: str, shape: Shape) -> Any:
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, int) and not isinstance(number, bool):
        return number if -_INT64 <= number < _INT64 else _say(shape, path, value, "must fit in 64 bits")
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        return _say(shape, path, value, "must be a number: remove the quotes")
    return _say(shape, path, value, "must be a whole number")


def _number(_: Schema, value: Any, path: str, shape: Shape) -> Any:
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        quotes = isinstance(value, str) and value.replace(".", "", 1).isdecimal()
        return _say(shape, path, value, "must be a number: remove the quotes" if quotes else "must be a number")
    if not math.isfinite(value):
        return _say(shape, path, str(value), "must be a finite number")
    return value if abs(value) < _INT64 else _say(shape, path, value, "must fit in 64 bits")


def _integer_or_text(known: Schema, value: Any, path: str, shape: Shape) -> Any:
    return value if isinstance(value, str) else _integer(known, value, path, shape)


def _boolean(_: Schema, value: Any, path: str, shape: Shape) -> Any:
    return value if isinstance(value, bool) else _say(shape, path, value, "must be true or false, without quotes")


def _anything(known: Schema, value: Any, path: str, shape: Shape) -> Any:
    """Copy what svcnat has no use for: plain containers, and nothing that JSON cannot hold."""
    if isinstance(value, dict):
        copied = {key: _anything(known, item, entry(path, key), shape) for key, item in value.items()}
        return {key: item for key, item in copied.items() if item is not _WRONG}
    if isinstance(value, list):
        items = [_anything(known, item, f"{path}[{index}]", shape) for index, item in enumerate(value)]
        return [item for item in items if item is not _WRONG]
    if isinstance(value, float) and not math.isfinite(value):
        return _say(shape, path, str(value), "must be a finite number")
    return value


_CHECKS: dict[Sort, Callable[[Schema, Any, str, Shape], Any]] = {
    "struct": _struct,
    "list": _list,
    "map": _map,
    "text": _text,
    "integer": _integer,
    "number": _number,
    "integer-or-text": _integer_or_text,
    "boolean": _boolean,
    "anything": _anything,
}


def _meant(key: str, fields: Iterable[str], shape: Shape) -> str:
    """Return the known field that `key` is probably a slip for; empty when none is near.

    Comparing is slow: after a hundred unknown fields in one document, or for a very long one, nobody is helped.
    """
    if len(shape.unknown) >= _MOST_SUGGESTIONS or len(key) > 64:
        return ""
    for name in fields:
        if name.lower() == key.lower():
            return name
    import difflib  # Only a slip pays for this import.

    return next(iter(difflib.get_close_matches(key, fields, n=1)), "")
