"""Make a Service for a pod, deployment, replicaset or another service, and the rules for it.

Selector, ports and labels are the object's, if nothing else is said:

  svcnat expose deployment web --port=80 --target-port=8080
  svcnat expose pod web-1 --name=first --type=NodePort
  svcnat expose service web --name=web-outside --type=LoadBalancer -l tier=edge

All of the objects or none. With --dry-run=client -o yaml, what is printed is a manifest.
"""

from __future__ import annotations

import argparse

from svcnat.cli import references, session
from svcnat.cli.references import Place
from svcnat.controllers.exposing import Exposure, exposed
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``expose``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to expose")
    session.add_manifest_flags(parser, required=False)
    flags = (
        ("--name", "NAME", "the name of the Service (default: the object's)"),
        ("--port", "PORT[,PORT]", "the port that it serves (default: those of the object)"),
        ("--target-port", "PORT", "number or name of the port of its pods (default: the same)"),
        ("--protocol", "PROTOCOL", "TCP, UDP or SCTP (default: that of the object's port, or TCP)"),
        ("--type", "TYPE", "ClusterIP (default), NodePort, LoadBalancer or ExternalName"),
        ("--selector", "LABELS", "the labels of its pods: a=b,c=d (default: the object's selector, a pod's labels)"),
        ("--external-ip", "ADDRESS", "another address that it answers on"),
        ("--load-balancer-ip", "ADDRESS", "the address of its load balancer"),
        ("--cluster-ip", "ADDRESS", "its cluster IP, or None for a headless Service (default: a free one)"),
        ("--session-affinity", "KIND", "None (default) or ClientIP"),
    )
    for flag, metavar, text in flags:
        parser.add_argument(flag, default="", metavar=metavar, help=text)
    parser.add_argument("-l", "--labels", default="", metavar="LABELS", help="its own labels (default: the object's)")
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Expose the objects that the flags name."""
    form = session.mutation_format(options)
    exposure = _exposure(options)
    places = _places(options)
    with session.open_cluster(options, create=False) as cluster:
        if options.dry_run == "client" and form.name in {"json", "yaml"}:
            cluster.expose(places, exposure, dry_run=True)
            with cluster.read() as snapshot:
                found = [snapshot.get(*place) for place in places]
            services = [exposed(resource, exposure) for resource in found if resource]
            session.print_formatted(form, services, single=len(services) == 1)
            return 0
        return session.change(
            options, form, lambda dry_run: cluster.expose(places, exposure, dry_run=dry_run), "exposed"
        )


def _places(options: argparse.Namespace) -> list[Place]:
    if bool(options.words) == bool(options.filename):
        raise UsageError("say what to expose: either -f PATH, or KIND and NAME")
    if options.filename:
        return [references.place_of(manifest.resource) for manifest in session.load_some(options).manifests]
    places: list[Place] = []
    for selection in references.parse(options.words):
        if not selection.names:
            raise UsageError("resource(s) were provided, but no name was specified")
        namespace = (options.namespace or "default") if selection.kind.namespaced else ""
        places += [(selection.kind.type, namespace, name) for name in selection.names]
    return places


def _exposure(options: argparse.Namespace) -> Exposure:
    if options.session_affinity not in {"", "None", "ClientIP"}:
        raise UsageError(f"unknown session affinity: {options.session_affinity}")
    target = options.target_port
    number = target.isascii() and target.isdecimal() and len(target) <= 5
    return Exposure(
        name=options.name,
        ports=tuple(_number(text) for text in options.port.split(",")) if options.port else (),
        target_port=int(target) if number else target or None,
        protocol=options.protocol.upper(),
        type=options.type,
        selector=_labels("selector", options.selector),
        labels=_labels("label", options.labels),
        external_ip=options.external_ip,
        load_balancer_ip=options.load_balancer_ip,
        cluster_ip=options.cluster_ip,
        session_affinity=options.session_affinity,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise UsageError(f"invalid --port '{text}': must be a number between 1 and 65535")
    return int(text)


def _labels(noun: str, text: str) -> dict[str, str] | None:
    """Parse ``a=b,c=d``; None if there is none."""
    if not text:
        return None
    labels = {}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if not key or not equals or value.startswith("="):
            raise UsageError(f"unexpected {noun} spec: {word}")
        labels[key] = value
    return labels
