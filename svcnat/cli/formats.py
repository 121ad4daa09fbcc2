"""``-o``: objects as JSON, YAML, names, or whatever a template asks of them. Tables are in :mod:`svcnat.cli.listing`.

Every format is text for another program, and so is written as it is; on a terminal the characters that do not print
are escaped (JSON and YAML say the same either way, and are always escaped).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from svcnat.cli.terminal import table, visible
from svcnat.errors import UsageError
from svcnat.model.kinds import kind_of, to_document
from svcnat.model.objects import Resource

_PLAIN = ("", "wide", "json", "yaml", "name")
_TEMPLATES = ("jsonpath", "custom-columns")


@dataclass(frozen=True, slots=True)
class Format:
    """A parsed ``-o``: one of ``""``, wide, json, yaml, name, jsonpath, custom-columns; the latter two with text."""

    name: str = ""
    template: str = ""

    @property
    def is_table(self) -> bool:
        """True for the tables that people read."""
        return self.name in {"", "wide"}


def parse_format(text: str, allowed: Sequence[str] = _PLAIN + _TEMPLATES) -> Format:
    """Parse ``-o`` text such as ``json`` or ``jsonpath={.metadata.name}``.

    Raises:
        UsageError: no such format, or a template is missing.

    """
    name, _, template = text.partition("=")
    if name not in allowed:
        known = ", ".join(filter(None, allowed))
        if name.startswith(("go-template", "template")):
            raise UsageError(f"-o {name} is not supported, as svcnat is not written in Go; use one of: {known}")
        raise UsageError(f"unable to match a printer suitable for the output format '{text}', use one of: {known}")
    if name in _TEMPLATES and not template:
        raise UsageError(f"-o {name} needs a template: -o {name}=...")
    if template and name not in _TEMPLATES:
        raise UsageError(f"-o {name} takes no template")
    return Format(name, template)


def names(resources: Sequence[Resource]) -> str:
    """``service/back-end``, one a line."""
    return "".join(f"{visible(reference(resource))}\n" for resource in resources)


def reference(resource: Resource) -> str:
    """An object as kubectl's messages name it: ``service/back-end``, ``deployment.apps/web``."""
    return f"{kind_of(resource).qualified}/{resource.metadata.name}"


def document(resource: Resource) -> dict[str, Any]:
    """The object as a plain document, without the fields that nobody wants to see."""
    result = to_document(resource)
    result.get("metadata", {}).pop("managedFields", None)
    return result


def collection(resources: Sequence[Resource]) -> dict[str, Any]:
    """Several objects as one ``kind: List``."""
    items = [document(resource) for resource in resources]
    return {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}


def formatted(
    form: Format, resources: Sequence[Resource], *, single: bool, terminal: bool, headers: bool = True
) -> str:
    """The text of `resources` in any format but the tables; `single` means one object, not a list of one.

    Custom columns may go without `headers`.

    Raises:
        UsageError: the template is wrong.

    """
    if form.name == "name":
        return names(resources)
    content = document(resources[0]) if single else collection(resources)
    match form.name:
        case "json":
            return as_json(content)
        case "yaml":
            return as_yaml(content)
        case "jsonpath":
            from svcnat.cli.jsonpath import Template

            text = Template.parse(form.template).apply(content)
            return visible(text, keep="\n\t") if terminal else text
    return custom_columns(form.template, [content] if single else content["items"], headers=headers)


def as_json(value: Any) -> str:
    """JSON as kubectl writes it: keys sorted, four spaces; the characters that do not print as escapes."""
    text = json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False)
    return visible(text, keep="\n") + "\n"


def as_yaml(value: Any) -> str:
    """YAML as kubectl writes it: keys sorted, lists not indented, double quotes only where they are needed."""
    import yaml

    class Dumper(yaml.CSafeDumper):
        """Strings as Kubernetes writes them."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (the base class's signature)
            return True

    def string(dumper: Any, text: str) -> Any:
        tag = "tag:yaml.org,2002:str"
        if "\n" in text:
            return dumper.represent_scalar(tag, text, style="|")
        plain = dumper.resolve(yaml.ScalarNode, text, (True, False)) == tag
        return dumper.represent_scalar(tag, text, style=None if plain and text else '"')

    Dumper.add_representer(str, string)

    def dump(*, as_is: bool) -> str:
        text: str = yaml.dump(value, Dumper=Dumper, allow_unicode=as_is, width=2**31 - 1)
        return text

    text = dump(as_is=True)
    return text if text.replace("\n", "").isprintable() else dump(as_is=False)


def custom_columns(template: str, documents: Sequence[dict[str, Any]], *, headers: bool = True) -> str:
    """A table of ``HEADER:path`` columns; what is not there is ``<none>``.

    Raises:
        UsageError: a column has no path, or a path is wrong.

    """
    from svcnat.cli.jsonpath import Path, go_text

    columns: list[tuple[str, Path]] = []
    for column in template.split(","):
        header, colon, path = column.partition(":")
        if not header or not colon or not path:
            raise UsageError(f"unexpected custom-columns spec '{column}', expected HEADER:JSONPATH")
        columns.append((header, Path.parse(path)))
    rows = [[header for header, _ in columns]] if headers else []
    rows += ([",".join(map(go_text, path.values(item))) or "<none>" for _, path in columns] for item in documents)
    return "".join(f"{line}\n" for line in table(rows))
