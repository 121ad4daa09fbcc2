"""Print the versions of svcnat, of libnftables and of the kernel."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess

import svcnat
from svcnat.cli.formats import as_json, as_yaml, parse_format
from svcnat.cli.terminal import visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``version``."""
    parser.add_argument("-o", "--output", default="", metavar="FORMAT", help="json or yaml")


def run(options: argparse.Namespace) -> int:
    """Print the versions; what is not installed is ``<none>``."""
    form = parse_format(options.output, ("", "json", "yaml"))
    versions = {"svcnat": svcnat.__version__, "libnftables": _libnftables(), "kernel": platform.release()}
    if form.name:
        print(as_json(versions) if form.name == "json" else as_yaml(versions), end="")
    else:
        for name, version in versions.items():
            print(visible(f"{name}: {version or '<none>'}"))
    return 0


def _libnftables() -> str | None:
    """The version that ``nft`` tells: it is released with its library, which tells nobody its own."""
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft is None:
        return None
    told = subprocess.run([nft, "--version"], capture_output=True, text=True, check=False).stdout
    return next((word.removeprefix("v") for word in told.split() if word.startswith("v")), None)
