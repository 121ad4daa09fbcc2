"""Print the rules of manifests as a script that nft -f loads.

It needs no privilege and no state: the same manifests give the same bytes. The script makes svcnat's own tables equal
to the manifests, whatever was in them.
"""

from __future__ import annotations

import argparse

from svcnat.cli import session
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``render``."""
    session.add_manifest_flags(parser)
    parser.add_argument(
        "--backend", choices=("nftables", "iptables"), help="the language of the script; iptables is not built yet"
    )


def run(options: argparse.Namespace) -> int:
    """Print the script for the objects of ``-f``."""
    from svcnat import api

    if options.backend == "iptables":
        raise UsageError("the iptables backend is not built yet; use nftables")
    config = api.configuration(options.config)
    print(api.render(api.compile_ruleset(session.load_some(options), config)), end="")
    return 0
