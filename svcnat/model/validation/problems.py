"""One thing wrong with an object, in Kubernetes' wording (apimachinery's field errors)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from svcnat.model.quoting import quoted


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field; `at` is a more precise path for finding its line, where there is one."""

    field: str
    reason: str
    at: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


def required(field: str, detail: str = "") -> Problem:
    """Return the problem of a field that must be set."""
    return Problem(field, f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: object, detail: str, *, at: str = "") -> Problem:
    """Return the problem of a value that breaks a rule."""
    return Problem(field, f"Invalid value: {quoted(value)}: {detail}", at)


def unsupported(field: str, value: object, supported: Iterable[str]) -> Problem:
    """Return the problem of a value that is none of a fixed set."""
    choices = ", ".join(quoted(choice) for choice in sorted(supported))
    return Problem(field, f"Unsupported value: {quoted(value)}: supported values: {choices}")


def duplicate(field: str, value: object) -> Problem:
    """Return the problem of a value that must be unique."""
    return Problem(field, f"Duplicate value: {quoted(value)}")


def not_found(field: str, value: object) -> Problem:
    """Return the problem of a value that names something which is not there."""
    return Problem(field, f"Not found: {quoted(value)}")


def forbidden(field: str, detail: str) -> Problem:
    """Return the problem of a field that may not be set here."""
    return Problem(field, f"Forbidden: {detail}")


def too_many(field: str, count: int, most: int) -> Problem:
    """Return the problem of a list that is too long."""
    return Problem(field, f"Too many: {count}: must have at most {most} items")


def too_long(field: str, most: int) -> Problem:
    """Return the problem of a text that is too long; the text itself is not repeated."""
    return Problem(field, f"Too long: may not be more than {most} bytes")


def immutable(field: str, value: object) -> Problem:
    """Return the problem of a field that changed and may not."""
    return invalid(field, value, "field is immutable")
