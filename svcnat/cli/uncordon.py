"""Have pods placed on nodes again that were cordoned."""

from __future__ import annotations

import argparse

from svcnat.cli import cordon

add_arguments = cordon.add_arguments


def run(options: argparse.Namespace) -> int:
    """Uncordon the nodes."""
    return cordon.change(options, unschedulable=False)
