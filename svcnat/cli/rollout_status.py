"""Say how a rollout fares, and wait until it is done.

Of a deployment, daemonset or statefulset. With --watch=false it is said once, and is no error if it is not done.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING

from svcnat.cli import references, session
from svcnat.cli.rollouts import progress
from svcnat.cli.terminal import visible
from svcnat.errors import ConflictError, NotFoundError, UsageError
from svcnat.model.kinds import BY_NAME
from svcnat.model.objects import Resource

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Cluster

_WATCH_SECONDS = 0.2  # between two looks, if no agent tells of changes
_TOLD_SECONDS = 5.0  # if one does, in case that it hangs
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout status``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="whose rollout")
    parser.add_argument(
        "-w", dest="watch", action="store_const", const="true", default="true", help="wait, which is the default"
    )
    parser.add_argument(
        "--watch", nargs="?", const="true", default="true", choices=("true", "false"), help="false: say it once"
    )
    parser.add_argument("--timeout", default="0s", metavar="TIME", help="give up after 90s, 1m30s, ...; 0s never does")


def run(options: argparse.Namespace) -> int:
    """Print what there is to say of each object, one after another."""
    seconds = duration(options.timeout)
    selections = references.parse(options.words)
    end = time.monotonic() + seconds if seconds else None
    with session.open_cluster(options, create=False) as cluster:
        for place in references.places(cluster, selections, options.namespace or "default"):
            _follow(cluster, place, end, watch=options.watch == "true")
    return 0


def duration(text: str) -> float:
    """Seconds of a time as Go writes it: ``1m30s``, ``500ms``, ``0``.

    Raises:
        UsageError: it is none.

    """
    if text == "0":
        return 0.0
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"invalid time '{text}': write 90s, 1m30s or 2h")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _follow(cluster: Cluster, place: references.Place, end: float | None, *, watch: bool) -> None:
    said, uid, revision = "", "", -1
    resource: Resource | None = None
    with cluster.news() as news:
        while True:
            with cluster.read() as snapshot:
                if snapshot.revision != revision:
                    revision, resource = snapshot.revision, snapshot.get(*place)
            if resource is None or resource.metadata.uid != (uid or resource.metadata.uid):
                if uid:
                    raise ConflictError("object has been deleted")
                raise NotFoundError(f"{BY_NAME[place[0].__name__].quote(place[2])} not found")
            uid = resource.metadata.uid
            text, done = progress(resource)
            if text != said:
                print(visible(text))
                sys.stdout.flush()
                said = text
            if done or not watch:
                return
            left = _TOLD_SECONDS if end is None else end - time.monotonic()
            if left <= 0:
                raise ConflictError("timed out waiting for the condition")
            if not news.wait(min(left, _TOLD_SECONDS)):
                time.sleep(min(left, _WATCH_SECONDS))
