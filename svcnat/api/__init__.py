"""The public Python API: what the command line, lab scripts and tests are written on.

Two ways to use it. Stateless: :func:`load` manifests, :func:`compile_ruleset`, then :func:`render` or :func:`sync`.
With a state file: a :class:`Cluster`, whose objects keep their addresses, and whose rules follow every change. A
:class:`Lab` is a Cluster whose nodes and pods are network namespaces of its own. All of it is also an attribute of
``svcnat``, imported when first touched. Nothing here prints; every error is an :class:`svcnat.errors.SvcnatError`.
"""

from svcnat.agent.reconcile import Report
from svcnat.agent.settings import Host
from svcnat.api.cluster import DEFAULT_STATE, Changed, Cluster, Target
from svcnat.api.labs import Lab, Wanted, load_lab
from svcnat.api.rules import DEFAULT_CONFIG, Cleaned, cleanup, compile_ruleset, configuration, load, render, sync

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
