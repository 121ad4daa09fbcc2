r"""kubectl's JSONPath on top of jsonpath-ng: templates, ``{range}`` and ``{end}``, literals, and paths its way.

kubectl's paths differ from RFC 9535: a leading ``$`` or ``@`` is optional, a name runs to the next unescaped ``.`` or
bracket (``.labels.kubernetes\.io/name``), ``['a.b']`` means ``.a.b``, and a union gives all of its first half, then all
of its second. Paths are translated to plain quoted ones, which jsonpath-ng evaluates. Where kubectl stops because of
the data (no such index, text compared with a number), the result here is empty.
Source: k8s.io/client-go/util/jsonpath.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from svcnat.errors import MissingError, UsageError

_QUOTED = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_ACTION = re.compile(rf"""\{{((?:[^{{}}"']|{_QUOTED})*)\}}""")
_LITERAL = re.compile(_QUOTED)
_NAME = re.compile(r"(?:\\.|[^\\\s.,\[\]$@{}])+")
_BRACKET = re.compile(rf"""\[((?:[^\]"'(]|{_QUOTED}|\((?:[^)"']|{_QUOTED})*\))*)\]""")
_FILTER = re.compile(r"\?\((.*)\)", re.DOTALL)
_COMPARISON = re.compile(r"([^!<>=]+)([!<>=]+)(.+)", re.DOTALL)
_OPERATORS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_POSITION = re.compile(r"\*|-?\d+|-?\d*:-?\d*(?::-?\d*)?")
_SCALAR = re.compile(r"[-+]?\d+(?:\.\d+)?|true|false")
_UNION = re.compile(rf"(?:[^,\"']|{_QUOTED})+")
_MOST_STEPS = 200  # of a path: no object is nested deeper
_MOST_WAYS = 1_000  # through the unions of a path
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Path:
    """One path; `finders` are jsonpath-ng's, more than one where the path has unions."""

    finders: tuple[Callable[[Any], list[Any]], ...]

    @classmethod
    def parse(cls, text: str) -> Path:
        """Parse a path in any of the ways that ``--sort-by`` takes: ``{.a.b}``, ``.a.b`` or ``a.b``.

        Raises:
            UsageError: `text` is no path.
            MissingError: jsonpath-ng is not installed.

        """
        try:
            from jsonpath_ng.ext.parser import parse
        except ImportError as error:
            raise MissingError("JSONPath needs the jsonpath-ng package: pip install jsonpath-ng") from error
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
        text = text.strip()
        try:
            return cls(tuple(parse(path).find for path in _translate(text, "$")))
        except Exception as error:  # its parser and lexer each have their own family of errors
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"jsonpath '{text}': {error}") from error

    def values(self, item: Any) -> list[Any]:
        """Everything that the path finds in `item`, in order; nothing where there is nothing."""
        return [match.value for find in self.finders for match in find(item)]


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed ``-o jsonpath`` template: literal text, paths, and ranges over a path."""

    parts: tuple[str | Path | tuple[Path, Template], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Parse a template; ``.a.b`` without any braces is a path too.

        Raises:
            UsageError: braces, quotes or ranges do not match, or a path is wrong.
            MissingError: jsonpath-ng is not installed.

        """
        if text.startswith(".") and "{" not in text:
            return cls((Path.parse(text),))
        # A range that no {end} closes runs to the end of the template.
        open_ranges: list[tuple[Path | None, list[str | Path | tuple[Path, Template]]]] = [(None, [])]

        def close() -> None:
            path, parts = open_ranges.pop()
            if path is None:
                raise UsageError("jsonpath: not in range, nothing to end")
            open_ranges[-1][1].append((path, cls(tuple(parts))))

        position = 0
        while position < len(text):
            parts = open_ranges[-1][1]
            start = text.find("{", position)
            if start != position:
                end = start if start >= 0 else len(text)
                parts.append(text[position:end])
                position = end
                continue
            action = _ACTION.match(text, position)
            if action is None:
                raise UsageError(f"jsonpath: unclosed action: {text[position:]}")
            position = action.end()
            content = action[1].strip()
            if _LITERAL.fullmatch(content):
                parts.append(_unquote(content))
            elif content == "end":
                close()
            elif content.startswith("range ") or content == "range":
                open_ranges.append((Path.parse(content[5:]), []))
            elif content[:1] not in {"", ".", "[", "$", "@"}:
                raise UsageError(f"jsonpath: unrecognized identifier {content}")
            else:
                parts.append(Path.parse(content))
        while len(open_ranges) > 1:
            close()
        return cls(tuple(open_ranges[0][1]))

    def apply(self, item: Any) -> str:
        """The text of the template for one document."""
        pieces: list[str] = []
        for part in self.parts:
            match part:
                case str():
                    pieces.append(part)
                case Path():
                    pieces.append(" ".join(map(plain_text, part.values(item))))
                case (path, body):
                    pieces += [body.apply(element) for element in path.values(item)]
        return "".join(pieces)


def _translate(text: str, root: str) -> list[str]:
    """Turn one of kubectl's paths into RFC 9535's, one for each way through its unions."""
    paths = [root]
    position = count = 0
    while position < len(text):
        if text[position] in " $@":
            position += 1
            continue
        dots = len(text[position:]) - len(text[position:].lstrip("."))
        descend = ".." if dots in {2, 3} else ""
        position += dots
        if bracket := _BRACKET.match(text, position):
            steps = _bracket(bracket[1])
            position = bracket.end()
        elif text.startswith("*", position):
            steps = ["[*]"]
            position += 1
        elif (name := _NAME.match(text, position)) and dots <= 3:
            steps = [_key(re.sub(r"\\(.)", r"\1", name[0]))]
            position = name.end()
        else:
            raise UsageError(f"jsonpath '{text}': expected a name or [...] after '{text[:position]}'")
        count += 1
        if count > _MOST_STEPS or len(steps) * len(paths) > _MOST_WAYS:
            raise UsageError(f"jsonpath: more than {_MOST_STEPS} steps, or {_MOST_WAYS} ways through unions")
        paths = [f"{path}{descend}{step}" for step in steps for path in paths]
    return paths


def _bracket(content: str) -> list[str]:
    if found := _FILTER.fullmatch(content.strip()):
        return [f"[?({_condition(found[1])})]"]
    steps: list[str] = []
    for piece in _UNION.findall(content):
        piece = piece.strip()
        if _POSITION.fullmatch(piece):
            steps.append(f"[{piece}]")
        elif _LITERAL.fullmatch(piece):
            steps += _translate(piece[1:-1], "")
        else:
            raise UsageError(f"jsonpath: invalid array index {piece}")
    if not steps:
        raise UsageError("jsonpath: empty []")
    return steps


def _condition(text: str) -> str:
    """Translate the inside of a filter: ``@.a.b`` alone, or compared with a literal or another path."""
    comparison = _COMPARISON.fullmatch(text)
    if comparison is None:
        return _only(text)
    left, operator, right = comparison.groups()
    if operator not in _OPERATORS:
        raise UsageError(f"jsonpath: unrecognized filter operator {operator}")
    right = right.strip()
    if _LITERAL.fullmatch(right):
        right = _quoted(_unquote(right))
    elif not _SCALAR.fullmatch(right):
        right = _only(right)
    path = _only(left)
    # In RFC 9535 an absent field differs from everything; kubectl passes over it.
    exists = f"{path} && " if operator == "!=" else ""
    return f"{exists}{path}{operator}{right}"


def _only(text: str) -> str:
    paths = _translate(text, "@")
    if len(paths) > 1:
        raise UsageError(f"jsonpath: a filter can only compare one element at a time: {text}")
    return paths[0]


def _key(name: str) -> str:
    return f"[{_quoted(name)}]"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _unquote(literal: str) -> str:
    """The text of a quoted literal, with Go's escapes."""
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), literal[1:-1], flags=re.DOTALL)


def plain_text(value: Any) -> str:
    """A value as kubectl's JSONPath prints it: text bare, the rest as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def go_text(value: Any) -> str:
    """A value as custom columns print it: Go's ``[a b]`` and ``map[key:value]``."""
    match value:
        case str():
            return value
        case None:
            return "<nil>"
        case dict():
            return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(map(go_text, value)) + "]"
    return json.dumps(value)


def sort_key(path: Path) -> Callable[[Any], tuple[Any, ...]]:
    """A key for sorting documents by what `path` finds: absent first, then numbers, then text."""

    def key(item: Any) -> tuple[Any, ...]:
        match path.values(item):
            case []:
                return (0,)
            case [int() | float() as number, *_]:
                return 1, number
            case [value, *_]:
                return 2, go_text(value)
        raise AssertionError("unreachable: a list is empty or begins with something")

    return key
