"""ConfigMaps and Secrets from the command line: what ``create configmap`` and ``create secret`` make.

No error repeats a value. Source: k8s.io/kubectl's ``create_configmap.go`` and ``create_secret.go``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svcnat.errors import UsageError

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.model.manifests import Loaded

FORMS = "create takes -f PATH, configmap NAME, secret generic NAME or secret tls NAME"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what a ConfigMap or Secret holds."""
    parser.add_argument("words", nargs="*", metavar="configmap NAME | secret generic|tls NAME", help="without -f")
    parser.add_argument("--from-literal", action="append", default=[], metavar="KEY=VALUE", help="an entry")
    parser.add_argument(
        "--from-file",
        action="append",
        default=[],
        metavar="[KEY=]PATH",
        help="an entry of what is in a file, or one for each file of a folder",
    )
    parser.add_argument("--cert", default="", metavar="FILE", help="of secret tls: the certificate")
    parser.add_argument("--key", default="", metavar="FILE", help="of secret tls: the private key")
    parser.add_argument("--type", default="", metavar="TYPE", help="of secret generic: its type")


def load(options: argparse.Namespace) -> Loaded:
    """The object that the flags describe.

    Raises:
        UsageError: they make no sense.
        ManifestError: nobody may have such an object.

    """
    from svcnat.model.manifests import load as load_texts

    text = json.dumps(_document(options)).encode()
    return load_texts([("command line", text)], strict=True, namespace=options.namespace or "default")


def _document(options: argparse.Namespace) -> dict[str, Any]:
    from svcnat.model.contents import encoded

    kind, *rest = options.words
    if kind in ("configmap", "cm") and len(rest) == 1:
        texts: dict[str, str] = {}
        binary: dict[str, str] = {}
        for key, data in _entries(options).items():
            try:
                texts[key] = data.decode()
            except UnicodeDecodeError:
                binary[key] = encoded(data)
        return _object("ConfigMap", rest[0], data=texts, binaryData=binary)
    if kind == "secret" and len(rest) == 2 and rest[0] in ("generic", "tls"):
        form, name = rest
        entries = _entries(options) if form == "generic" else _certificate(options)
        sort = options.type if form == "generic" else "kubernetes.io/tls"
        data_ = {key: encoded(data) for key, data in entries.items()}
        return _object("Secret", name, data=data_, **({"type": sort} if sort else {}))
    raise UsageError(FORMS)


def _object(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    kept = {field: value for field, value in fields.items() if value}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **kept}


def _certificate(options: argparse.Namespace) -> dict[str, bytes]:
    if not options.cert or not options.key:
        raise UsageError("--key and --cert must be specified")
    return {"tls.crt": _read(Path(options.cert)), "tls.key": _read(Path(options.key))}


def _entries(options: argparse.Namespace) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, data in [*_literals(options.from_literal), *_files(options.from_file)]:
        if key in found:
            raise UsageError(f"cannot add key {key}: another one of that name is there already")
        found[key] = data
    return found


def _literals(words: list[str]) -> Iterator[tuple[str, bytes]]:
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError("--from-literal takes KEY=VALUE")
        yield key, text.encode()


def _files(words: list[str]) -> Iterator[tuple[str, bytes]]:
    for word in words:
        key, equals, path = word.rpartition("=")
        place = Path(path)
        if place.is_dir():
            if equals:
                raise UsageError(f"{place} is a folder: its files are called by their names, not {key}")
            yield from ((each.name, _read(each)) for each in sorted(place.iterdir()) if each.is_file())
        else:
            yield key if equals else place.name, _read(place)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
