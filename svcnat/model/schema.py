"""What may stand where in a manifest: the Structs as a tree that can be asked about a key or an item.

It judges no document: :mod:`svcnat.model.shape` checks values by it, :mod:`svcnat.model.indentation` finds places.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Sort = Literal["struct", "list", "map", "text", "integer", "number", "integer-or-text", "boolean", "anything"]


@dataclass(frozen=True, slots=True)
class Schema:
    """A place: a struct has named `fields`, a list (and a map) has `items` that are all alike."""

    sort: Sort
    fields: dict[str, Schema] = field(default_factory=dict)
    items: Schema | None = None

    @property
    def item(self) -> Schema:
        """What an item of a list, or a value of a map, may be."""
        return self.items or ANYTHING

    def at(self, key: str) -> Schema | None:
        """What stands under `key`; None when nothing may."""
        return self.item if self.sort == "map" else self.fields.get(key)


ANYTHING = Schema("anything")
_TEXT = Schema("text")


@functools.cache
def of_kind(kind: type[msgspec.Struct]) -> Schema:
    """Return the tree of a kind's documents."""
    root = _of_type(msgspec.inspect.type_info(kind))
    return Schema("struct", {"apiVersion": _TEXT, "kind": _TEXT, **root.fields})


def _of_type(info: msgspec.inspect.Type) -> Schema:
    match info:
        case msgspec.inspect.StructType():
            return Schema("struct", {each.encode_name: _of_type(each.type) for each in info.fields})
        case msgspec.inspect.ListType():
            return Schema("list", items=_of_type(info.item_type))
        case msgspec.inspect.DictType():
            return Schema("map", items=_of_type(info.value_type))
        case msgspec.inspect.UnionType():
            members = [each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)]
            return _of_type(members[0]) if len(members) == 1 else Schema("integer-or-text")
        case msgspec.inspect.StrType():
            return _TEXT
        case msgspec.inspect.IntType():
            return Schema("integer")
        case msgspec.inspect.FloatType():
            return Schema("number")
        case msgspec.inspect.BoolType():
            return Schema("boolean")
        case _:
            return ANYTHING
