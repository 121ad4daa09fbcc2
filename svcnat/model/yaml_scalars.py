"""What a plain YAML scalar means: the resolution of the parser that Kubernetes uses.

YAML 1.1 as go-yaml v2 reads it: ``yes`` and ``on`` are true, ``010`` is eight, ``1_000`` is a thousand. Dates and base
60 numbers stay text.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}

_SUGGESTIVE = frozenset("yYnNtTfFoO~+-.0123456789")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_PREFIXED = re.compile(r"([-+]?)0(?:([xX])([0-9a-fA-F]+)|([bB])([01]+)|[oO]?([0-7]+))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 400


def resolve(text: str) -> Scalar:
    """Return the value of an unquoted scalar that carries no tag.

    Numbers of more than 400 characters stay text: converting them is slow, and no field takes them.
    """
    if text and text[0] not in _SUGGESTIVE:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    plain = text.replace("_", "") if text[0] != "." else text
    if _DECIMAL.fullmatch(plain):
        return int(plain)
    if found := _PREFIXED.fullmatch(plain):
        sign, _, hexadecimal, _, binary, octal = found.groups()
        digits, base = (hexadecimal, 16) if hexadecimal else (binary, 2) if binary else (octal, 8)
        return int(sign + digits, base)
    if _FLOAT.fullmatch(plain) and math.isfinite(number := float(plain)):
        return number
    return text


def key_text(value: Scalar) -> str | None:
    """Return the JSON object key that a scalar becomes, as Kubernetes converts YAML to JSON; None for null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
