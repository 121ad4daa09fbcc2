"""What ConfigMaps and Secrets must keep.

No message repeats anything that a Secret holds. Source: core/v1 ValidateConfigMap and ValidateSecret, and
``IsConfigMapKey`` of apimachinery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from svcnat.model.contents import REDACTED, contents, decoded
from svcnat.model.objects import ConfigMap, Secret
from svcnat.model.quoting import entry
from svcnat.model.validation.metadata import check_metadata
from svcnat.model.validation.names import dns_subdomain
from svcnat.model.validation.problems import Problem, forbidden, immutable, invalid, required, too_long

LARGEST = 1024 * 1024
"""How much a ConfigMap or Secret may hold, in bytes."""

_KEY = re.compile("[-._a-zA-Z0-9]+")
_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_LONGEST_KEY = 253
_ACCOUNT = "kubernetes.io/service-account.name"

_NEEDED = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""The keys that a Secret of a type must have."""


def config_key(value: str) -> list[str]:
    """Check a key of a ConfigMap or Secret: it may become the name of a file."""
    wrong = []
    if len(value) > _LONGEST_KEY:
        wrong.append(f"must be no more than {_LONGEST_KEY} characters")
    if not _KEY.fullmatch(value):
        wrong.append(_KEY_TEXT)
    if value in (".", ".."):
        wrong.append(f"must not be '{value}'")
    elif value.startswith(".."):
        wrong.append("must not start with '..'")
    return wrong


def check_config_map(config_map: ConfigMap) -> list[Problem]:
    """Return the problems of a ConfigMap."""
    problems = check_metadata(config_map.metadata, "ConfigMap", dns_subdomain)
    problems += _check_keys("data", config_map.data) + _check_keys("binaryData", config_map.binary_data)
    for key in config_map.data.keys() & config_map.binary_data.keys():
        problems.append(
            invalid(entry("data", key), key, "duplicate of key present in binaryData", at=entry("binaryData", key))
        )
    for key, text in config_map.binary_data.items():
        if decoded(text) is None:
            problems.append(invalid(entry("binaryData", key), text, "must be base64; plain text goes under `data`"))
    return problems + _check_size(config_map)


def check_secret(secret: Secret) -> list[Problem]:
    """Return the problems of a Secret that has its defaults."""
    problems = check_metadata(secret.metadata, "Secret", dns_subdomain)
    problems += _check_keys("data", secret.data)
    for key, text in secret.data.items():
        if decoded(text) is None:
            detail = "must be base64; plain text goes under `stringData`"
            problems.append(invalid(entry("data", key), REDACTED, detail))
    return problems + _check_type(secret) + _check_size(secret)


def check_config_map_update(old: ConfigMap, new: ConfigMap) -> list[Problem]:
    """Return the problems of a ConfigMap that is immutable and changed."""
    return _check_immutable(
        old,
        new,
        {"data": old.data != new.data, "binaryData": old.binary_data != new.binary_data},
    )


def check_secret_update(old: Secret, new: Secret) -> list[Problem]:
    """Return the problems of a Secret whose type changed, or that is immutable and changed."""
    problems = [] if old.type == new.type else [immutable("type", new.type)]
    return problems + _check_immutable(old, new, {"data": old.data != new.data})


def _check_immutable(old: ConfigMap | Secret, new: ConfigMap | Secret, changed: Mapping[str, bool]) -> list[Problem]:
    if not old.immutable:
        return []
    text = "field is immutable when `immutable` is set"
    found = {"immutable": not new.immutable, **changed}
    return [forbidden(name, text) for name, differs in found.items() if differs]


def _check_keys(path: str, given: Mapping[str, str]) -> list[Problem]:
    return [invalid(entry(path, key), key, text) for key in given for text in config_key(key)]


def _check_size(resource: ConfigMap | Secret) -> list[Problem]:
    held = sum(map(len, contents(resource).values()))
    return [too_long("data", LARGEST)] if held > LARGEST else []


def _check_type(secret: Secret) -> list[Problem]:
    """Return what a Secret lacks that its type promises."""
    kind = secret.type or ""
    problems = [required(entry("data", key)) for key in _NEEDED.get(kind, ()) if key not in secret.data]
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & secret.data.keys():
        problems += [required(entry("data", key)) for key in ("username", "password")]
    if kind == "kubernetes.io/service-account-token" and not secret.metadata.annotations.get(_ACCOUNT):
        problems.append(required(entry("metadata.annotations", _ACCOUNT)))
    for key in (".dockercfg", ".dockerconfigjson"):
        if (key,) == _NEEDED.get(kind) and key in secret.data and not _is_json(decoded(secret.data[key])):
            problems.append(invalid(entry("data", key), REDACTED, "must be JSON"))
    return problems


def _is_json(data: bytes | None) -> bool:
    if data is None:
        return True  # that it is no base64 has been said
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
