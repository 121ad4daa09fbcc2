"""JSONPath is kubectl's dialect: every expectation here is what kubectl 1.32 prints for the same document."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from svcnat.cli.formats import custom_columns
from svcnat.cli.jsonpath import Path, Template, sort_key
from svcnat.errors import MissingError, UsageError

DOCUMENT: dict[str, Any] = {
    "apiVersion": "v1",
    "items": [
        {
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "k8s-app": "x"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
        },
        {
            "metadata": {"name": "back-end", "annotations": {"a.b/c": "dotted", "it's": "quoted"}},
            "spec": {
                "type": "NodePort",
                "clusterIP": "10.96.0.9",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53}],
                "publishNotReadyAddresses": True,
            },
        },
        {
            "metadata": {"name": "lb"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.3", "ports": [{"port": 80}], "weight": 0.5},
        },
    ],
    "kind": "List",
    "nothing": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        # Text, literals and paths.
        ("hello", "hello"),
        ("{.kind}/{.apiVersion}", "List/v1"),
        ("{ .kind }", "List"),
        ("{$.kind}{@.kind}", "ListList"),
        ('{"a\\tb\\n"}', "a\tb\n"),
        ("""{'single'}{"q\\"q"}{"{"}{"}"}""", 'singleq"q{}'),
        ("{.items[0].metadata['name']}", "kubernetes"),
        ("{.items[0]['metadata.name']}", "kubernetes"),
        ("{.items[0].metadata.labels.k8s-app}", "x"),
        (r"{.items[1].metadata.annotations.a\.b/c}", "dotted"),
        ("""{.items[1].metadata.annotations["it's"]}""", "quoted"),
        ("before-{.nope.deeper}after", "before-after"),
        # Values.
        ("{.items[0].spec.ports}", '[{"name":"https","port":443}]'),
        ("{.items[0].metadata.labels}", '{"component":"apiserver","k8s-app":"x"}'),
        ("{.items[1].spec.publishNotReadyAddresses} {.items[2].spec.weight}", "true 0.5"),
        # Arrays.
        ("{.items[*].metadata.name}", "kubernetes back-end lb"),
        ("{.items[-1].metadata.name}", "lb"),
        ("{.items[-2:].metadata.name}", "back-end lb"),
        ("{.items[0:2].metadata.name}", "kubernetes back-end"),
        ("{.items[:1].metadata.name}", "kubernetes"),
        ("{.items[::2].metadata.name}", "kubernetes lb"),
        ("{.items[0,2].metadata.name}", "kubernetes lb"),
        ("{.items[0:2]['metadata.name','spec.type']}", "kubernetes back-end ClusterIP NodePort"),
        ("{..ports[0].port}", "443 80 80"),
        ("{..port}", "443 80 53 80"),
        ("{.items[0].spec.ports[0].*}", "https 443"),
        ("{.items.metadata}", ""),
        # Filters.
        ('{.items[?(@.metadata.name=="lb")].spec.clusterIP}', "10.96.0.3"),
        ("{.items[?(@.spec.type=='NodePort')].metadata.name}", "back-end"),
        ("{.items[?(@.spec.publishNotReadyAddresses)].metadata.name}", "back-end"),
        ("{.items[?(@.spec.publishNotReadyAddresses==true)].metadata.name}", "back-end"),
        ("{.items[*].spec.ports[?(@.port>60)].port}", "443 80 80"),
        ("{.items[*].spec.ports[?(@.port<=80)].port}", "80 53 80"),
        ('{.items[*].spec.ports[?(@.name!="http")].port}', "443 53"),
        (r'{.items[?(@.metadata.annotations.a\.b/c=="dotted")].metadata.name}', "back-end"),
        ('{.items[?(@.metadata.name=="a)]b")].kind}', ""),
        # Ranges.
        ("{range .items[*]}{.metadata.name}{'\\n'}{end}", "kubernetes\nback-end\nlb\n"),
        ("{range .items[*]}{range .spec.ports[*]}{.port},{end}|{end}done", "443,|80,53,|80,|done"),
        ("{range .items[0:2]}[{.metadata.name}]{end}", "[kubernetes][back-end]"),
        ("{range .items[*]}{.metadata.name}", "kubernetesback-endlb"),
        ("{range .nope[*]}{.metadata.name}{end}", ""),
        ("{.items[0].spec.ports[0]}{range .items[0].spec.ports[*]}{}{end}", '{"name":"https","port":443}' * 2),
        # kubectl prints the text of a template without braces, which nobody can want of a path.
        (".kind", "List"),
    ],
)
def test_templates_print_what_kubectl_prints(template: str, text: str) -> None:
    """The dialect, feature by feature."""
    assert Template.parse(template).apply(DOCUMENT) == text


@pytest.mark.parametrize(
    "template",
    [
        "{.items[0",
        "{.kind",
        '{"open}',
        "{foo}",
        "{end}",
        "{range .items[*]}{end}{end}",
        "{.items[]}",
        "{.items[x]}",
        "{.items[?(@.a<>1)]}",
        "{.items[?(@['a','b']==1)]}",
        "{..}",
        "{....kind}",
        "{.items[?(@.a==)]}",
        "{" + ".a" * 1_000 + "}",
        "{.items[?(@" + ".a" * 1_000 + "==1)]}",
        "{" + "[*]" * 5_000 + "}",
        "{" + "['a','b']" * 40 + "}",
        "{['" + ".a" * 1_000 + "']}",
    ],
)
def test_mistakes_are_usage_errors(template: str) -> None:
    """A template that is none is said to be so, without a traceback."""
    with pytest.raises(UsageError, match="jsonpath"):
        Template.parse(template).apply(DOCUMENT)


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonpath-ng is an extra: all else works without it."""
    monkeypatch.setitem(sys.modules, "jsonpath_ng.ext.parser", None)
    with pytest.raises(MissingError, match="pip install jsonpath-ng"):
        Template.parse("{.kind}")


def test_custom_columns_without_headers() -> None:
    """--no-headers, as kubectl has it."""
    assert custom_columns("NAME:.metadata.name", [{"metadata": {"name": "a"}}], headers=False) == "a\n"


def test_custom_columns() -> None:
    """A table with the headers as typed; missing is <none>, several values have commas, the rest is Go's text."""
    template = "NAME:.metadata.name,Ports:.spec.ports[*].port,L:metadata.labels,IPS:{.spec.x}"
    assert custom_columns(template, DOCUMENT["items"][:2]) == (
        "NAME         Ports   L                                    IPS\n"
        "kubernetes   443     map[component:apiserver k8s-app:x]   <none>\n"
        "back-end     80,53   <none>                               <none>\n"
    )
    with pytest.raises(UsageError, match="expected HEADER:JSONPATH"):
        custom_columns("NAME", [])


def test_sorting_puts_absent_first_and_numbers_before_text() -> None:
    """--sort-by never compares what cannot be compared."""
    items = [{"a": "b"}, {"a": 10}, {"a": 9}, {}, {"a": [1]}, {"a": None}]
    assert sorted(items, key=sort_key(Path.parse(".a"))) == [
        {},
        {"a": 9},
        {"a": 10},
        {"a": None},
        {"a": [1]},
        {"a": "b"},
    ]
