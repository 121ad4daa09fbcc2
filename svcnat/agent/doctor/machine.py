"""Findings about the machine: kernel, nft and libnftables, clock, configuration, state file, agent."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta

from svcnat.agent.doctor.facts import Facts, Machine, State, Unknown, Wanted
from svcnat.agent.doctor.findings import Finding, not_known

# Older ones parse all rules of the machine at every start, and die of what newer ones wrote (kubernetes #122743).
_OLDEST_NFT = (1, 0, 1)
_TESTED_NFT = (1, 0, 6)
# From here on nft stores the declarations of sets in a form that those before cannot read: listing them ends in a
# segmentation fault (kubernetes #136786).
_NEW_FORM = (1, 1, 2)
_OLD_FORM_REPAIRED = (1, 0, 6, 1)  # the one release of the old line that can read it

_NETWORK = re.compile(r"nfs|cifs|smb|ceph|gluster|9p|afs|lustre|gfs|fuse\.(sshfs|glusterfs|s3fs)")
_SCARCE = 16 << 20
_SLACK = timedelta(minutes=1)
_FIRST_YEAR = 2025  # no svcnat is older


def check(facts: Facts) -> Iterator[Finding]:
    """The findings that no network namespace has a part in."""
    yield from _kernel(facts.machine, facts.state.wanted)
    yield from _library(facts.machine)
    yield from _tools(facts.machine)
    for line in facts.trouble:
        yield Finding("error", "configuration", line, "correct it; the rest of these findings goes by the defaults")
    yield from _state(facts.state)
    yield from _clock(facts)
    yield from _agent(facts)


def _kernel(machine: Machine, wanted: Wanted | Unknown) -> Iterator[Finding]:
    if isinstance(machine.missing, Unknown):
        yield not_known("kernel", "what the kernel can do", machine.missing)
        return
    features = {each.feature.name: each for each in reversed(machine.missing)}
    for name, each in features.items():
        families = [one.family for one in machine.missing if one.feature.name == name]
        spared = isinstance(wanted, Wanted) and all(wanted.lacks(family) for family in families)
        yield Finding(
            "warning" if each.feature.needed_for or spared else "error",
            "kernel",
            f"Linux {machine.kernel} cannot do this for {' and '.join(families)}: {name}"
            + (f", which {each.feature.needed_for} needs" if each.feature.needed_for else "")
            + f" ({each.reason})",
            f"run a kernel with {each.feature.option}, of version {each.feature.since} or later",
        )
    if not features:
        yield Finding("ok", "kernel", f"Linux {machine.kernel} has everything that the rules are made of")


def _library(machine: Machine) -> Iterator[Finding]:
    if machine.library:
        yield Finding(
            "error",
            "libnftables",
            machine.library,
            "install it: apt install python3-nftables, dnf install python3-nftables, or pacman -S nftables",
        )
    else:
        yield Finding("ok", "libnftables", "Python can use it")


def _tools(machine: Machine) -> Iterator[Finding]:
    known = [(numbers(tool.version), tool) for tool in machine.tools if numbers(tool.version)]
    if not known:
        yield Finding(
            "warning",
            "nft",
            "no nft command was found: which libnftables this is cannot be told, and nobody can list the rules",
            "install it: apt install nftables",
        )
        return
    version, first = known[0]
    if version < _OLDEST_NFT:
        yield Finding(
            "error",
            "nft",
            f"nft {first.version} is too old: before 1.0.1 it reads all rules of the machine at each call, and crashes "
            "on some that newer programs made",
            "upgrade the packages nftables and libnftables1 to 1.0.6 or later",
        )
    elif version < _TESTED_NFT:
        yield Finding(
            "warning",
            "nft",
            f"nft {first.version} is older than 1.0.6, the oldest that svcnat is tested with",
            "upgrade the packages nftables and libnftables1",
        )
    else:
        yield Finding("ok", "nft", f"nft {first.version}")
    newer = [tool for number, tool in known if number >= _NEW_FORM]
    older = [tool for number, tool in known if number < _NEW_FORM and number != _OLD_FORM_REPAIRED]
    if newer and older:
        yield Finding(
            "warning",
            "nft",
            f"{older[0].path} ({older[0].version}) crashes when it lists sets that {newer[0].path} "
            f"({newer[0].version}) or its library made",
            "keep one version of nft on this machine, in containers that share its network too",
        )


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version such as 1.0.6; none if it is no such text."""
    found = re.match(r"[0-9]{1,6}(\.[0-9]{1,6})*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _state(state: State) -> Iterator[Finding]:
    file = shlex.quote(state.path)
    if state.present is None:
        yield not_known("state file", state.path, Unknown(state.trouble))
    elif state.trouble:
        yield Finding("error", "state file", state.trouble, "the rules stay as they are meanwhile; restore a backup")
    elif not state.present:
        yield Finding("ok", "state file", f"{state.path} is not there yet: the first object makes it")
    else:
        if state.mode & 0o077:
            yield Finding(
                "warning", "state file", f"{state.path} may be read by others, and objects may hold secrets",
                f"chmod go= {file}",
            )  # fmt: skip
        services = f", {state.wanted.services} services" if isinstance(state.wanted, Wanted) else ""
        yield Finding("ok", "state file", f"{state.path} can be used{services}")
        if isinstance(state.wanted, Unknown):
            yield not_known("state file", "its objects", state.wanted)
    if _NETWORK.match(state.file_system):
        yield Finding(
            "error",
            "state file",
            f"{state.path} is on a network file system ({state.file_system}), where its locks and its log do not work",
            "move it to a local disk, and name that with --state or SVCNAT_STATE",
        )
    if state.free is not None and state.free < _SCARCE:
        yield Finding(
            "warning",
            "state file",
            f"{state.free >> 20} MiB are left on its disk; changes are refused when it is full",
            "make room there",
        )


def _clock(facts: Facts) -> Iterator[Finding]:
    now, wanted = facts.machine.now, facts.state.wanted
    newest = wanted.newest if isinstance(wanted, Wanted) else None
    if now.year < _FIRST_YEAR or (newest and newest > now + _SLACK):
        seen = f"; the newest object was made at {newest:%Y-%m-%d %H:%M}" if newest else ""
        yield Finding(
            "warning",
            "clock",
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, which has been{seen}: ages and events are wrong until then",
            "set the clock; timedatectl set-ntp true keeps it",
        )
    else:
        yield Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _agent(facts: Facts) -> Iterator[Finding]:
    detail = f": {facts.agent.detail}" if facts.agent.detail else ""
    wanted = facts.state.wanted
    if facts.agent.alive is None:
        yield Finding("unknown", "agent", f"whether one runs could not be asked{detail}")
    elif facts.agent.alive:
        yield Finding("ok", "agent", f"it runs{detail}")
    elif isinstance(wanted, Wanted) and wanted.services:
        yield Finding(
            "warning",
            "agent",
            f"none runs{detail}: the rules follow commands, and nothing else that happens",
            facts.begin,
        )
    else:
        yield Finding("ok", "agent", f"none runs, and there is nothing to follow{detail}")
