"""The text of a file to documents: YAML or JSON, several in one file, each value's line at hand.

It knows nothing of Kubernetes.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from svcnat.model import yaml_events
from svcnat.model.quoting import steps
from svcnat.model.yaml_events import DEEPEST, Fields, Flaw, Items


class Lines:
    """Where the fields of one document stand in its file; JSON is read a second time, for that alone."""

    def __init__(self, root: Any, line: int, text: str = "") -> None:
        self._line = line
        self._root = root
        self._text = text

    @functools.cached_property
    def _tree(self) -> Any:
        if isinstance(self._root, Fields | Items):
            return self._root
        document = next(yaml_events.parse(self._text, self._line), None)
        return document.root if document else None

    def below(self, path: str) -> Lines:
        """Return the lines of the object at `path`, an item of a list."""
        return _Below(self, path)

    def of(self, path: str) -> int:
        """Return the line of a field of the document, or of what is nearest above it."""
        if not path:
            return self._line
        node: Any = self._tree
        line = self._line
        for step, _ in steps(path):
            if isinstance(node, Fields) and step in node.lines:
                node, line = node.get(step), node.lines[step]
            elif isinstance(node, Items) and step.isdecimal() and int(step) < len(node):
                node, line = node[int(step)], node.lines[int(step)]
            else:
                break
        return line


class _Below(Lines):
    """The lines of one item of a list."""

    def __init__(self, whole: Lines, path: str) -> None:
        self._whole = whole
        self._path = path

    def of(self, path: str) -> int:
        separator = "." if path and path[0] != "[" else ""
        return self._whole.of(f"{self._path}{separator}{path}")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file; `root` is None when it is empty or `broken`.

    `text` begins on line `first` of the file and is empty for JSON, in which indentation means nothing. `size` is at
    least the length of what the document holds.
    """

    root: Any
    lines: Lines
    flaws: tuple[Flaw, ...] = ()
    broken: bool = False
    text: str = ""
    first: int = 1
    size: int = 0


def documents(data: bytes) -> Iterator[Document]:
    """Yield the documents of a file; one that cannot be read is broken, and says why in its flaws."""
    text = yaml_events.decode(data)
    if isinstance(text, Flaw):
        yield Document(None, Lines(None, text.line), (text,), broken=True)
        return
    braced = text.lstrip()[:1] in ("{", "[")
    sound = _json_documents(text) if braced else None
    yield from from_yaml(text, 1, braced=braced) if sound is None else sound


def from_yaml(text: str, first: int, *, braced: bool = False) -> Iterator[Document]:
    """Yield the documents of YAML text that begins on line `first`; `braced` says that it is JSON in style."""
    for each in yaml_events.parse(text, first):
        lines = Lines(each.root, each.line)
        shown = "" if braced else each.text
        yield Document(each.root, lines, each.flaws, each.broken, shown, each.first, each.size)


class _NotPlainError(ValueError):
    """JSON that the YAML path must look at: it will say where the fault is."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _NotPlainError
    return fields


def _refuse(constant: str) -> NoReturn:
    raise _NotPlainError(constant)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
_BLANK = re.compile(r"\s*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _json_documents(text: str) -> list[Document] | None:
    """Return the documents of a JSON file (one after another, as kubectl takes them), or None if it is not sound."""
    found: list[Document] = []
    position, line = _BLANK.match(text).end(), 1  # type: ignore[union-attr]
    line += text.count("\n", 0, position)
    try:
        while position < len(text):
            root, end = _DECODER.raw_decode(text, position)
            chunk = text[position:end]
            found.append(Document(root, Lines(root, line, chunk), first=line, size=len(chunk)))
            if _depth(root) > DEEPEST:
                return None
            if _SURROGATE.search(chunk):
                msgspec.json.decode(chunk)
            blank = _BLANK.match(text, end).end()  # type: ignore[union-attr]
            line += text.count("\n", position, blank)
            position = blank
    except (ValueError, RecursionError):
        return None
    return None if "\\u0000" in text else found


def _depth(root: Any) -> int:
    """Return how deep lists and objects are nested, without recursion."""
    depth, level = 0, [root]
    while level:
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        depth += bool(level)
    return depth
