"""Whose rules they are: the ``about`` chain of each table says where its objects are kept.

Rules that follow a state file are not overwritten by accident, neither from manifests alone nor from another state
file. Who may write at all, and when, is :mod:`svcnat.kernel.lock`'s business.
"""

from __future__ import annotations

from svcnat.errors import ConflictError
from svcnat.kernel.nftables import Namespace


def origin_of(identity: str) -> str:
    """What the ``about`` chain says of rules that follow the state file with this identity."""
    return f"state {identity}"


def require(namespace: Namespace, identity: str | None, netns: str | None = None) -> None:
    """Refuse to write over rules that follow a state file, unless it is the one with this identity.

    `netns` is what the user calls the namespace, None for the current one.

    Raises:
        ConflictError: they do.

    """
    for family in namespace.families():
        _, _, origin = namespace.about(family).partition("from state ")
        if origin and (identity is None or not origin.startswith(identity)):
            where = f'network namespace "{netns}"' if netns else "this network namespace"
            whose, way_out = (
                (
                    "another",
                    "`svcnat run --once --force` takes them over, `svcnat cleanup` removes them, "
                    "--netns names another place",
                )
                if identity
                else ("a", "--force takes them over")
            )
            raise ConflictError(f"the rules in {where} follow {whose} state file; {way_out}")
