"""Links between network namespaces: veth pairs and bridges with their addresses, routes and neighbours.

What is wanted is a value (:class:`Veth`, :class:`Bridge`); :func:`build` makes a batch of them. The only module that
imports pyroute2, when something is built and not before. Links usually go with their namespaces: :func:`unplug` is for
those that are to go first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from svcnat.errors import KernelError, MissingError, PrivilegeError
from svcnat.kernel import netns

_Routing = Any  # pyroute2's AsyncIPRoute: imported late, and untyped

_IFA_F_NODAD = 0x02  # an address that waits for duplicate detection cannot be bound for a second
_NUD_PERMANENT = 0x80
_RTN_UNREACHABLE = 7
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # netdevice(7)
_IFREQ = struct.Struct("16sH22x")
_IFF_UP = 1
_MOST_DELAYED = 10_000  # packets; netem's own 1,000 lose some at 20 ms and a gigabit
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253


@dataclass(frozen=True, slots=True)
class Route:
    """A route through the device that it is listed with.

    Attributes:
        destination: CIDR; ``0.0.0.0/0`` and ``::/0`` are the default routes.
        gateway: the next hop, or None: the destination is on the link.
        source: the address that the node itself uses as source, or None.
        on_link: the gateway is reached through the device although no address of it covers the gateway.
        unreachable: refuse the destination instead (the device plays no part).

    """

    destination: str
    gateway: str | None = None
    source: str | None = None
    on_link: bool = False
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """One device in one network namespace; `addresses` are interfaces (``10.0.0.1/24``).

    `neighbours` are (address, MAC) pairs that never need asking for; `bridge` is the device that it is a port of, which
    `hairpin` allows to send packets back by the port that they came in by.
    """

    netns: Path
    name: str
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()
    mac: str | None = None
    bridge: str | None = None
    hairpin: bool = False


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair; `near` is the end in the namespace that many pairs share, `far` the end in the other one."""

    near: Device
    far: Device


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge device without ports; :class:`Device`'s `bridge` adds them."""

    device: Device


def build(wanted: Iterable[Veth | Bridge]) -> None:
    """Make links in the order given, bring them up, and the loopback of every namespace concerned.

    All of it happens in one worker thread with an event loop of its own, which enters the namespaces: the caller's
    thread goes nowhere. About 3 ms a veth pair. On failure what was built so far stays, until its namespaces go.

    Raises:
        MissingError: one of the namespaces does not exist.
        PrivilegeError: CAP_NET_ADMIN or CAP_SYS_ADMIN is missing.
        KernelError: the kernel refused, for instance because the device exists.

    """
    import asyncio

    batch = tuple(wanted)
    netns.call(None, lambda: asyncio.run(_build(batch)))


def take_down(namespace: Path, devices: Iterable[str]) -> None:
    """Set devices down, and so remove the routes through them; those that are gone already do no harm.

    A namespace that is deleted is torn down by the kernel some time later: without this its neighbours go on sending.

    Raises:
        MissingError: the namespace does not exist.
        KernelError: the kernel refused.

    """
    with netns.entered(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for device in devices:
            try:
                fcntl.ioctl(handle, _SIOCSIFFLAGS, _IFREQ.pack(device.encode(), 0))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise _classified(error, f"cannot set {device} of {namespace} down") from error


def unplug(namespace: Path, devices: Iterable[str]) -> None:
    """Remove devices, and with a veth its other end, wherever that is; those that are gone already do no harm.

    Raises:
        MissingError: the namespace does not exist.
        KernelError: the kernel refused.

    """
    import asyncio

    names = tuple(devices)
    netns.call(None, lambda: asyncio.run(_unplug(namespace, names)))


def reroute(namespace: Path, device: str, routes: Iterable[Route]) -> None:
    """Put routes through a device in the place of those to the same destinations.

    Raises:
        MissingError: the namespace does not exist.
        KernelError: the kernel refused.

    """
    import asyncio

    wanted = tuple(routes)
    netns.call(None, lambda: asyncio.run(_reroute(namespace, device, wanted)))


def can_delay() -> bool:
    """True if the kernel has netem (tc-netem(8), CONFIG_NET_SCH_NETEM), asked in a namespace that ends afterwards.

    Raises:
        PrivilegeError: CAP_NET_ADMIN or CAP_SYS_ADMIN is missing.

    """
    import asyncio

    try:
        netns.call_apart(lambda: asyncio.run(_delay(None, "lo", 0.001)))
    except (OSError, _netlink_error()) as error:
        if _code(error) in {errno.ENOENT, errno.EOPNOTSUPP}:
            return False
        raise _classified(error, "cannot ask for netem") from error
    return True


def delay(namespace: Path, device: str, seconds: float) -> None:
    """Have every packet that leaves by a device wait for so long, by netem.

    Raises:
        MissingError: the namespace does not exist.
        KernelError: the kernel refused.

    """
    import asyncio

    try:
        netns.call(None, lambda: asyncio.run(_delay(namespace, device, seconds)))
    except (OSError, _netlink_error()) as error:
        raise _classified(error, f"cannot delay what leaves by {device} of {namespace}") from error


async def _delay(namespace: Path | None, device: str, seconds: float) -> None:
    routing = _open(namespace)
    try:
        with netns.entered(namespace):
            index = socket.if_nametoindex(device)
        microseconds = round(seconds * 1_000_000)
        await routing.tc("add", "netem", index=index, handle="1:", delay=microseconds, limit=_MOST_DELAYED)
    finally:
        routing.close()


async def _unplug(namespace: Path, devices: tuple[str, ...]) -> None:
    routing = _open(namespace)
    try:
        for device in devices:
            try:
                index = _index(namespace, device)
            except OSError:  # it has no number: there is none of that name
                continue
            try:
                await routing.link("del", index=index)
            except (OSError, _netlink_error()) as error:
                if _code(error) not in {errno.ENODEV, errno.ENXIO}:
                    raise _classified(error, f"cannot remove {device} of {namespace}") from error
    finally:
        routing.close()


async def _reroute(namespace: Path, device: str, routes: tuple[Route, ...]) -> None:
    routing = _open(namespace)
    try:
        index = _index(namespace, device)
        for route in routes:
            await routing.route("replace", **_route(route, index))
    except (OSError, _netlink_error()) as error:
        raise _classified(error, f"cannot change the routes through {device} of {namespace}") from error
    finally:
        routing.close()


async def _build(batch: tuple[Veth | Bridge, ...]) -> None:
    # Sockets of the shared side stay open for the batch; those of 3,000 pods would not fit the descriptor limit.
    shared: dict[Path, _Routing] = {}
    try:
        for item in batch:
            near = item.device if isinstance(item, Bridge) else item.near
            if near.netns not in shared:
                shared[near.netns] = _open(near.netns)
            try:
                if isinstance(item, Bridge):
                    await _build_bridge(shared[near.netns], near)
                else:
                    await _build_veth(shared[near.netns], item)
            except (OSError, _netlink_error()) as error:
                raise _classified(error, f"cannot build link {near.name} of {near.netns}") from error
    finally:
        for routing in shared.values():
            routing.close()


def _open(namespace: Path | None) -> _Routing:
    """A routing socket in a namespace (None: the thread's), whose loopback is brought up."""
    from pyroute2.iproute.linux import AsyncIPRoute

    with netns.entered(namespace):
        bring_up("lo")
        routing: _Routing = AsyncIPRoute(groups=0)  # type: ignore[no-untyped-call]
        _ = routing.socket  # made on first touch, in the namespace where the thread is then
        return routing


def bring_up(name: str) -> int:
    """Bring a device of the thread's namespace up, by ioctl, a tenth of the netlink way's time; return its index."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        _, flags = _IFREQ.unpack(fcntl.ioctl(handle, _SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0)))
        fcntl.ioctl(handle, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))
    return socket.if_nametoindex(name)


async def _build_bridge(routing: _Routing, device: Device) -> None:
    fixed = {"address": device.mac} if device.mac else {}  # otherwise it changes as ports come and go
    # A snooping bridge keeps questions for a neighbour's address from one that was unplugged and is back.
    await routing.link("add", ifname=device.name, kind="bridge", state="up", br_mcast_snooping=0, **fixed)
    await _furnish(routing, device, _index(device.netns, device.name))


async def _build_veth(near: _Routing, pair: Veth) -> None:
    descriptor = os.open(pair.far.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await near.link(
            "add",
            ifname=pair.near.name,
            kind="veth",
            **({"address": pair.near.mac} if pair.near.mac else {}),
            peer={
                "ifname": pair.far.name,
                "net_ns_fd": descriptor,
                **({"address": pair.far.mac} if pair.far.mac else {}),
            },
        )
    finally:
        os.close(descriptor)
    # Both ends before any route: one through a link without carrier is refused or unusable.
    with netns.entered(pair.far.netns):
        far_index = bring_up(pair.far.name)
    with netns.entered(pair.near.netns):
        near_index = bring_up(pair.near.name)
    far = _open(pair.far.netns)
    try:
        await _furnish(far, pair.far, far_index)
    finally:
        far.close()
    await _furnish(near, pair.near, near_index)


async def _furnish(routing: _Routing, device: Device, index: int) -> None:
    if device.bridge:
        await routing.link("set", index=index, master=_index(device.netns, device.bridge))
        if device.hairpin:
            await routing.brport("set", index=index, mode=1)
    for text in device.addresses:
        interface = ip_interface(text)
        await routing.addr(
            "add",
            index=index,
            address=str(interface.ip),
            prefixlen=interface.network.prefixlen,
            **({"flags": _IFA_F_NODAD} if interface.version == 6 else {}),
        )
    for address, mac in device.neighbours:
        await routing.neigh("add", dst=address, lladdr=mac, ifindex=index, state=_NUD_PERMANENT)
    for route in device.routes:
        await routing.route("add", **_route(route, index))


def _route(route: Route, index: int) -> dict[str, Any]:
    request: dict[str, Any] = {"dst": route.destination}
    if route.unreachable:
        return request | {"type": _RTN_UNREACHABLE}
    request["oif"] = index
    if route.gateway:
        request["gateway"] = route.gateway
    if ip_network(route.destination).version == 4:
        request["scope"] = _SCOPE_UNIVERSE if route.gateway else _SCOPE_LINK
    if route.source:
        request["prefsrc"] = route.source
    if route.on_link:
        request["flags"] = ["onlink"]
    return request


def _index(namespace: Path, name: str) -> int:
    with netns.entered(namespace):
        return socket.if_nametoindex(name)


def _netlink_error() -> type[Exception]:
    from pyroute2.netlink.exceptions import NetlinkError

    error: type[Exception] = NetlinkError
    return error


def _code(error: Exception) -> int:
    return getattr(error, "code", None) or getattr(error, "errno", None) or 0


def _classified(error: Exception, subject: str) -> KernelError:
    code = _code(error)
    match error:
        case PermissionError():
            return PrivilegeError(f"{subject}: {os.strerror(code)}: run as root, or inside unshare -rnm")
        case FileNotFoundError():
            return MissingError(f"{subject}: the network namespace at its other end does not exist")
    if code in {errno.EPERM, errno.EACCES}:
        return PrivilegeError(f"{subject}: {os.strerror(code)}: run as root, or inside unshare -rnm")
    return KernelError(f"{subject}: {os.strerror(code)}")
