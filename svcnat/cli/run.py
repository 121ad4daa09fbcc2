"""Keep rules equal to objects, in the foreground: the agent.

It follows the state file (--state), or with -f manifests on disk, or with --lab a lab, and keeps the rules of one
network namespace, or of every node of the lab, equal to them: whoever changes the objects, the files, the host's
addresses or the rules themselves, it notices and repairs. While it runs, commands that change objects wait for its
answer instead of writing rules themselves.

The rules stay when it ends, however it ends. SIGTERM and SIGINT end it, SIGHUP reads the configuration again. For
systemd there are unit files in docs/systemd: it notifies readiness and feeds the watchdog.

It needs the libraries of the extra "agent": pip install '.[agent]'.
"""

from __future__ import annotations

import argparse
import logging

from svcnat.cli import session
from svcnat.cli.terminal import counted, say, say_warnings
from svcnat.errors import KernelError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``run``."""
    session.add_following_flags(parser)
    parser.add_argument("--once", action="store_true", help="make the rules follow once, and end: for start-up scripts")
    parser.add_argument("--cleanup-on-exit", action="store_true", help="remove the rules at the end")
    parser.add_argument("--force", action="store_true", help="take over rules that follow another state file")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="of the log on standard error (default: text on a terminal)"
    )


def run(options: argparse.Namespace) -> int:
    """Follow until a signal says to stop, or once."""
    from svcnat import api
    from svcnat.agent.logs import configure

    what = session.following(options, netns=options.netns, patient=True)
    # Whoever runs it once reads what it printed, which repeats what went well.
    usual = logging.WARNING if options.once else logging.INFO
    # Who stops reading the log of an agent does not stop the agent.
    configure(options.log_format, level=logging.DEBUG if options.verbose else usual, patient=options.once)
    if not options.once:
        api.run_agent(what, force=options.force, cleanup_on_exit=options.cleanup_on_exit)
        return 0
    state = api.follow_once(what, force=options.force)
    for target in state.targets:
        say_warnings(target.warnings)
        say_warnings(f"{name}: the kernel refused its rules: {reason}" for name, reason in target.refused.items())
    failed = [*state.troubles, *(f"{each.node}: {each.error}" for each in state.targets if each.error)]
    if failed:
        raise KernelError("; ".join(failed))
    for target in state.targets:
        say(f"{target.node}: {counted(target.services, 'service')}, {counted(target.endpoints, 'endpoint')}")
    return 0
