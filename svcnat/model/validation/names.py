"""The forms that names, labels and ports must have: each function returns what is wrong, in Kubernetes' words.

Source: apimachinery's util/validation (RFC 1035, RFC 1123, RFC 6335).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from svcnat.model.quoting import entry
from svcnat.model.validation.problems import Problem, invalid, unsupported

Form = Callable[[str], list[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_QUALIFIED})?"

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    f"and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_LABEL_1035}')"
)
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)

ADDRESS_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_TEXT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
PORT_TEXT = "must be between 1 and 65535, inclusive"
NEGATIVE_TEXT = "must be greater than or equal to 0"

PROTOCOLS = ("TCP", "UDP", "SCTP")


def _form(pattern: str, longest: int, text: str) -> Form:
    compiled = re.compile(pattern)

    def check(value: str) -> list[str]:
        if len(value) > longest:
            return [f"must be no more than {longest} characters"]
        return [] if compiled.fullmatch(value) else [text]

    return check


dns_label = _form(_LABEL, 63, _LABEL_TEXT)
dns_subdomain = _form(_SUBDOMAIN, 253, _SUBDOMAIN_TEXT)
dns_1035_label = _form(_LABEL_1035, 63, _LABEL_1035_TEXT)
label_value = _form(_VALUE, 63, _VALUE_TEXT)
_name_part = _form(_QUALIFIED, 63, _QUALIFIED_TEXT)


def qualified_name(value: str) -> list[str]:
    """Check a label's key: a name, with an optional DNS subdomain and a slash before it."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        suffix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a qualified name {_QUALIFIED_TEXT} {suffix}"]
    wrong = []
    if slash:
        wrong += [f"prefix part {each}" for each in (dns_subdomain(prefix) if prefix else ["must be non-empty"])]
    return wrong + [f"name part {each}" for each in (_name_part(name) if name else ["must be non-empty"])]


def port_name(value: str) -> list[str]:
    """Check the name of a container's port (an IANA service name, RFC 6335)."""
    wrong = []
    if len(value) > 15:
        wrong.append("must be no more than 15 characters")
    if not re.fullmatch("[-a-z0-9]+", value):
        wrong.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        wrong.append("must contain at least one letter (a-z)")
    if "--" in value:
        wrong.append("must not contain consecutive hyphens")
    if value[:1] == "-" or value[-1:] == "-":
        wrong.append("must not begin or end with a hyphen")
    return wrong


def check(field: str, value: str, form: Form) -> list[Problem]:
    """Return the problems of a text that must have a form."""
    return [invalid(field, value, text) for text in form(value)]


def check_port(field: str, value: int) -> list[Problem]:
    """Return the problem of a port number out of range."""
    return [] if 1 <= value <= 65535 else [invalid(field, value, PORT_TEXT)]


def check_counts(values: Mapping[str, int | None]) -> list[Problem]:
    """Return the problems of numbers, by field, that may not be negative."""
    return [invalid(field, value, NEGATIVE_TEXT) for field, value in values.items() if value is not None and value < 0]


def check_choice(field: str, value: str | None, choices: tuple[str, ...]) -> list[Problem]:
    """Return the problem of a value that is none of `choices`; an unset one is fine."""
    return [] if value is None or value in choices else [unsupported(field, value, choices)]


def check_labels(field: str, labels: Mapping[str, str]) -> list[Problem]:
    """Return the problems of a set of labels, or of a selector that is one."""
    problems = []
    for key, value in labels.items():
        problems += [invalid(field, key, text, at=entry(field, key)) for text in qualified_name(key)]
        problems += [invalid(entry(field, key), value, text) for text in label_value(value)]
    return problems
