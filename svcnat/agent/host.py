"""The host around the rules: what they must know of it, and what it needs beside them.

:func:`look` comes before compiling, and so does :func:`survey` for who wants to know later whether an event is a reason
for another look. :func:`prepare` comes after a commit: the rules that guard the loopback, and those that say what
becomes of a packet to an address that nobody has, must be there first. The rules themselves are
:mod:`svcnat.agent.reconcile`'s subject.
"""

from __future__ import annotations

from svcnat.agent.settings import Host
from svcnat.kernel import netns, sysctl
from svcnat.kernel.announce import announce
from svcnat.kernel.host import Interest, Network, Survey
from svcnat.kernel.localhost import ROUTE_LOCALNET, open_localhost
from svcnat.model.configuration import Configuration
from svcnat.ruleset.needs import Needs
from svcnat.ruleset.plan import FAMILIES
from svcnat.ruleset.strings import is_link


def look(namespace: str | None, config: Configuration) -> Host:
    """What the rules must know of a network namespace (by name or path; None: the current one).

    Raises:
        MissingError: no such namespace.
        KernelError: its addresses and routes cannot be read.

    """
    return described(survey(namespace, config), config)


def survey(namespace: str | None, config: Configuration) -> Survey:
    """See of a network namespace (by name or path; None: the current one) what matters to its rules and to them alone.

    Raises:
        MissingError: no such namespace.
        KernelError: its addresses and routes cannot be read.

    """
    devices = frozenset[str]()
    if config.load_balancer_interfaces:
        devices |= {"lo", *config.load_balancer_interfaces}  # entries and routes go with them: see prepare()
    interest = Interest(
        networks=config.service_networks if config.service_cidr else (),
        devices=None if config.localhost_node_ports else devices,  # every device has a route of ours to ::1
    )
    with Network(namespace) as network:
        return network.survey(interest)


def described(seen: Survey, config: Configuration) -> Host:
    """What the rules must know of what was seen."""
    return Host(
        addresses=tuple(dict.fromkeys(each.address for each in seen.addresses if each.is_reachable)),
        primary=tuple(each for each in seen.primary_addresses() if each),
        routes=tuple(each.destination for each in seen.routes if not each.destination.endswith("/0")),
        bridges=_bridges(seen, config),
    )


def _bridges(seen: Survey, config: Configuration) -> tuple[str, ...]:
    """Bridges on which an answer would pass by the rules; those that either family's netfilter does not see.

    One whose name nft cannot say is left out.
    """
    match config.bridge_masquerade:
        case "off":
            return ()
        case "on":
            found = seen.bridges()
        case _:
            found = tuple(dict.fromkeys(name for family in FAMILIES for name in seen.unseen_bridges(family)))
    return tuple(filter(is_link, found))


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
