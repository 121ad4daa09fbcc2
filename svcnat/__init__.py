"""Kubernetes Services for plain Linux.

The public names of :mod:`svcnat.api` are attributes of this package, imported when first touched (PEP 562), so that
``import svcnat`` costs nothing.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    from importlib import import_module

    api = import_module("svcnat.api")
    if name == "__all__" or name in api.__all__:
        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from importlib import import_module

    return sorted({*globals(), *import_module("svcnat.api").__all__})
