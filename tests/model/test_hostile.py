"""Whatever a file holds, loading returns or raises ManifestError with located one-line messages; nothing else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svcnat.errors import ManifestError
from svcnat.model.configuration import parse_configuration
from svcnat.model.kinds import KINDS
from svcnat.model.manifests import load
from svcnat.model.schema import Schema, of_kind
from tests.model.build import COURSE, GOOD

BAD = 1000


def findings(data: bytes) -> list[str]:
    """What loading says; anything but a ManifestError escapes and fails the test."""
    # Line breaks as YAML 1.1 counts them, the Unicode ones among them.
    lines = len(data.decode(errors="replace").splitlines())
    try:
        load([("m.yml", data)])
    except ManifestError as error:
        for each in error.findings:
            assert each.source == "m.yml"
            assert 1 <= each.line <= lines + 1
            assert str(each).isprintable(), each
        return [str(each) for each in error.findings]
    return []


# --- a thousand bad manifests --------------------------------------------------------------------------------

Spoil = Callable[[random.Random, dict[str, Any]], str]


def places(schema: Schema, node: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Schema]]:
    """Every place of a document with what may stand there."""
    found = [(path, schema)]
    if isinstance(node, dict):
        for key, item in node.items():
            found += places(schema.at(key) or Schema("anything"), item, (*path, key))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            found += places(schema.item, item, (*path, index))
    return found


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


def wrong_type(rng: random.Random, document: dict[str, Any]) -> str:
    """A value of a type that cannot stand there."""
    kind = next(each for each in KINDS if each.name == document["kind"])
    known = [(path, at) for path, at in places(of_kind(kind.type), document) if path and at.sort != "anything"]
    path, schema = rng.choice(known)
    wrong: dict[str, list[Any]] = {
        "struct": ["text", 7, [], True],
        "map": ["text", 7, [1]],
        "list": ["text", 7, {"a": 1}],
        "text": [7, 1.5, True, [], {}],
        "integer": ["text", "80", 1.5, True, [], 2**70],
        "integer-or-text": [1.5, True, [], {}],
        "boolean": ["true", 1, []],
    }
    put(document, path, rng.choice(wrong[schema.sort]))
    return yaml.safe_dump(document)


def bad_name(rng: random.Random, document: dict[str, Any]) -> str:
    """A name that is no DNS name: metacharacters, control characters, too long, empty, missing."""
    names = [
        "A",
        "a_b",
        "-",
        "a" * 254,
        "a\nb",
        'a";drop',
        "a{b}",
        "ü",
        "a b",
        "a\x1b[31m",
        "",
        None,
        " ",
        "a#",
        "a/b",
        "$(x)",
    ]
    document["metadata"]["name"] = rng.choice(names)
    return yaml.safe_dump(document, allow_unicode=True)


def bad_label(rng: random.Random, document: dict[str, Any]) -> str:
    """A label whose key or value cannot be one."""
    key, value = rng.choice(
        [("-", "x"), ("a", "b c"), ("a", "x\n}"), ("a\n", "b"), ("a/b/c", "d"), ("", "x"), ("k" * 64, "")]
    )
    document["metadata"]["labels"] = {key: value}
    return yaml.safe_dump(document)


def bad_version(rng: random.Random, document: dict[str, Any]) -> str:
    """Another version of the API, or none."""
    document["apiVersion"] = rng.choice(["v2", "", None, "apps/v2", 1, ["v1"]])
    return yaml.safe_dump(document)


def syntax(rng: random.Random, document: dict[str, Any]) -> str:
    """Text that is not YAML at some line."""
    lines = yaml.safe_dump(document).splitlines()
    at = rng.randrange(len(lines))
    lines[at] = rng.choice(["\t", "@", "'", "*", "}", "%x: [", "a: b: c: "]) + lines[at]
    lines.append("end: [")
    return "\n".join(lines)


def duplicate(rng: random.Random, document: dict[str, Any]) -> str:
    """A key that stands twice."""
    lines = yaml.safe_dump(document).splitlines()
    keys = [line for line in lines if line.rstrip().split(":")[0].isalpha()]
    return "\n".join([*lines, rng.choice(keys).split(":")[0] + ": {}"])


def cut(rng: random.Random, document: dict[str, Any]) -> str:
    """JSON that ends too early."""
    text = json.dumps(document, indent=rng.choice([None, 1]))
    return text[: rng.randrange(2, len(text) - 1)]


def flattened(_rng: random.Random, document: dict[str, Any]) -> str:
    """All indentation lost."""
    return "\n".join(line.lstrip() for line in yaml.safe_dump(document, sort_keys=False).splitlines())


SPOILS: tuple[Spoil, ...] = (
    wrong_type,
    wrong_type,
    bad_name,
    bad_label,
    bad_version,
    syntax,
    duplicate,
    cut,
    flattened,
)


def bad_manifest(seed: int) -> tuple[str, str]:
    """The name of a way to spoil a good manifest, and the spoilt text; the same for the same seed."""
    rng = random.Random(seed)
    spoil = rng.choice(SPOILS)
    document = copy.deepcopy(yaml.safe_load(rng.choice(GOOD)))
    return spoil.__name__, spoil(rng, document)


@pytest.mark.parametrize("batch", range(10))
def test_a_thousand_bad_manifests(batch: int) -> None:
    """Each is refused, with a located message and nothing else."""
    for seed in range(batch * BAD // 10, (batch + 1) * BAD // 10):
        name, text = bad_manifest(seed)
        assert findings(text.encode()), (name, text)


# --- anything at all -----------------------------------------------------------------------------------------

LINES = """kind: Service|apiVersion: v1
metadata:|  name: a|name: a|spec:|  ports:|    - port: 80|port: 80|selector:|app: x
type: ClusterIP|items:|kind: List|---|...|%YAML 1.1|?|>-"""
PIECES = "- |: |{|}|[|]|,|&a |*a|<<: |!!int |? |'|\"|#|\t|\\|\r\n|\u2028|\u0085|ü|😀|~|0x|1e9|-| |a: |\ufeff|@|`|\n"
FRAGMENTS = st.sampled_from([*(f"{line}\n" for line in LINES.replace("\n", "|").split("|")), *PIECES.split("|")])


@settings(max_examples=400, derandomize=True)
@given(st.binary(max_size=60))
@example(b"\xff\xfe")
@example(b"\x00")
@example(b"\xef\xbb\xbf")
@example(b"[" * 100_000)
@example(b"{" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"- " * 100_000)
@example(b"? " * 10_000)
@example(b"a: &a [*a]")
@example(b'"\\U0010ffff": "\\x00"')
@example(b"? |\n  a\n: b")
@example(b"!!binary x: y")
@example(b"\xc2\x85- a\xe2\x80\xa8b: [")
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no text, text that is no YAML, YAML that is no manifest."""
    findings(data)
    try:
        parse_configuration(data, "c")
    except ManifestError as error:
        found = str(error).splitlines()
    else:
        found = []
    assert all(each.isprintable() for each in found)


@settings(max_examples=600, derandomize=True)
@given(st.lists(FRAGMENTS, max_size=30).map("".join))
def test_any_yaml(text: str) -> None:
    """Pieces of manifests and of YAML's syntax in any order."""
    findings(text.encode())


@settings(max_examples=300, derandomize=True)
@given(st.integers(0, len(COURSE)), st.integers(0, 12), FRAGMENTS)
def test_any_edit(position: int, length: int, fragment: str) -> None:
    """The course's example with a piece replaced by another."""
    findings((COURSE[:position] + fragment + COURSE[position + length :]).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=400, derandomize=True)
@given(st.sampled_from(KINDS), st.sampled_from(["metadata", "spec", "status", "endpoints", "subsets"]), JSON, st.data())
def test_any_value_anywhere(kind: Any, field: str, value: Any, data: st.DataObject) -> None:
    """Any JSON value under any field of any kind; and under a field that the kind knows."""
    document = {"apiVersion": kind.group_version, "kind": kind.name, "metadata": {"name": "a"}, field: value}
    findings(json.dumps(document).encode())
    known = of_kind(kind.type).fields.get(field)
    if known is not None and known.fields:
        inner = data.draw(st.sampled_from(sorted(known.fields)))
        findings(json.dumps({**document, field: {inner: value}}).encode())


def test_large_hostile_files_are_read_in_one_pass() -> None:
    """Many keys, documents, findings, long names: each is located, and none costs more than its length."""
    many = 5_000
    texts = [
        "a: 1\n" * many,
        "---\na: [\n" * many,
        "kind: Service\n" + "name: a\n" * many,
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n" + "  - port: 0\n" * many,
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ipFamilies: [" + "IPv4," * many + "]}\n",
        "apiVersion: v1\nkind: Service\nmetadata:\nname: a\nspec:\n" + "".join(f"x{n}:\n" for n in range(many)),
        "".join(f"{' ' * n}a:\n" for n in range(300)),
        "a: " + "x" * 1_000_000 + "\nb: [",
        '{"kind": "List", "apiVersion": "v1", "items": [' + ",".join(["1"] * many) + "]}",
        COURSE.replace("app: myapp", "app: " + "-" * 1_000_000),
        COURSE.replace("name: back-end", "name: " + "a-" * 500_000),
    ]
    for text in texts:
        assert findings(text.encode())
