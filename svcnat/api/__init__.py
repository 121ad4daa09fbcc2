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
    from svcnat.agent.report import Report
    from svcnat.agent.settings import Host
    from svcnat.agent.targets import Target
    from svcnat.api.agents import Following, agent_state, follow_once, following, hindrances, run_agent, status
    from svcnat.api.cluster import Cluster
    from svcnat.api.configured import DEFAULT_CONFIG, DEFAULT_STATE, configuration
    from svcnat.api.differences import Difference, Differences
    from svcnat.api.edits import Changed
    from svcnat.api.labs import Lab, Wanted, load_lab
    from svcnat.api.manifests import load
    from svcnat.api.rules import Cleaned, cleanup, compile_ruleset, render, sync
    from svcnat.controllers.exposing import Exposure

_MODULES = {
    "agent.report": ("Report",),
    "agent.settings": ("Host",),
    "agent.targets": ("Target",),
    "api.agents": ("Following", "agent_state", "follow_once", "following", "hindrances", "run_agent", "status"),
    "api.cluster": ("Cluster",),
    "api.configured": ("DEFAULT_CONFIG", "DEFAULT_STATE", "configuration"),
    "api.differences": ("Difference", "Differences"),
    "api.edits": ("Changed",),
    "api.labs": ("Lab", "Wanted", "load_lab"),
    "api.manifests": ("load",),
    "api.rules": ("Cleaned", "cleanup", "compile_ruleset", "render", "sync"),
    "controllers.exposing": ("Exposure",),
}
_MODULE_OF = {name: f"svcnat.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_STATE",
    "Changed",
    "Cleaned",
    "Cluster",
    "Difference",
    "Differences",
    "Exposure",
    "Following",
    "Host",
    "Lab",
    "Report",
    "Target",
    "Wanted",
    "agent_state",
    "cleanup",
    "compile_ruleset",
    "configuration",
    "follow_once",
    "following",
    "hindrances",
    "load",
    "load_lab",
    "render",
    "run_agent",
    "status",
    "sync",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
