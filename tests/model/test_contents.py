"""ConfigMaps and Secrets: what they hold, what is refused, and that no message tells what a Secret holds."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.model.contents import contents, decoded, encoded, variables
from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import from_document, to_document
from svcnat.model.objects import ConfigMap, ObjectMeta, Secret
from svcnat.model.validation import validate, validate_update
from tests.model.build import errors, one

META = ObjectMeta(name="it", namespace="default")
HUSH = "hunter2"


def config_map(**fields: object) -> ConfigMap:
    return ConfigMap(metadata=META, **fields)  # type: ignore[arg-type]


def secret(**fields: object) -> Secret:
    return Secret(metadata=META, **fields)  # type: ignore[arg-type]


@given(st.dictionaries(st.text("abc.-_", min_size=1, max_size=5), st.text(max_size=20), max_size=5))
def test_text_of_a_secret_becomes_data(texts: dict[str, str]) -> None:
    """``stringData`` is only for writing: what is stored has base64 alone, and means the same."""
    stored = with_defaults(secret(data={"old": encoded(b"\xff\0")}, string_data=texts))
    assert (stored.type, stored.string_data) == ("Opaque", {})
    assert contents(stored) == {"old": b"\xff\0", **{key: text.encode() for key, text in texts.items()}}
    assert with_defaults(stored) == stored
    assert from_document(to_document(stored)) == stored


@given(st.binary(max_size=100))
def test_base64_is_read_as_go_reads_it(data: bytes) -> None:
    """Line ends within it do not count; what is stored has none."""
    folded = base64.encodebytes(data).decode().replace("\n", "\r\n")
    stored = with_defaults(secret(data={"key": folded}))
    assert stored.data == {"key": encoded(data)}
    assert contents(stored) == {"key": data}


@pytest.mark.parametrize("text", ["a", "Zm9", "Zm9v!", "Zm 9v", "Zm9v====="])
def test_what_is_no_base64(text: str) -> None:
    """Anything else is refused, in both kinds, with a hint where plain text belongs."""
    assert decoded(text) is None
    (problem,) = validate(config_map(binary_data={"key": text}))
    assert problem.field == "binaryData[key]"
    assert problem.reason.endswith("must be base64; plain text goes under `data`")
    (problem,) = validate(secret(data={"key": text}))
    assert str(problem) == (
        'data[key]: Invalid value: "<secret contents redacted>": must be base64; plain text goes under `stringData`'
    )


def test_what_containers_take() -> None:
    """Files of everything; variables of all but what a ConfigMap declares binary."""
    both = config_map(data={"text": "Grüße"}, binary_data={"image": encoded(b"\x89PNG")})
    assert contents(both) == {"text": "Grüße".encode(), "image": b"\x89PNG"}
    assert variables(both) == {"text": "Grüße"}
    assert variables(secret(data={"key": encoded(b"a\xff")})) == {"key": "a\udcff"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("a b", "a valid config key must consist of"),
        ("", "a valid config key must consist of"),
        ("../passwd", "a valid config key must consist of"),
        (".", "must not be '.'"),
        ("..", "must not be '..'"),
        ("..data", "must not start with '..'"),
        ("k" * 254, "must be no more than 253 characters"),
    ],
)
def test_keys_can_be_files(key: str, reason: str) -> None:
    """What could leave its folder, or is no name of a file, is refused."""
    for wrong in (config_map(data={key: ""}), config_map(binary_data={key: ""}), secret(data={key: ""})):
        assert reason in validate(wrong)[0].reason
    assert validate(secret(string_data={key: HUSH}))


def test_both_fields_of_a_config_map_share_their_keys() -> None:
    """One key is one file."""
    (problem,) = validate(config_map(data={"a": "1"}, binary_data={"a": ""}))
    assert problem.reason == 'Invalid value: "a": duplicate of key present in binaryData'


def test_size() -> None:
    """A mebibyte of what it means, not of base64, is the most."""
    most = 1024 * 1024
    assert not validate(secret(data={"key": encoded(bytes(most))}))
    assert not validate(config_map(data={"key": "x" * most}))
    for large in (secret(string_data={"key": "x" * (most + 1)}), config_map(data={"a": "é" * most})):
        assert [str(each) for each in validate(large)] == ["data: Too long: may not be more than 1048576 bytes"]


@pytest.mark.parametrize(
    ("kind", "data", "missing"),
    [
        ("kubernetes.io/tls", {"tls.crt": ""}, ["data[tls.key]: Required value"]),
        ("kubernetes.io/ssh-auth", {}, ["data[ssh-privatekey]: Required value"]),
        (
            "kubernetes.io/basic-auth",
            {},
            ["data[username]: Required value", "data[password]: Required value"],
        ),
        ("kubernetes.io/basic-auth", {"password": ""}, []),
        ("kubernetes.io/dockerconfigjson", {}, ["data[.dockerconfigjson]: Required value"]),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": encoded(b"{}")}, []),
        (
            "kubernetes.io/dockerconfigjson",
            {".dockerconfigjson": encoded(b"hunter2")},
            ['data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be JSON'],
        ),
        (
            "kubernetes.io/dockerconfigjson",
            {".dockerconfigjson": encoded(b"[" * 100_000)},
            ['data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be JSON'],
        ),
        (
            "kubernetes.io/dockercfg",
            {".dockercfg": "hunter2"},
            [
                'data[.dockercfg]: Invalid value: "<secret contents redacted>": must be base64; '
                "plain text goes under `stringData`"
            ],
        ),
        (
            "kubernetes.io/service-account-token",
            {},
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
        ("example.com/own", {}, []),
    ],
)
def test_types_of_secrets(kind: str, data: dict[str, str], missing: list[str]) -> None:
    """Each has the keys that its type promises; a type of one's own promises nothing."""
    assert [str(each) for each in validate(secret(type=kind, data=data))] == missing


def test_updates() -> None:
    """A type stays; what is immutable changes in nothing but its metadata, and stays immutable."""
    old = secret(data={"a": ""})
    assert not validate_update(old, replace(old, data={}))
    assert [each.field for each in validate_update(old, replace(old, type="other"))] == ["type"]
    frozen = replace(old, immutable=True)
    assert not validate_update(frozen, replace(frozen, metadata=replace(META, labels={"a": "b"})))
    assert [
        str(each) for each in validate_update(frozen, replace(frozen, string_data={"b": HUSH}, immutable=None))
    ] == [
        "immutable: Forbidden: field is immutable when `immutable` is set",
        "data: Forbidden: field is immutable when `immutable` is set",
    ]
    settings = config_map(data={"a": "1"}, immutable=True)
    changed = replace(settings, data={}, binary_data={"b": ""})
    assert [each.field for each in validate_update(settings, changed)] == ["data", "binaryData"]


@pytest.mark.parametrize(
    "body",
    [
        "data: hunter2",
        "data: {key: hunter2}",
        "data: [hunter2]",
        "data: {key: [hunter2]}",
        "data: {key: {hunter2: hunter2}}",
        "stringData: {key: [hunter2]}",
        "stringData: {'a b': hunter2}",
        "stringData: hunter2",
        "type: [hunter2]",
        "immutable: hunter2",
        "key: hunter2",
        "password: {a: hunter2, b: hunter2}",
        "data: {key: !!int hunter2}",
        "data: {key: !!binary hunter2}",
        'data: {key: "hunter2}',
        "data:\n  key: hunter2: hunter2",
        "data:\n  key: @hunter2",
        "data: *hunter2",
        "data: {key: *hunter2}",
        "data:\n  key: !hunter2",
        "data:\n  key: |\nhunter2",
        "data:\n  key:hunter2",
        "data:\n  a: b\n  hunter2",
        'data: {key: "\\qhunter2"}',
        "data:\nkey: hunter2",
        "  data:\n key: hunter2",
    ],
)
def test_no_message_tells_a_secret(body: str) -> None:
    """Whatever is wrong with a manifest, the error says where, and not what stands there."""
    text = f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n{body}\n"
    found = errors(text, strict=True)
    assert found
    assert HUSH not in "".join(found).replace("{hunter2", "").replace("[key].hunter2", "")


def test_numbers_in_a_secret() -> None:
    """What YAML makes a number is refused by name, not by value."""
    found = errors("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {pin: 12345}\n")
    assert found == [
        '4: stringData[pin]: Invalid value: "<secret contents redacted>": '
        "must be text, not what YAML reads here: put it in quotes"
    ]


def test_a_secret_shows_itself_to_nobody() -> None:
    """Its text in tracebacks and logs is its name."""
    resource = one(json.dumps({**to_document(secret(string_data={"key": HUSH}))})).resource
    assert (repr(resource), str(resource)) == ("Secret(default/it)",) * 2
