"""YAML text to plain values that know their lines.

The C parser's events feed a builder of our own, because the library's composers keep no line for a key, let a repeated
key win silently, expand alias bombs and overflow the stack on deep nesting. It knows nothing of Kubernetes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from svcnat.model.quoting import child, printable, quoted
from svcnat.model.yaml_scalars import Scalar, key_text, resolve

if TYPE_CHECKING:
    import yaml  # imported where YAML is read: most commands read none

DEEPEST = 200
"""The deepest nesting of lists and mappings."""

MOST_ALIASED = 3 * 1024 * 1024
"""The most text, in characters, that the aliases of one document may repeat."""


class Fields(dict[str, Any]):
    """A mapping: `line` is where it starts, `lines` where each of its keys stands."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class Items(list[Any]):
    """A list: `line` is where it starts, `lines` where each of its items stands."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in the text that no document may have; `field` is empty where it is unknown."""

    line: int
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document: `root` is None when it is empty or `broken`; `text` begins on line `first` of the file.

    `size` is that of the text, in characters, with every alias written out.
    """

    root: Any
    line: int
    flaws: tuple[Flaw, ...]
    broken: bool
    first: int
    text: str
    size: int


class _Broken(Exception):  # noqa: N818 - control flow inside this module: the rest of a document cannot be read
    def __init__(self, line: int, reason: str) -> None:
        self.flaw = Flaw(line, "", reason)


# Anything else is refused by the YAML specification (section 5.1), which keeps control characters out.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_PREAMBLE = re.compile(r"(?:[ \t]*(?:[%#][^\n]*)?\n)*[ \t]*")


def decode(data: bytes) -> str | Flaw:
    """Return the text of a file, or the flaw that makes it no text: not UTF-8, or control characters in it."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Flaw(line, "", f"not UTF-8 text: byte 0x{data[error.start]:02x} cannot be read; save the file as UTF-8")
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        return Flaw(line, "", f"control character U+{ord(found[0]):04X} is not allowed in a manifest")
    return text


def parse(text: str, line: int = 1) -> Iterator[Document]:
    """Yield the documents of a YAML stream that begins on `line`; a broken one does not hide those after its end."""
    for chunk in _chunks(text):
        yield from _parse_chunk(chunk, line)
        line += len(chunk.splitlines())


def _chunks(text: str) -> Iterator[str]:
    """Yield the pieces of `text` that begin at a ``---`` line; directives stay with the document they introduce."""
    start = 0
    for found in _SEPARATOR.finditer(text):
        if not _PREAMBLE.fullmatch(text, start, found.start()):
            yield text[start : found.start()]
            start = found.start()
    yield text[start:]


def _parse_chunk(chunk: str, first: int) -> Iterator[Document]:
    import yaml

    events = yaml.parse(chunk, Loader=getattr(yaml, "CLoader", yaml.Loader))
    while True:
        builder = _Builder(first)
        try:
            more = builder.read(events)
        except _Broken as broken:
            flaw = broken.flaw
        except yaml.YAMLError as error:
            flaw = _syntax_flaw(error, chunk, first)
        else:
            if not more:
                return
            size = len(chunk) + builder.aliased
            yield Document(builder.root, builder.line, tuple(builder.flaws), False, first, chunk, size)  # noqa: FBT003
            continue
        yield Document(None, flaw.line, (*builder.flaws, flaw), True, first, chunk, len(chunk))  # noqa: FBT003
        return


# Keys that no text can have (NUL is refused), for values that are not what their key says.
_MERGE, _DUPLICATE = "\0merge", "\0duplicate"


@dataclass(slots=True)
class _Anchor:
    """What a name stands for: weight in characters, height in levels; `value` is unset while it is being read."""

    value: Any = None
    weight: int = 0
    height: int = 0
    closed: bool = False


class _Builder:
    """Builds one document; its state is the stack of open containers with the key each of them is filling."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.root: Any = None
        self.line = first
        self.flaws: list[Flaw] = []
        self._open: list[tuple[Any, str | None, _Anchor | None]] = []
        self._heights = [0]
        self._container: Any = None
        self._key: str | None = None
        self._anchors: dict[str, _Anchor] = {}
        self._weight = 0
        self.aliased = 0

    def read(self, events: Iterator[Any]) -> bool:
        """Take events up to the end of one document; False when the stream had none left."""
        import yaml

        scalar, mapping_start, sequence_start, alias, document_end = (
            yaml.ScalarEvent,
            yaml.MappingStartEvent,
            yaml.SequenceStartEvent,
            yaml.AliasEvent,
            yaml.DocumentEndEvent,
        )
        for event in events:
            kind = type(event)
            if kind is scalar:
                self._scalar(event)
            elif kind is mapping_start or kind is sequence_start:
                self._start(event, Fields if kind is mapping_start else Items)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._end()
            elif kind is alias:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                self.line = self._line(event)
            elif kind is document_end:
                return True
        return False

    def _line(self, event: Any) -> int:
        return int(event.start_mark.line) + self.first

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        self._weight += len(text) + 1
        value: Scalar = text
        if event.style == '"':
            if "\0" in text:
                self._flaw(event, "a NUL character is not allowed in text")
                value = text.replace("\0", "")
        elif event.implicit[0]:
            value = resolve(text)
        if event.tag is not None:
            value = self._tagged(event, text)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(value, len(text) + 1, 0, closed=True)
        container = self._container
        if type(container) is not Fields or self._key is not None:
            self._add(value, self._line(event))
        elif text == "<<" and value == "<<" and event.implicit[0]:
            self._key = _MERGE
        else:
            self._set_key(event, value)

    def _tagged(self, event: Any, text: str) -> Scalar:
        tag = event.tag.removeprefix("tag:yaml.org,2002:")
        value = resolve(text)
        if tag in ("!", "str"):
            return text
        if tag not in _SCALAR_TAGS:
            self._break(event, _FOREIGN_TAG)
        if not isinstance(value, _SCALAR_TAGS[tag]) or (isinstance(value, bool) and tag != "bool"):
            self._break(event, f"this is no {tag}, as its YAML tag says")
        return value

    def _set_key(self, event: Any, value: Scalar) -> None:
        key = key_text(value)
        if key is None:
            self._break(event, "a key is missing before the colon (or is null)")
        line, fields = self._line(event), self._container
        self._key = key
        if key in fields.lines:
            self._flaw(event, f"key {quoted(key)} is already set on line {fields.lines[key]}", key)
            self._key = _DUPLICATE
        else:
            fields.lines[key] = line

    def _start(self, event: Any, make: type[Fields] | type[Items]) -> None:
        if event.tag is not None and event.tag not in _CONTAINER_TAGS:
            self._break(event, _FOREIGN_TAG)
        if type(self._container) is Fields and self._key is None:
            self._break(event, "a key must be text, not a list or a mapping (is this an unrendered template?)")
        if len(self._open) >= DEEPEST:
            self._break(event, f"nested deeper than {DEEPEST} levels")
        anchor = None
        self._weight += 1
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(weight=-self._weight)
        made = make(self._line(event))
        self._open.append((self._container, self._key, anchor))
        self._heights.append(0)
        self._container, self._key = made, None

    def _end(self) -> None:
        done = self._container
        self._container, self._key, anchor = self._open.pop()
        height = self._heights.pop() + 1
        self._heights[-1] = max(self._heights[-1], height)
        if type(done) is Fields:
            done.pop(_DUPLICATE, None)
            if _MERGE in done:
                self._merge(done)
        if anchor is not None:
            anchor.value, anchor.height, anchor.closed = done, height, True
            anchor.weight += self._weight
        self._add(done, done.line)

    def _alias(self, event: Any) -> None:
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            self._break(event, "the YAML alias has no anchor above it; text that begins with * needs quotes")
        if not anchor.closed:
            self._break(event, f"the YAML anchor &{printable(event.anchor)} contains itself")
        self._weight += anchor.weight
        self.aliased += anchor.weight
        if self.aliased > MOST_ALIASED:
            self._break(event, f"YAML aliases expand to more than {MOST_ALIASED // 1024 // 1024} MiB")
        if len(self._open) + anchor.height > DEEPEST:
            self._break(event, f"nested deeper than {DEEPEST} levels")
        self._heights[-1] = max(self._heights[-1], anchor.height)
        if type(self._container) is Fields and self._key is None:
            if isinstance(anchor.value, Fields | Items):
                self._break(event, "a key must be text, not a list or a mapping")
            self._set_key(event, anchor.value)
        else:
            self._add(anchor.value, self._line(event))

    def _add(self, value: Any, line: int) -> None:
        container = self._container
        if type(container) is Fields:
            container[self._key] = value  # type: ignore[index]
            self._key = None
        elif type(container) is Items:
            container.append(value)
            container.lines.append(line)
        else:
            self.root, self.line = value, line

    def _merge(self, fields: Fields) -> None:
        """Take over what ``<<`` names; the mapping's own keys win, and earlier sources win over later ones."""
        source = fields.pop(_MERGE)
        for each in source if isinstance(source, Items) else (source,):
            if not isinstance(each, Fields):
                path = self._path(*filter(None, [self._key]))
                self.flaws.append(Flaw(fields.line, path, "<< takes a mapping, or a list of mappings"))
                continue
            for key, value in each.items():
                if key not in fields:
                    fields[key] = value
                    fields.lines[key] = each.lines[key]

    def _path(self, *last: str) -> str:
        """Return the path of the container being read, or of its key `last`."""
        path = ""
        levels = [(container, key) for container, key, _ in self._open[1:]]
        for container, key in levels:
            if type(container) is Items:
                path += f"[{len(container)}]"
            elif key is not None and key[0:1] != "\0":
                path = child(path, key)
        if type(self._container) is Items:
            path += f"[{len(self._container)}]"
        for key in last:
            path = child(path, key)
        return path

    def _flaw(self, event: Any, reason: str, *last: str) -> None:
        self.flaws.append(Flaw(self._line(event), self._path(*last), reason))

    def _break(self, event: Any, reason: str) -> NoReturn:
        raise _Broken(self._line(event), reason)


_SCALAR_TAGS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (float, int),
    "bool": bool,
    "null": type(None),
}
_FOREIGN_TAG = "a YAML tag that is not supported; text that begins with ! needs quotes"
"""It is not repeated: as with aliases and values, somebody's password may look like one."""

_CONTAINER_TAGS = ("!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

_PLAINLY = {
    "mapping values are not allowed in this context": (
        "`key: value` cannot stand here: its indentation does not fit the line above, or a colon is one too many"
    ),
    "did not find expected key": "the indentation of this line fits no line above it",
    "did not find expected '-' indicator": "the indentation of this line fits no list item above it",
    "could not find expected ':'": "this line is no `key: value`",
    "did not find expected <document start>": "the indentation of this line fits no line above it",
    "block sequence entries are not allowed in this context": "a list item (`- `) cannot stand here",
    "did not find expected node content": "a value is missing",
    "did not find expected ',' or '}'": "a comma or a closing } is missing",
    "did not find expected ',' or ']'": "a comma or a closing ] is missing",
}


def _syntax_flaw(error: yaml.YAMLError, chunk: str, first: int) -> Flaw:
    """Say in plain words what the parser said."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or "cannot be read")
    if mark is None:
        return Flaw(first, "", f"not YAML: {printable(problem)}")
    lines = chunk.splitlines() or [""]
    context = getattr(error, "context_mark", None)
    if problem == "could not find expected ':'" and context is not None:
        mark = context
    # At the end of the text the mark stands below the last line.
    number = min(int(mark.line), len(lines) - 1)
    line = lines[number]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Flaw(number + first, "", "not YAML: a tab cannot indent; use spaces")
    if problem == "found character that cannot start any token" and line[mark.column : mark.column + 1]:
        character = quoted(line[mark.column])
        return Flaw(number + first, "", f"not YAML: a value cannot begin with {character}; put the value in quotes")
    if problem == "found unexpected end of stream" and context is not None:
        return Flaw(int(context.line) + first, "", "not YAML: a quote is opened on this line and never closed")
    return Flaw(number + first, "", f"not YAML: {_PLAINLY.get(problem, printable(problem))}")
