"""Wait until objects have met a condition; when one has, its rules are there, too.

  svcnat wait --for=condition=Ready pod/web-1 pod/web-2           or Ready=false; a pod's, node's, deployment's
  svcnat wait --for=condition=Available deployment --all
  svcnat wait --for=jsonpath='{.status.phase}'=Running pod -l app=web
  svcnat wait --for=jsonpath='{.status.loadBalancer.ingress}' svc/web      until there is any
  svcnat wait --for=delete pod/web-1 --timeout=60s
  svcnat wait --for=create svc/web

Exit code 1 when the time is over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from svcnat.cli import choice, references, session
from svcnat.cli.formats import document, parse_format, reference
from svcnat.cli.references import Place
from svcnat.cli.rollout_status import duration
from svcnat.cli.terminal import say, visible
from svcnat.errors import NotFoundError, SvcnatError, UsageError
from svcnat.model.conditions import has_condition
from svcnat.model.kinds import BY_NAME, Kind
from svcnat.model.objects import Resource

Met = Callable[[Resource | None], bool]

_WEEK = 7 * 24 * 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``wait``."""
    choice.add_arguments(parser, "KIND NAME | KIND/NAME", "what to wait for")
    parser.add_argument(
        "--for",
        dest="awaited",
        required=True,
        metavar="CONDITION",
        help="condition=TYPE[=VALUE], jsonpath='{PATH}'[=VALUE], create or delete",
    )
    parser.add_argument(
        "--timeout",
        default="30s",
        metavar="TIME",
        help="give up after 90s, 1m30s, ... (default 30s); 0 looks once, a negative time waits for a week",
    )
    parser.add_argument("-o", "--output", default="", metavar="FORMAT", help="json, yaml, name or jsonpath=...")


def run(options: argparse.Namespace) -> int:
    """Wait for the objects that the flags name."""
    form = parse_format(options.output, session.MUTATION_FORMATS)
    seconds = _WEEK if options.timeout.startswith("-") and duration(options.timeout[1:]) else duration(options.timeout)
    goes, comes = options.awaited.lower() == "delete", options.awaited.lower() == "create"
    met = _parse(options.awaited)
    chosen = choice.Choice(options, options.words)

    def tell(place: Place, resource: Resource | None) -> None:
        resource = resource or before[place]
        if resource and form.name:
            session.print_formatted(form, [resource], single=True)
        elif resource:
            print(f"{visible(reference(resource))} condition met")
        sys.stdout.flush()

    with session.open_cluster(options, create=False) as cluster:
        with cluster.read() as snapshot:
            before = {place: references.at(snapshot, place) for place in chosen.places(snapshot)}
        if missing := [place for place, resource in before.items() if not resource and not (goes or comes)]:
            raise NotFoundError(f"{_kind(missing[0]).quote(missing[0][2])} not found")
        if not before and not goes:
            raise NotFoundError("no matching resources found")
        if goes:  # what is made anew meanwhile is another object
            before = {place: resource for place, resource in before.items() if resource}
            met = _gone({resource.metadata.uid for resource in before.values() if resource})
        late = cluster.wait_for(before, met, seconds, tell, references.at)
    failed = "timed out waiting for the condition on" if seconds else "condition not met for"
    say(*(f"error: {failed} {_kind(place).plural}/{place[2]}" for place in late))
    return 1 if late else 0


def _gone(uids: set[str]) -> Met:
    return lambda resource: resource is None or resource.metadata.uid not in uids


def _kind(place: Place) -> Kind:
    return BY_NAME[place[0].__name__]


def _parse(text: str) -> Met:
    """Return what `--for` asks of an object.

    Raises:
        UsageError: it is none of the forms.

    """
    form, _, rest = text.partition("=")
    if text.lower() in {"create", "delete"}:
        return bool
    if form == "condition" and rest:
        name, _, value = rest.partition("=")
        return lambda resource: resource is not None and has_condition(resource, name, value or "True")
    if form == "jsonpath":
        return _parse_path(rest)
    raise UsageError(f'unrecognized condition: "{text}"')


def _parse_path(text: str) -> Met:
    from svcnat.cli.jsonpath import Path, plain_text

    # Within the braces a filter may compare with =.
    expression, equals, value = text.partition("}=" if text.startswith("{") else "=")
    expression += "}" * (equals == "}=")
    if equals and not value:
        raise UsageError("jsonpath wait value cannot be empty")
    if not expression:
        raise UsageError("jsonpath expression cannot be empty")
    path, wanted = Path.parse(expression), value.strip("'\"").strip()

    def met(resource: Resource | None) -> bool:
        values = path.values(document(resource)) if resource else []
        if len(values) > 1:
            raise SvcnatError("given jsonpath expression matches more than one value")
        if not equals or not values:
            return bool(values)
        if isinstance(values[0], dict | list):
            raise SvcnatError("jsonpath leads to a nested object or list which is not supported")
        return plain_text(values[0]).strip() == wanted

    return met
