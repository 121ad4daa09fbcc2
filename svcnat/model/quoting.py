"""Untrusted text in messages, and the paths of fields: one line, no control characters, a bounded length.

It is for people's eyes: what a shell, SQL or nftables needs is quoted where it is written.
"""

from __future__ import annotations

import json
import re

_LONGEST = 120
_PLAIN_FIELD = re.compile(r"[A-Za-z0-9_$][-A-Za-z0-9_/$]*")
_PLAIN_KEY = re.compile(r"[-A-Za-z0-9_./$]+")


def printable(text: str) -> str:
    """Return `text` with everything that is not printable escaped, so that it cannot break or colour a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]


def quoted(value: object) -> str:
    """Return a value as messages show it, as JSON; cut when it is long."""
    if isinstance(value, str):
        value = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
        return printable(json.dumps(value, ensure_ascii=False))
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return printable(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")


def child(path: str, key: str) -> str:
    """Return the path of a field below `path`; a key that is no plain word is quoted."""
    name = key if len(key) <= _LONGEST and _PLAIN_FIELD.fullmatch(key) else quoted(key)
    return f"{path}.{name}" if path else name


def entry(path: str, key: str) -> str:
    """Return the path of an entry of a map (``metadata.labels[app]``), as Kubernetes writes it."""
    name = key if len(key) <= _LONGEST and _PLAIN_KEY.fullmatch(key) else quoted(key)
    return f"{path}[{name}]"


_STEP = re.compile(r'\.?(?:"((?:[^"\\]|\\.)*)"|([^."\[\]]+)|\[([0-9]+)\]|\["((?:[^"\\]|\\.)*)"\]|\[([^\]]*)\])')


def steps(path: str) -> list[tuple[str, str]]:
    """Return the steps of a path, each with the path up to it: ``a.b[0]`` has ``a``, ``b`` and ``0``."""
    found: list[tuple[str, str]] = []
    for match in _STEP.finditer(path):
        quoted_field, field, index, quoted_key, key = match.groups()
        text = next(part for part in (field, index, key, quoted_field, quoted_key) if part is not None)
        if text in (quoted_field, quoted_key):
            text = json.loads(f'"{text}"')
        found.append((text, path[: match.end()]))
    return found
