"""The public Python API: what the command line, lab scripts and tests are written on.

Two ways to use it. Stateless: :func:`load` manifests, :func:`compile_ruleset`, then :func:`render` or :func:`sync`.
With a state file: a :class:`Cluster`, whose objects keep their addresses, and whose rules follow every change. A
:class:`Lab` is a Cluster whose nodes and pods are network namespaces of its own. All of it is also an attribute of
``svcnat``; each name is imported when first touched (PEP 562), so that a command pays for what it uses. Nothing here
prints; every error is an :class:`svcnat.errors.SvcnatError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svcnat.agent.reconcile import Report
    from svcnat.agent.settings import Host
    from svcnat.api.cluster import DEFAULT_STATE, Changed, Cluster, Target
    from svcnat.api.configured import DEFAULT_CONFIG, configuration
    from svcnat.api.labs import Lab, Wanted, load_lab
    from svcnat.api.rules import Cleaned, cleanup, compile_ruleset, load, render, sync

_MODULES = {
    "agent.reconcile": ("Report",),
    "agent.settings": ("Host",),
    "api.cluster": ("DEFAULT_STATE", "Changed", "Cluster", "Target"),
    "api.configured": ("DEFAULT_CONFIG", "configuration"),
    "api.labs": ("Lab", "Wanted", "load_lab"),
    "api.rules": ("Cleaned", "cleanup", "compile_ruleset", "load", "render", "sync"),
}
_MODULE_OF = {name: f"svcnat.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
