"""Manifests, as every verb takes them.

It imports nothing of rules: a command whose agent makes them need not know any.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from svcnat.model.manifests import Loaded
from svcnat.model.manifests import load as load_texts
from svcnat.store.folder import read_sources


def load(
    *paths: str | Path,
    text: str | bytes | None = None,
    recursive: bool = False,
    strict: bool = False,
    namespace: str = "default",
    stdin: BinaryIO | None = None,
) -> Loaded:
    """Read manifests: files, folders (with `recursive` what is below them too), ``-`` for `stdin`, or `text`.

    Raises:
        ManifestError: every finding of every file; with `strict`, unknown fields are errors and not warnings.
        UsageError: a path makes no sense.

    """
    sources = read_sources([str(path) for path in paths], recursive=recursive, stdin=stdin)
    if text is not None:
        sources.append(("<text>", text.encode() if isinstance(text, str) else text))
    return load_texts(sources, strict=strict, namespace=namespace)
