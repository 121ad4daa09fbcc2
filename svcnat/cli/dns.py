"""Answer the names of services and pods over DNS, in the foreground, as the Kubernetes DNS specification 1.1.0 says.

It follows the state file (--state), or with -f manifests on disk, or with --lab a lab: a change is answered within a
tenth of a second. Names that are not the cluster's are forwarded to the servers of /etc/resolv.conf, or to those that
--upstream names. With --netns it answers in that network namespace; others are asked from this one.

SIGTERM and SIGINT end it, SIGHUP reads the configuration again. For systemd it notifies readiness.

It needs the libraries of the extra "dns": pip install '.[dns]'.
"""

from __future__ import annotations

import argparse
import logging

from svcnat.cli import session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``dns``."""
    session.add_following_flags(parser)
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS[:PORT]|fd:N",
        help="where to answer, UDP and TCP, or the number of a UDP socket that is open already, with a TCP socket as "
        "the next one; may be repeated (default: 127.0.0.1:53)",
    )
    parser.add_argument(
        "--upstream",
        action="append",
        default=[],
        metavar="ADDRESS[:PORT]|FILE",
        help="who is asked for other names: a server, or a file like /etc/resolv.conf, the default; "
        "may be repeated; none: nobody",
    )
    parser.add_argument("--domain", default="cluster.local", help="the cluster's domain (default: cluster.local)")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="of the log on standard error (default: text on a terminal)"
    )


def run(options: argparse.Namespace) -> int:
    """Answer until a signal says to stop."""
    from svcnat.agent.logs import configure
    from svcnat.api.naming import RESOLV_CONF, serve_dns

    # A lab brings its namespaces itself; --netns says where to answer.
    following = session.following(options, netns=None if options.lab else options.netns, patient=True)
    configure(options.log_format, level=logging.DEBUG if options.verbose else logging.INFO, patient=False)
    upstreams = [each for each in options.upstream or [RESOLV_CONF] if each != "none"]
    serve_dns(following, options.listen or ["127.0.0.1"], options.netns, upstreams, options.domain)
    return 0
