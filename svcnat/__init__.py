"""Kubernetes Services for plain Linux.

The public names of :mod:`svcnat.api` are attributes of this package, imported when first touched (PEP 562), so that
``import svcnat`` costs nothing.
"""

from typing import Any

__version__ = "0.1.0"

_API = (
    "DEFAULT_CONFIG",
    "DEFAULT_STATE",
    "Changed",
    "Cleaned",
    "Cluster",
    "Host",
    "Lab",
    "Report",
    "Target",
    "Wanted",
    "cleanup",
    "compile_ruleset",
    "configuration",
    "load",
    "load_lab",
    "render",
    "sync",
)
__all__ = [*_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        from svcnat import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
