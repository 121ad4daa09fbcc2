"""What ConfigMaps and Secrets hold: bytes by key, whichever field they are in, and base64 as Kubernetes reads it.

Whether keys are well formed is :mod:`svcnat.model.validation.contents`'s subject.
"""

from __future__ import annotations

import base64
import re

from svcnat.model.objects import ConfigMap, Secret

_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

REDACTED = "<secret contents redacted>"
"""What messages say in the place of anything that a Secret holds."""


def contents(found: ConfigMap | Secret) -> dict[str, bytes]:
    """Return what a ConfigMap or Secret with its defaults holds; what is no base64 is left out."""
    if isinstance(found, ConfigMap):
        return _decoded(found.binary_data) | {key: text.encode() for key, text in found.data.items()}
    return _decoded(found.data)


def variables(found: ConfigMap | Secret) -> dict[str, str]:
    """Return what containers may take variables from: of a ConfigMap not what is binary."""
    if isinstance(found, ConfigMap):
        return found.data
    return {key: value.decode(errors="surrogateescape") for key, value in contents(found).items()}


def decoded(text: str) -> bytes | None:
    """Return what base64 stands for, line ends ignored as Go does; None if it is none."""
    plain = text.replace("\r", "").replace("\n", "")
    # Python's own check lets pass what has too much padding.
    return base64.b64decode(plain) if _BASE64.fullmatch(plain) else None


def encoded(data: bytes) -> str:
    """Return data as base64."""
    return base64.b64encode(data).decode()


def canonical(text: str) -> str:
    """Return base64 as the API server would write it; what is none as it is."""
    data = decoded(text)
    return text if data is None else encoded(data)


def _decoded(given: dict[str, str]) -> dict[str, bytes]:
    return {key: data for key, text in given.items() if (data := decoded(text)) is not None}
