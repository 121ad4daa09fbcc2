"""Where lines with lost indentation belong: reads a manifest by its fields' names, not by how far in they stand.

People paste examples with the indentation lost: ``name:`` beside ``metadata:``, everything flush left. Each line is put
where its indentation says, as long as such a field may stand there; if not, where the nearest open object that lacks
such a field is. It works on the text of one block-style document, and decides nothing: callers compare what they get.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from svcnat.model import kinds, schema
from svcnat.model.quoting import child, entry, printable
from svcnat.model.schema import ANYTHING, Schema
from svcnat.model.yaml_scalars import resolve

_KIND = re.compile(r"^[ ]*kind:[ ]*[\"']?([A-Za-z]+)[\"']?[ ]*(?:#.*)?$", re.MULTILINE)
_LINE = re.compile(
    r"(?P<indent>[ ]*)(?P<dash>-(?:[ ]+|$))?"
    r"(?:(?P<key>[A-Za-z0-9_][-A-Za-z0-9_./]*|\"[^\"]+\"|'[^']+')[ ]*:(?:[ ]+(?P<value>.*))?$|(?P<item>.*))"
)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_BLOCK_TEXT = re.compile(r"[|>][-+0-9]*$")
_INLINE = re.compile(r"(?P<key>[A-Za-z]+):\s+\S")
_GLUED = re.compile(r"(?P<key>[A-Za-z]+):(?P<value>[^\s:/]\S*)")
_COLONLESS = re.compile(r"(?P<key>[A-Za-z]+)(?P<value>)")
_SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A line that stands where it cannot; `field` is where it belongs.

    It is `certain` that its indentation was lost when it stands flush left, or when nothing else stands where it
    belongs: otherwise an older cluster's odd field is as likely.
    """

    line: int
    field: str
    reason: str
    certain: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The misplaced lines of a document, and its `text` with each line where it belongs (the same line numbers)."""

    misplaced: tuple[Misplaced, ...]
    text: str


def diagnose(text: str, first: int) -> Diagnosis:
    """Return what is misplaced in a document that begins on line `first`; nothing when its kind is not known."""
    found = _KIND.search(text)
    kind = kinds.BY_NAME.get(found[1]) if found else None
    if kind is None:
        return Diagnosis((), text)
    return _Reader(schema.of_kind(kind.type)).read(text, first)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that matters: `column` is that of its key (of its item, when it has none)."""

    number: int
    column: int
    dash: int | None
    key: str
    value: str
    unfinished: bool = False
    """Whether the colon is missing, or the space after it, which makes it no key to YAML."""

    @property
    def nested(self) -> bool:
        """Whether what belongs to the key can only be on the lines below."""
        return bool(self.key) and not self.value


@dataclass(slots=True)
class _Place:
    """An open object, list or item: `column` as written (of the key, of the dash), `moved` as it should be."""

    schema: Schema
    path: str
    name: str
    line: int
    column: int
    moved: int
    inner: int | None = None
    items: int = 0
    seen: set[str] = field(default_factory=set)

    @property
    def moved_inner(self) -> int:
        """The column where the children should be."""
        return self.moved + (2 if self.inner is None else self.inner - self.column)

    def takes(self, line: _Line) -> bool:
        """Tell whether the line's field may stand here, and does not already."""
        return self.knows(line) and (self.schema.sort == "anything" or line.key not in self.seen)

    def knows(self, line: _Line) -> bool:
        """Tell whether the line's field may stand here."""
        known = self.schema.at(line.key)
        if self.schema.sort == "anything":
            return True
        if known is None:
            return False
        if self.schema.sort == "map":
            return bool(line.value) and _fits(known, line.value)
        if line.key == "type" and "clusterIP" in self.schema.fields:
            # The example's selector has a label of this name; what the value can be tells them apart.
            return line.value in _SERVICE_TYPES
        return not line.value or _fits(known, line.value)

    def takes_item(self, line: _Line) -> bool:
        """Tell whether the line may be an item here."""
        item = self.schema.item
        if self.schema.sort != "list":
            return False
        if not line.key:
            return item.sort in ("text", "anything") if line.value else True
        return item.sort == "anything" or item.at(line.key) is not None


def _fits(known: Schema, value: str) -> bool:
    """Tell whether a value written on the key's own line can be what stands there."""
    flow = value[0] in "{["
    if known.sort in ("struct", "list", "map"):
        return flow or _inline(known, value) is not None
    if known.sort == "text":
        return not flow and isinstance(resolve(value), str)
    return known.sort == "anything" or not flow


def _inline(known: Schema, value: str) -> str | None:
    """The key that stands, by mistake, behind the key of the object it belongs in: ``metadata: name: back-end``."""
    found = _INLINE.match(value)
    return found["key"] if found and known.sort == "struct" and known.at(found["key"]) else None


class _Reader:
    """Reads the lines of one document; its state is the stack of places that are open, the root first."""

    def __init__(self, root: Schema) -> None:
        self._open = [_Place(root, "", "", 0, -1, -1, inner=0)]
        self._misplaced: list[Misplaced] = []
        self._shifts: dict[int, int] = {}
        self._amended: dict[int, tuple[str, str]] = {}

    def read(self, text: str, first: int) -> Diagnosis:
        lines = text.splitlines()
        for line in _lines(lines, first):
            if line.dash is None:
                self._key(line, line.column)
            else:
                self._item(line, line.dash)
        shift, moved = 0, []
        for number, content in enumerate(lines, first):
            shift = self._shifts.get(number, shift)
            mended = content.replace(*self._amended[number], 1) if number in self._amended else content
            moved.append(" " * shift + mended if shift > 0 else _outdented(mended, -shift))
        return Diagnosis(tuple(self._misplaced), "\n".join([*moved, ""]))

    def _key(self, line: _Line, indent: int) -> None:
        """Place a line that begins with a key."""
        here = next(place for place in reversed(self._open) if place.column < indent)
        proper = here.schema.sort != "list" and here.inner in (None, indent)
        if proper and here.takes(line):
            place, moved = here, here.moved_inner if here.inner is not None else here.moved + indent - here.column
            here.inner = indent
        elif line.unfinished:
            return
        else:
            target = self._home(line)
            repeated = target is not None and target.schema.sort == "map" and target.inner is not None
            if target is None or (repeated and proper and here.knows(line)):
                # Nobody knows this field, or it is simply there twice: it stays, and so does everything in it.
                self._close_down_to(here)
                self._shifts[line.number] = here.moved - here.column
                self._open.append(_Place(ANYTHING, "", "", line.number, indent, indent + here.moved - here.column))
                return
            place, moved = target, target.moved_inner
            self._report(line, place, moved - indent)
        self._shifts[line.number] = moved - indent
        self._close_down_to(place)
        self._enter(line, place, indent, moved)

    def _home(self, line: _Line) -> _Place | None:
        """The open place that lacks this field: the nearest, but rather an object's own field than one more label."""
        homes = [place for place in reversed(self._open) if place.schema.sort != "anything" and place.takes(line)]
        fields = [place for place in homes if place.schema.sort == "struct"]
        if homes and homes[0].schema.sort == "map" and homes[0].seen and fields:
            return fields[0]
        return homes[0] if homes else None

    def _item(self, line: _Line, dash: int) -> None:
        """Place a line that begins with a dash."""
        here = next(
            (
                place
                for place in reversed(self._open)
                if place.column < dash or (place.column == dash and place.schema.sort in ("list", "anything"))
            ),
            self._open[0],
        )
        if here.schema.sort == "anything":
            self._shifts[line.number] = here.moved - here.column
            return
        proper = here.inner in (None, dash) and here.takes_item(line)
        home = here if proper else next((place for place in reversed(self._open) if place.takes_item(line)), None)
        if home is None:
            return
        if home.inner is None and dash >= home.column:
            home.inner = dash
        moved = home.moved_inner
        if not proper and moved != dash:
            text = f"`- {line.key or line.value}`"
            self._say(
                line, f"{home.path}[{home.items}]", f"{printable(text)} belongs under `{home.name}`", moved - dash
            )
        self._shifts[line.number] = moved - dash
        self._close_down_to(home)
        item = home.schema.item
        path = f"{home.path}[{home.items}]"
        home.items += 1
        inside = _Place(item, path, home.name, line.number, dash, moved)
        self._open.append(inside)
        if line.key:
            inside.inner = line.column
            self._enter(line, inside, line.column, moved + line.column - dash)

    def _enter(self, line: _Line, place: _Place, column: int, moved: int) -> None:
        """Note the field, and open it when it can hold others."""
        place.seen.add(line.key)
        known = place.schema.at(line.key) or ANYTHING
        path = entry(place.path, line.key) if place.schema.sort == "map" else child(place.path, line.key)
        if line.unfinished:
            reason = (
                f"a space is missing after `{line.key}:`" if line.value else f"a colon is missing after `{line.key}`"
            )
            self._misplaced.append(Misplaced(line.number, path, reason, certain=True))
            self._amended[line.number] = (f"{line.key}:", f"{line.key}: ") if line.value else (line.key, f"{line.key}:")
        if line.nested and known.sort in ("struct", "list", "map", "anything"):
            self._open.append(_Place(known, path, line.key, line.number, column, moved))
        elif line.value and (inner := _inline(known, line.value)):
            reason = f"`{inner}` belongs on a line of its own under `{line.key}`, indented by two spaces"
            self._misplaced.append(Misplaced(line.number, child(path, inner), reason, certain=True))
            self._amended[line.number] = (line.value, f"{{{line.value}}}")

    def _close_down_to(self, place: _Place) -> None:
        while self._open[-1] is not place:
            self._open.pop()

    def _report(self, line: _Line, place: _Place, shift: int) -> None:
        name = printable(line.key)
        path = entry(place.path, line.key) if place.schema.sort == "map" else child(place.path, line.key)
        if place.column < 0:
            self._say(line, path, f"`{name}` belongs at the top level", shift)
        elif place.path.endswith("]") and place.schema.sort != "map":
            where = f"to the item of `{place.name}` that begins on line {place.line}"
            self._say(line, path, f"`{name}` belongs {where}", shift)
        else:
            self._say(line, path, f"`{name}` belongs under `{printable(place.name)}`", shift, certain=not place.seen)

    def _say(self, line: _Line, path: str, what: str, shift: int, *, certain: bool = False) -> None:
        if shift:
            count = abs(shift)
            number = _WORDS[count] if count < len(_WORDS) else str(count)
            how = f"indent it by {number} space{'s' * (count > 1)}{' less' * (shift < 0)}"
            self._misplaced.append(Misplaced(line.number, path, f"{what}: {how}", certain or line.column == 0))


def _lines(lines: list[str], first: int) -> Iterator[_Line]:
    """Yield the lines that hold a key or begin an item; block text, flow style and comments are passed over."""
    brackets, below = 0, -1
    for number, content in enumerate(lines, first):
        indent = len(content) - len(content.lstrip(" "))
        if below >= 0 and (indent > below or not content.strip()):
            continue
        below = -1
        bare = _COMMENT.sub("", content).rstrip()
        if brackets > 0:
            brackets += _balance(bare)
            continue
        found = _LINE.match(bare)
        if found is None or not bare.strip() or bare.startswith("---"):
            continue
        dash, key, value = found["dash"], found["key"], found["value"] or found["item"] or ""
        unfinished = _unfinished(bare.strip()) if key is None and dash is None else None
        if unfinished is not None:
            key, value = unfinished["key"], unfinished["value"]
        elif key is None and dash is None:
            continue
        if value[:1] in ("{", "["):
            brackets = _balance(value)
        if _BLOCK_TEXT.match(value):
            below = indent
        column, plain = indent + len(dash or ""), (key or "").strip("\"'")
        yield _Line(number, column, None if dash is None else indent, plain, value, unfinished is not None)


def _unfinished(text: str) -> re.Match[str] | None:
    """A key without its colon, or without the space after it; to YAML it is a piece of text."""
    return _GLUED.fullmatch(text) or _COLONLESS.fullmatch(text)


def _balance(text: str) -> int:
    return sum(text.count(char) for char in "{[") - sum(text.count(char) for char in "}]")


def _outdented(content: str, shift: int) -> str:
    return content[min(shift, len(content) - len(content.lstrip(" "))) :]
