"""-o: documents as kubectl writes them, and clear words about formats that are none."""

from __future__ import annotations

import json

import pytest

from svcnat.cli.formats import Format, formatted, parse_format
from svcnat.errors import UsageError
from svcnat.model.kinds import from_document

SERVICE = from_document(
    {
        "kind": "Service",
        "metadata": {
            "name": "back-end",
            "namespace": "default",
            "resourceVersion": "7",
            "creationTimestamp": "2026-05-17T10:00:00Z",
            "managedFields": [{}],
            "annotations": {"note": "two\nlines", "yes": "true", "empty": ""},
        },
        "spec": {"ports": [{"port": 80, "targetPort": "http"}], "clusterIPs": ["10.96.0.1", "fd00::1"]},
    }
)
DEPLOYMENT = from_document({"kind": "Deployment", "metadata": {"name": "web"}})


def text(form: str, *, single: bool = True, terminal: bool = False) -> str:
    """The service in a format."""
    return formatted(parse_format(form), [SERVICE], single=single, terminal=terminal)


def test_yaml_is_kubectls() -> None:
    """Sorted keys, lists at their parent's depth, double quotes only where YAML would read something else."""
    assert text("yaml") == (
        "apiVersion: v1\n"
        "kind: Service\n"
        "metadata:\n"
        "  annotations:\n"
        '    empty: ""\n'
        "    note: |-\n"
        "      two\n"
        "      lines\n"
        '    "yes": "true"\n'
        '  creationTimestamp: "2026-05-17T10:00:00Z"\n'
        "  name: back-end\n"
        "  namespace: default\n"
        '  resourceVersion: "7"\n'
        "spec:\n"
        "  clusterIPs:\n"
        "  - 10.96.0.1\n"
        "  - fd00::1\n"
        "  ports:\n"
        "  - port: 80\n"
        "    targetPort: http\n"
    )


def test_json_is_one_object_or_a_list() -> None:
    """Four spaces and sorted keys; what was asked for by name is itself, anything else a List."""
    assert text("json").startswith('{\n    "apiVersion": "v1",\n    "kind": "Service",\n    "metadata": {')
    document = json.loads(text("json", single=False))
    assert document["kind"] == "List"
    assert [item["metadata"]["name"] for item in document["items"]] == ["back-end"]
    assert json.loads(formatted(parse_format("json"), [], single=False, terminal=False))["items"] == []


def test_names_carry_kind_and_group() -> None:
    """-o name can be fed to another command."""
    assert formatted(Format("name"), [SERVICE, DEPLOYMENT], single=False, terminal=False) == (
        "service/back-end\ndeployment.apps/web\n"
    )


def test_templates_are_raw_for_programs_and_harmless_on_a_terminal() -> None:
    """As ls does it: a pipe gets the bytes, a person gets escapes."""
    hostile = from_document({"kind": "Service", "metadata": {"name": "x", "annotations": {"a": "\x1b[2J\n"}}})
    form = parse_format("jsonpath={.metadata.annotations.a}")
    assert formatted(form, [hostile], single=True, terminal=False) == "\x1b[2J\n"
    assert formatted(form, [hostile], single=True, terminal=True) == "\\u001b[2J\n"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("xml", "unable to match a printer suitable for the output format 'xml'"),
        ("go-template={{.kind}}", "-o go-template is not supported"),
        ("template", "-o template is not supported"),
        ("jsonpath", "needs a template"),
        ("custom-columns=", "needs a template"),
        ("json=x", "takes no template"),
    ],
)
def test_unknown_formats_are_refused(form: str, message: str) -> None:
    """Before anything is done, and naming what there is."""
    with pytest.raises(UsageError, match=message):
        parse_format(form)
