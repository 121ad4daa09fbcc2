"""Find what keeps services from working here, and say which command fixes it.

It looks at the kernel and at nft, at settings, routes, bridges, programs on node ports and what other programs' rules
do with the packets of services in the network namespace (with --lab, in that of every node), and at the state file. It
changes nothing, and looks as far as this user may: run it as root to see everything.

Each line is an error (services do not work), a warning (they may not) or unknown (not looked at); -v shows what is in
order, too. The exit code is 1 if there is an error. Below a line is what to do about it: a command, or a sentence.
Read a command before you run it, like all commands.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svcnat.cli.formats import as_json, as_yaml, parse_format
from svcnat.cli.terminal import counted, visible
from svcnat.errors import ManifestError

if TYPE_CHECKING:
    from svcnat.agent.doctor.facts import Facts
    from svcnat.agent.doctor.findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``doctor``."""
    parser.add_argument("-o", "--output", default="", metavar="FORMAT", help="json or yaml")


def run(options: argparse.Namespace) -> int:
    """Look, and print what was found."""
    from svcnat.agent.doctor.examine import examine

    form = parse_format(options.output, ("", "json", "yaml"))
    findings = examine(_look(options))
    errors = sum(each.severity == "error" for each in findings)
    if form.name:
        document: dict[str, Any] = {
            "errors": errors,
            "warnings": sum(each.severity == "warning" for each in findings),
            "findings": [as_document(each) for each in findings],
        }
        print(as_json(document) if form.name == "json" else as_yaml(document), end="")
    else:
        _print(findings, verbose=options.verbose)
    return 1 if errors else 0


def _look(options: argparse.Namespace) -> Facts:
    from svcnat import api
    from svcnat.agent.doctor.gather import Where, gather
    from svcnat.model.configuration import Configuration

    trouble: list[str] = []
    if options.lab:
        from svcnat.api.lab_agents import configuration_of
        from svcnat.kernel import netns
        from svcnat.lab import labs, names, state, topology

        labs.enter(options.lab)
        folder = state.folder_of(options.lab)
        plan = topology.plan(state.read(folder).topology)
        places = [Where(node.name, str(netns.path(names.member(options.lab, node.name)))) for node in plan.nodes]
        return gather(places, folder / state.STORE, configuration_of(plan))
    try:
        config = api.configuration(options.config)
    except ManifestError as error:
        trouble += map(str, error.findings)
        config = Configuration()
    place, file = Where("", options.netns), Path(options.state or api.DEFAULT_STATE)
    return gather([place], file, config, trouble=trouble, configured=str(options.config or ""))


def as_document(finding: Finding) -> dict[str, str]:
    """A finding for programs."""
    parts = {
        "severity": finding.severity,
        "node": finding.node,
        "subject": finding.subject,
        "message": finding.message,
        "fix": finding.fix,
    }
    return {key: value for key, value in parts.items() if value}


def print_findings(findings: Iterable[Finding]) -> None:
    """A line for each, and below it what to do about it."""
    for finding in findings:
        where = f"{finding.node}: " if finding.node else ""
        print(visible(f"{finding.severity}: {where}{finding.subject}: {finding.message}"))
        if finding.fix:
            print(visible(f"    fix: {finding.fix}"))


def _print(findings: list[Finding], *, verbose: bool) -> None:
    print_findings(each for each in findings if each.severity != "ok" or verbose)
    counts = [counted(count, name) for name in ("error", "warning") if (count := _count(findings, name))]
    unknown, fine = _count(findings, "unknown"), _count(findings, "ok")
    counts += [f"{unknown} not looked at"] * bool(unknown)
    print(f"{', '.join([*counts, f'{fine} in order'])}")


def _count(findings: list[Finding], severity: str) -> int:
    return sum(each.severity == severity for each in findings)
