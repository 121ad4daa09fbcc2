"""The host around the rules: what they must know of it, and what it needs beside them.

:func:`look` comes before compiling. :func:`prepare` comes after a commit: the rules that guard the loopback, and those
that say what becomes of a packet to an address that nobody has, must be there first. The rules themselves are
:mod:`svcnat.agent.reconcile`'s subject.
"""

from __future__ import annotations

from svcnat.agent.settings import Host
from svcnat.kernel import netns, sysctl
from svcnat.kernel.announce import announce
from svcnat.kernel.host import Network
from svcnat.kernel.localhost import ROUTE_LOCALNET, open_localhost
from svcnat.model.configuration import Configuration
from svcnat.ruleset.needs import Needs
from svcnat.ruleset.plan import FAMILIES


def look(namespace: str | None, config: Configuration) -> Host:
    """What the rules must know of a network namespace (by name or path; None: the current one).

    Raises:
        MissingError: no such namespace.
        KernelError: its addresses and routes cannot be read.

    """
    with Network(namespace) as network:
        addresses = [each for each in network.local_addresses() if each.scope in ("global", "site")]
        return Host(
            addresses=tuple(dict.fromkeys(each.address for each in addresses)),
            primary=tuple(each for each in network.primary_addresses() if each),
            routes=tuple(each.destination for each in network.routes() if not each.destination.endswith("/0")),
            bridges=_bridges(network, config),
        )


def _bridges(network: Network, config: Configuration) -> tuple[str, ...]:
    """Bridges on which an answer would pass by the rules; those that either family's netfilter does not see."""
    match config.bridge_masquerade:
        case "off":
            return ()
        case "on":
            return network.bridges()
        case _:
            return tuple(dict.fromkeys(name for family in FAMILIES for name in network.unseen_bridges(family)))


def prepare(namespace: str | None, needs: Needs, config: Configuration) -> list[str]:
    """Give a network namespace (by name or path; None: the current one) what its services need.

    Level-triggered: what earlier ones needed and these do not is taken back, but for settings under /proc/sys.
    A device that came up since wants another call.

    Returns:
        Warnings: what cannot be had and why, a line each.

    Raises:
        MissingError: no such namespace.
        KernelError: its neighbours and routes cannot be read.

    """
    with netns.entered(namespace):
        return [
            *announce(needs.addresses, config.load_balancer_interfaces),
            *open_localhost(needs.loopback),
        ]


def unprepare(namespace: str | None) -> list[str]:
    """Take back what :func:`prepare` made, but for settings under /proc/sys: others may have come to need them.

    Returns:
        Warnings: a setting that is dangerous without the rules that guarded it.

    Raises:
        MissingError: no such namespace.
        KernelError: its neighbours and routes cannot be read.

    """
    with netns.entered(namespace):
        return [*announce((), ()), *open_localhost(()), *_unguarded()]


def unguard(namespace: str | None) -> list[str]:
    """Warn, a line each, of what is dangerous in a network namespace now that the rules no longer guard its loopback.

    Raises:
        MissingError: no such namespace.

    """
    with netns.entered(namespace):
        return _unguarded()


def _unguarded() -> list[str]:
    if sysctl.read(ROUTE_LOCALNET) != "1":
        return []
    return [
        f"sysctl {ROUTE_LOCALNET} is 1, and svcnat no longer keeps others away from this host's loopback: "
        "set it to 0 unless another program needs it"
    ]
