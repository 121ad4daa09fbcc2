"""Tell whether the rules in the kernel are equal to the objects, and how the agent fares.

The kernel's tables are read and compared. Exit code 0: they are equal; 1: they are not, or it cannot be told. Without
an agent the same is asked of the state file, or with -f of manifests.

What no agent can repair is listed too, with what to do about it: forwarding that is off, another program's drop, a
kernel or an nft that lacks something. That changes nothing about the exit code; doctor looks at more, and ends with 1
if there is an error.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from svcnat.cli import session
from svcnat.cli.ages import human_duration
from svcnat.cli.doctor import as_document, print_findings
from svcnat.cli.formats import as_json, as_yaml, parse_format
from svcnat.cli.terminal import aligned, counted

if TYPE_CHECKING:
    from svcnat.agent.control import AgentState, TargetState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``status``."""
    session.add_following_flags(parser)
    parser.add_argument("-o", "--output", default="", metavar="FORMAT", help="json or yaml")


def run(options: argparse.Namespace) -> int:
    """Say how things are; 0 if they are as they should be."""
    from svcnat import api

    form = parse_format(options.output, ("", "json", "yaml"))
    what = session.following(options, netns=options.netns)
    state = api.status(what)
    good = not state.troubles and all(_is_good(target) for target in state.targets)
    hindered = api.hindrances(what)
    if form.is_table:
        print("\n".join(line.rstrip() for line in aligned([*_rows(state)])))
        print_findings(hindered)
    else:
        import msgspec

        written = as_json if form.name == "json" else as_yaml
        found = [as_document(each) for each in hindered]
        print(written({**msgspec.to_builtins(state), "equal": good, "hindrances": found}), end="")
    return 0 if good else 1


def _is_good(target: TargetState) -> bool:
    good = target.state == "synced" and not (target.different or target.refused or target.error)
    return good or target.state == "off"


def _rows(state: AgentState) -> Iterator[tuple[str, ...]]:
    if state.pid:
        yield "Agent:", f"pid {state.pid}, version {state.version}, up {_duration(state.uptime)}"
    else:
        yield "Agent:", "none runs"
    yield "Objects:", f"{state.follows}, revision {state.revision}"
    for trouble in state.troubles:
        yield "Trouble:", trouble
    for target in state.targets:
        yield "", ""
        yield "Node:", f"{target.node} ({target.netns or 'this network namespace'})"
        yield "  Rules:", _verdict(target)
        yield "  Generation:", str(target.generation)
        yield "  Serving:", f"{counted(target.services, 'service')}, {counted(target.endpoints, 'endpoint')}"
        if target.passed:
            yield "  Last pass:", f"{_duration(target.passed)} ago, took {1000 * target.took:.1f} ms"
            yield "  Elements:", f"{target.added} added, {target.deleted} deleted"
            yield "  Repaired:", f"{counted(target.drift, 'foreign change')}"
        refused = (f"{name}: {reason}{_again(target, name)}" for name, reason in target.refused.items())
        yield from _list("  Refused:", refused)
        yield from _list("  Warnings:", target.warnings)


def _verdict(target: TargetState) -> str:
    if target.error:
        return f"{target.state}: {target.error}{_again(target)}"
    if target.different:
        return f"not equal to the objects: {', '.join(target.different)}"
    return "equal to the objects" if target.state == "synced" else target.state


def _again(target: TargetState, service: str = "") -> str:
    """How often what failed was tried, and when it is tried again."""
    if (retry := target.retries.get(service)) is None:
        return ""
    when = f"in {_duration(retry.again)}" if retry.again >= 1 else "at once"
    return f" ({counted(retry.tries, 'attempt')} failed, the next one {when})"


def _list(title: str, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        yield title, line
        title = ""


def _duration(seconds: float) -> str:
    return human_duration(timedelta(seconds=seconds))
