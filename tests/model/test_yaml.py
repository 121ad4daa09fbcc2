"""YAML text becomes the values that Kubernetes' parser would see, each with its line; what is dangerous is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from svcnat.model import yaml_events
from svcnat.model.manifest_text import documents
from svcnat.model.yaml_events import Fields, Flaw, Items, decode, parse
from svcnat.model.yaml_scalars import key_text, resolve


def root(text: str) -> Any:
    (document,) = parse(text)
    assert not document.flaws
    return document.root


def flaws(text: str) -> list[str]:
    found = [flaw for document in parse(text) for flaw in document.flaws]
    return [f"{flaw.line}: {flaw.field}: {flaw.reason}" for flaw in found]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("Null", None),
        ("yes", True),
        ("on", True),
        ("y", True),
        ("TRUE", True),
        ("No", False),
        ("off", False),
        ("80", 80),
        ("-80", -80),
        ("+80", 80),
        ("0", 0),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("-0x1f", -31),
        ("0b101", 5),
        ("1_000", 1000),
        ("08", 8.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("2026-05-17", "2026-05-17"),
        ("2026-05-17T10:00:00Z", "2026-05-17T10:00:00Z"),
        ("12:30", "12:30"),
        ("10.96.0.1", "10.96.0.1"),
        ("fd00::1", "fd00::1"),
        ("tRuE", "tRuE"),
        ("back-end", "back-end"),
        ("-", "-"),
        ("9" * 500, "9" * 500),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    """Plain scalars mean what go-yaml makes of them; dates and base 60 stay text."""
    resolved = resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_not_a_number() -> None:
    """.nan is a float, though equal to nothing."""
    value = resolve(".nan")
    assert isinstance(value, float)
    assert math.isnan(value)


def test_keys_are_text() -> None:
    """Keys that are no text become what they are in JSON."""
    assert root("{80: a, yes: b, 1.5: c, off: d}") == {"80": "a", "true": "b", "1.5": "c", "false": "d"}
    assert key_text(None) is None


def test_tags() -> None:
    """The standard tags are honoured, and any other is refused."""
    text = "a: !!str 80\nb: !!int '80'\nc: !!float 1\nd: !!bool 'yes'\ne: !!null ''\nf: ! 80\ng: !!map {}\nh: !!seq []"
    assert root(text) == {"a": "80", "b": 80, "c": 1, "d": True, "e": None, "f": "80", "g": {}, "h": []}
    assert flaws("a: !!int x") == ["1: : this is no int, as its YAML tag says"]
    assert flaws("a: !!int yes") == ["1: : this is no int, as its YAML tag says"]
    foreign = "1: : a YAML tag that is not supported; text that begins with ! needs quotes"
    assert flaws("a: !secret x") == [foreign]
    assert flaws("a: !secret {}") == [foreign]


def test_every_key_and_item_has_its_line() -> None:
    """Lines count from 1 and go on across documents."""
    first, second = parse("a: 1\nb:\n- x\n- c: {d: 1,\n  e: 2}\n---\nf: 1\n")
    assert isinstance(first.root, Fields)
    assert first.root.lines == {"a": 1, "b": 2}
    items = first.root["b"]
    assert isinstance(items, Items)
    assert items.lines == [3, 4]
    assert items[1].lines == {"c": 4}
    assert items[1]["c"].lines == {"d": 4, "e": 5}
    assert second.root.lines == {"f": 7}


def test_quoted_text_is_text() -> None:
    """Quotes keep a value from being a number, true or null."""
    assert root("a: \"80\"\nb: 'yes'\nc: |\n  1\nd: ''") == {"a": "80", "b": "yes", "c": "1\n", "d": ""}


def test_documents() -> None:
    """Separators, empty documents, directives, comments and end markers."""
    text = "# nothing\n---\n# nothing\n---\na: 1\n...\n---\n%YAML 1.1\n"
    assert [document.root for document in parse("%YAML 1.1\n# x\n---\na: 1\n--- \nb: 2\n---\n")] == [
        {"a": 1},
        {"b": 2},
        None,
    ]
    assert [document.root for document in parse(text)][:2] == [None, {"a": 1}]
    assert list(parse("")) == []
    assert root("a: '---'\nb: x---y") == {"a": "---", "b": "x---y"}
    assert root("just text") == "just text"


def test_a_broken_document_hides_no_other() -> None:
    """What comes after the next separator is read, with its right line."""
    first, second, third = parse("a: [\n---\nb: 1\n---\nc: @x\n")
    assert first.broken
    assert (second.root, second.line) == ({"b": 1}, 3)
    assert third.flaws[0].line == 5


def test_duplicate_keys() -> None:
    """Every repeated key is named with both lines; the first value stands."""
    text = "a: 1\nb:\n  c:\n  - d: 1\n    d: 2\na: {x: [1]}\n"
    assert flaws(text) == [
        '5: b.c[0].d: key "d" is already set on line 4',
        '6: a: key "a" is already set on line 1',
    ]
    (document,) = parse(text)
    assert document.root == {"a": 1, "b": {"c": [{"d": 1}]}}
    assert flaws("- - a: 1\n    a: 2\n")[0].startswith("2: [0][0].a: ")
    assert flaws("a: 1\na: {b: 1, b: 2}\n")[1].startswith("2: b: ")


def test_aliases_and_merges() -> None:
    """Anchors and merge keys work; a mapping's own keys win, and earlier sources before later ones."""
    text = "base: &b {x: 1, v: 2}\nother: &o {v: 3, z: 4}\nall: {<<: [*b, *o], x: 0}\none: {<<: *o}\n"
    assert root(text)["all"] == {"x": 0, "v": 2, "z": 4}
    assert root(text)["one"] == {"v": 3, "z": 4}
    assert root("a: &k name\n*k : 1") == {"a": "name", "name": 1}
    assert root("- &a [1]\n- *a")[1] == [1]
    assert root('{"<<": 1}') == {"<<": 1}
    assert flaws("a: {<<: 1}") == ["1: a: << takes a mapping, or a list of mappings"]
    assert flaws("- 1\n- {<<: [1]}") == ["2: [1]: << takes a mapping, or a list of mappings"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: *x", 2, "the YAML alias has no anchor above it; text that begins with * needs quotes"),
        ("a: &x [*x]", 1, "the YAML anchor &x contains itself"),
        ("a: &x [1]\n*x : 1", 2, "a key must be text, not a list or a mapping"),
        ("[a]: 1", 1, "a key must be text, not a list or a mapping (is this an unrendered template?)"),
        ("a: {{ name }}", 1, "a key must be text, not a list or a mapping (is this an unrendered template?)"),
        ("? \n: 1", 1, "a key is missing before the colon (or is null)"),
        ("a: " + "[" * 100_000, 1, "nested deeper than 200 levels"),
        ("\n".join("  " * level + "a:" for level in range(300)), 201, "nested deeper than 200 levels"),
        ("- " * 5000, 1, "nested deeper than 200 levels"),
    ],
)
def test_what_no_document_may_have(text: str, line: int, reason: str) -> None:
    """Each is one finding at its line, whatever it would do to a naive parser."""
    assert flaws(text) == [f"{line}: : {reason}"]


def test_alias_bombs() -> None:
    """Nine levels of nine aliases are refused, as is nesting that aliases hide."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert flaws("\n".join(levels)) == ["7: : YAML aliases expand to more than 3 MiB"]
    deep = ["a0: &a0 " + "[" * 150 + "]" * 150, "a1: " + "[" * 60 + "*a0" + "]" * 60]
    assert flaws("\n".join(deep)) == ["2: : nested deeper than 200 levels"]
    assert flaws("a: &a [1]\nb: &b [*a]\nc: [*b]") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", "1: : not YAML: `key: value` cannot stand here"),
        ("a:\n    b: 1\n  c: 1\n", "3: : not YAML: the indentation of this line fits no line above it"),
        ("a:\n  - b: 1\n   c: 2\n", "3: : not YAML: "),
        ("a:\n\tb: 1\n", "2: : not YAML: a tab cannot indent; use spaces"),
        ("a: @x\n", '1: : not YAML: a value cannot begin with "@"; put the value in quotes'),
        ("a: 'x\nb: 1\n", "1: : not YAML: a quote is opened on this line and never closed"),
        ("a:\n  b: 1\n  c\n    - d: 1\n", "3: : not YAML: this line is no `key: value`"),
        ("a: {b: 1\nc: 2}\nd", "2: : not YAML: a comma or a closing } is missing"),
        ("a: [1, 2\nb: 3", "2: : not YAML: a comma or a closing ] is missing"),
        ("%", "1: : not YAML: "),
        ('a: "\\ud800"', "1: : not YAML: found invalid Unicode character escape code"),
        ("a: !<x", "1: : not YAML: "),
        ("%YAML 9.9\n---\na: 1\n", "1: : not YAML: "),
    ],
)
def test_syntax_errors_in_plain_words(text: str, expected: str) -> None:
    """The parser's words are replaced where they help nobody; the line is the one to look at."""
    (only,) = flaws(text)
    assert only.startswith(expected)
    assert only.isprintable()


def test_errors_without_a_mark() -> None:
    """An error of the library that names no place points at the beginning."""
    import yaml

    flaw = yaml_events._syntax_flaw(yaml.YAMLError("?"), "", 7)
    assert flaw == Flaw(7, "", "not YAML: cannot be read")


def test_decoding() -> None:
    """Only UTF-8 without control characters is text; a byte order mark is taken off."""
    assert decode("\ufeffa: ü\n".encode()) == "a: ü\n"
    assert decode(b"a: 1\nb: \xff") == Flaw(2, "", "not UTF-8 text: byte 0xff cannot be read; save the file as UTF-8")
    assert decode(b"a\n\n\0") == Flaw(3, "", "control character U+0000 is not allowed in a manifest")
    assert decode("a: 1".encode("utf-16")) == Flaw(
        1, "", "not UTF-8 text: byte 0xff cannot be read; save the file as UTF-8"
    )
    assert decode(b"a: \x1b[31m") == Flaw(1, "", "control character U+001B is not allowed in a manifest")
    assert decode("a: 1\n\ufeffb: 2".encode()) == Flaw(2, "", "control character U+FEFF is not allowed in a manifest")


def test_nul_in_an_escape() -> None:
    """A NUL would cut text short in C."""
    assert flaws('a: "x\\0y"') == ["1: : a NUL character is not allowed in text"]


def json_roots(text: str) -> list[Any]:
    found = list(documents(text.encode()))
    assert not any(document.flaws for document in found)
    return [document.root for document in found]


def test_json() -> None:
    """JSON takes the quick path, with the same values, and several documents may follow one another."""
    assert json_roots(' \n{"a": [1, 2.5, null, true, "\\u00fc\\ud83d\\ude00"]}\n') == [
        {"a": [1, 2.5, None, True, "ü😀"]}
    ]
    assert json_roots('{"a": 1}\n{"b": 2}\n') == [{"a": 1}, {"b": 2}]
    assert [document.lines.of("b") for document in documents(b'\n{"a": 1}\n\n{"c": 1,\n"b": 2}\n')] == [2, 5]
    assert [document.lines.of("a") for document in documents(b'{\n"a": "\\ud83d\\ude00"}')] == [1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n"a": 2}', '2: key "a" is already set on line 1'),
        ('{"a": 1\n"b": 2}', "2: not YAML: a comma or a closing } is missing"),
        ('{"a": "\\u0000"}', "1: a NUL character is not allowed in text"),
        ('{"a": "\\ud800"}', "1: not YAML: found invalid Unicode character escape code"),
        ("[" * 100_000, "1: nested deeper than 200 levels"),
        ("[" * 300 + "]" * 300, "1: nested deeper than 200 levels"),
        ('{"a": ' * 5000, "1: nested deeper than 200 levels"),
    ],
)
def test_unsound_json_is_located(text: str, expected: str) -> None:
    """What is wrong with JSON is found by the YAML path, at its line."""
    found = [flaw for document in documents(text.encode()) for flaw in document.flaws]
    assert [f"{flaw.line}: {flaw.reason}" for flaw in found] == [expected]


def test_flow_style_yaml_may_begin_with_a_brace() -> None:
    """A file that begins like JSON and is YAML is read as YAML."""
    assert json_roots("{a: 1, b: NaN}") == [{"a": 1, "b": "NaN"}]
    assert json_roots('{"a": NaN}') == [{"a": "NaN"}]


def test_a_line_that_cannot_be_found() -> None:
    """The nearest line above is given for what is not there."""
    (document,) = documents(b"a:\n- b: 1\n")
    assert [document.lines.of(path) for path in ("a[0].b", "a[0].c", "a[7]", "a.b", "x", "")] == [2, 2, 1, 1, 1, 1]
