"""Looking: what the doctor's findings are about, read from the kernel and from the state file.

Nothing is changed: rules, settings and the state file stay as they are, what the kernel can do is asked in a network
namespace of no name, and an older state file is not converted. What this user may not see becomes an Unknown.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar

from svcnat.agent.control import Client, Verify, socket_of_state
from svcnat.agent.doctor import stored, sysctls
from svcnat.agent.doctor.facts import Agent, Facts, Machine, Place, State, Tool, Unknown, Wanted
from svcnat.agent.doctor.packets import tried
from svcnat.errors import KernelError, MissingError, SvcnatError, UsageError
from svcnat.kernel import bridgeports, features, foreign, libnftables, listeners, netns, reach, sysctl, xtables
from svcnat.kernel.host import Interest, Network
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.plan import FAMILIES

T = TypeVar("T")

_ANSWER_SECONDS = 5.0
_AGENT_SECONDS = 10.0  # it may be in the middle of a pass over thousands of Services
_MOST_ADDRESSES = 2000  # of services, whose routes are asked for: others have the same
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin")


@dataclass(frozen=True, slots=True)
class Where:
    """A network namespace to look at, by name or path (None: the current one), and the name of the node that it is."""

    node: str = ""
    netns: str | None = None


def ask_agent(state: Path) -> Agent:
    """Ask whether an agent follows a state file."""
    try:
        client = Client.find(socket_of_state(state), patience=_AGENT_SECONDS)
        if client is None:
            return Agent(alive=False)
        with client:
            told = client.ask(Verify()).state
    except SvcnatError as error:
        return Agent(None, str(error))
    if told is None:
        return Agent(alive=True)
    ill = [f"{each.node} {each.state}" for each in told.targets if each.state != "synced"]
    return Agent(alive=True, detail=", ".join([f"pid {told.pid}", *ill, *told.troubles]))


def gather(
    places: Sequence[Where],
    state: Path | None,
    config: Configuration,
    *,
    trouble: Sequence[str] = (),
    configured: str = "",
    ask: Callable[[Path], Agent] = ask_agent,
    check: Callable[[str], None] | None = None,
) -> Facts:
    """Look at the machine, the state file and each place; `trouble` is what was wrong with the configuration file.

    `configured` is that file's path, if it is not where everybody looks for it. Without a state file, what services
    there are is not known.
    `ask` says whether an agent follows the state file; `check` is who is asked what the kernel can do
    (:func:`svcnat.kernel.features.missing`).

    Raises:
        MissingError: a network namespace does not exist.

    """
    for place in places:
        if place.netns is not None and not netns.exists(place.netns):
            raise MissingError(f'network namespace "{place.netns}" does not exist')
    found = stored.read(state) if state else State("", None, wanted=Unknown("objects come from manifests"))
    return Facts(
        machine=_machine(check),
        state=found,
        config=config,
        trouble=tuple(trouble),
        agent=ask(state) if state else Agent(None),
        begin=_begin(places, state, configured) if state else "",
        places=tuple(_place(each, found, config) for each in places),
    )


def _begin(places: Sequence[Where], state: Path, configured: str) -> str:
    """How one has an agent for these places."""
    if any(each.node for each in places):
        return "the next command that changes the lab starts one"
    flags = [f"--netns {shlex.quote(each.netns)}" for each in places if each.netns]
    flags += [f"--config {shlex.quote(configured)}"] * bool(configured)
    return " ".join(["svcnat", *flags, "--state", shlex.quote(str(state)), "run"])


def _known(question: Callable[[], T]) -> T | Unknown:
    try:
        return question()
    except (KernelError, UsageError) as error:
        return Unknown(str(error))
    except OSError as error:
        return Unknown(os.strerror(error.errno or 0))


def _machine(check: Callable[[str], None] | None) -> Machine:
    library = ""
    try:
        if not hasattr(libnftables.load(), "Nftables"):
            library = "the module nftables that Python finds is another program's"
    except MissingError as error:
        library = str(error)
    return Machine(
        kernel=platform.release(),
        now=datetime.now(UTC),
        tools=tuple(_tools()),
        library=library,
        missing=Unknown(library) if library and check is None else _known(lambda: features.missing(check)),
    )


def _tools() -> Iterator[Tool]:
    """Every nft command once, in the order that a shell finds them."""
    folders = dict.fromkeys([*filter(None, os.environ.get("PATH", "").split(os.pathsep)), *_FOLDERS])
    seen = set()
    for folder in folders:
        path = shutil.which("nft", path=folder)
        if path and (real := os.path.realpath(path)) not in seen:
            seen.add(real)
            yield Tool(path, _version(path))


def _version(nft: str) -> str:
    try:
        asked = [nft, "--version"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return next((word.removeprefix("v") for word in told.split() if word.startswith("v")), "")


def _place(where: Where, state: State, config: Configuration) -> Place:
    opened = _known(lambda: Network(where.netns))
    if isinstance(opened, Unknown):
        return Place(where.node, _enter(where), *(opened,) * 8, listeners=opened, ports=opened)
    with opened as network:
        seen = _known(lambda: network.survey(Interest((*config.service_networks, *_ways(state)))))
    wanted = state.wanted.addresses if isinstance(state.wanted, Wanted) else ()
    asked = wanted[:_MOST_ADDRESSES] or tuple(
        str(each[10]) for each in config.service_networks if each.version == 4 and each.num_addresses > 10
    )
    families, origin = _ours(where.netns)
    return Place(
        node=where.node,
        enter=_enter(where),
        settings=_known(lambda: _settings(where.netns)),
        addresses=seen if isinstance(seen, Unknown) else seen.addresses,
        routes=seen if isinstance(seen, Unknown) else seen.routes,
        unseen=seen if isinstance(seen, Unknown) else {family: seen.unseen_bridges(family) for family in FAMILIES},
        unreachable=_known(lambda: reach.unreachable(asked, where.netns)),
        foreign=_known(lambda: foreign.read(where.netns)),
        legacy=_known(lambda: xtables.read(where.netns)),
        families=families,
        origin=origin,
        listeners=_known(lambda: listeners.read(where.netns)),
        ports=_known(lambda: bridgeports.read(where.netns)),
    )


def _ways(state: State) -> Iterator[IPv4Network | IPv6Network]:
    """The endpoints whose packets the doctor follows."""
    if isinstance(state.wanted, Wanted):
        for family in FAMILIES:
            yield from (ip_network(each.address) for each in tried(state.wanted, family))


def _enter(where: Where) -> str:
    if where.netns is None:
        return ""
    if where.netns.startswith("/"):
        return f"nsenter --net={shlex.quote(where.netns)} "
    return f"ip netns exec {shlex.quote(where.netns)} "


def _settings(name: str | None) -> dict[str, str]:
    found = {}
    with netns.entered(name):
        for key in (*sysctls.KEYS, *_of_devices()):
            try:
                found[key] = sysctl.read(key)
            except KernelError:
                continue  # another kernel's, or a device that has just gone
    return found


def _of_devices() -> Iterable[str]:
    for pattern in sysctls.DEVICE_KEYS:
        folder = sysctl.ROOT / pattern.partition("/{}")[0]
        for device in sorted(os.listdir(folder)) if folder.is_dir() else ():  # noqa: PTH208 (names, not paths)
            yield pattern.format(device)


def _ours(name: str | None) -> tuple[tuple[Family, ...] | Unknown, str]:
    """The families with a table of ours, and what the first of them says of its origin."""
    try:
        with Namespace(name) as namespace:
            families = tuple(namespace.families())
            about = namespace.about(families[0]) if families else ""
    except KernelError as error:
        return Unknown(str(error)), ""
    return families, about.partition(", from ")[2].partition(" #")[0]
