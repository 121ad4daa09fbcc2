"""Topology files: which nodes, clients and address ranges a lab should have.

::

    apiVersion: svcnat.io/v1alpha1
    kind: Topology
    clusterCIDR: 10.244.0.0/16,fd00:10:244::/56    # of all pods; a range that is left out keeps its default
    serviceCIDR: 10.96.0.0/12,fd00:10:96::/112
    nodeCIDR: 172.30.0.0/24,fd00:172:30::/64       # of the nodes' own network
    clientCIDR: 192.0.2.0/24,2001:db8:c::/64       # of the network outside the cluster
    loadBalancerCIDR: 198.51.100.0/24,2001:db8:b::/112  # of load balancers, which the first node answers for
    nodes:                                         # one, node-1, if there is no list
    - name: node-1
      podCIDRs: [10.244.0.0/24, fd00:10:244::/64]  # the next part of clusterCIDR, if there is none
      labels: {topology.kubernetes.io/zone: east}
      latency: 2ms                                 # of its link, in each direction; as loss
      bridge: pods0                                # its pods share a bridge of that name
      bridgeNfCallIptables: true                   # netfilter sees what it forwards
    clients: 1                                     # or a list: [{latency: 20ms, loss: 1%}]
    images:                                        # what containers run; the longest match of registry/name:tag counts
      redis: redis-server --protected-mode no      # as in a shell, or as a list of words; "" is the stand-in
      front-end: ./server.py --verbose             # a word that begins with ./ is a path beside this file
    restartBackoffSeconds: 10                      # before the second restart of a container, doubled up to 30 times it
    nodeMonitorGraceSeconds: 0                     # until a node that nothing is heard of is NotReady
    podEvictionSeconds: 300                        # from then until its pods are deleted
    bridgeMasquerade: auto                         # auto, on or off
    dns: true                                      # kube-system/kube-dns, at the tenth address of each service range

This module decides no address: :mod:`svcnat.lab.topology` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from svcnat.errors import Finding, ManifestError
from svcnat.lab.topology import Declaration, Planning, Topology, simple
from svcnat.model import manifest_text, shape
from svcnat.model.configuration import API_VERSION
from svcnat.model.identity import items_of
from svcnat.model.manifest_text import Document, Lines
from svcnat.model.quoting import printable
from svcnat.model.validation.problems import Problem

KIND = "Topology"


def find(texts: Iterable[tuple[str, bytes]]) -> Topology:
    """The topology in files, each given as its name and bytes; the default one if there is none.

    Documents of other kinds and versions, and what cannot be read, are left to :func:`svcnat.model.manifests.load`.

    Raises:
        ManifestError: with everything that is wrong, located; two topologies are wrong.

    """
    found = [
        _Found(source, document, root, lines)
        for source, data in texts
        if KIND.encode() in data
        for document in manifest_text.documents(data)
        if not document.broken
        for root, lines in _opened(document.root, document.lines)
        if _is_topology(root)
    ]
    if not found:
        return simple()
    if len(found) > 1:
        first = f"{printable(found[0].source)}:{found[0].lines.of('')}"
        problem = Problem("", f"a lab has one topology: the first is at {first}")
        raise ManifestError([found[1].finding(problem)])
    return found[0].parse()


def _is_topology(root: Any) -> bool:
    return isinstance(root, dict) and root.get("kind") == KIND and root.get("apiVersion") == API_VERSION


def _opened(root: Any, lines: Lines) -> Iterator[tuple[Any, Lines]]:
    """A document, or what is in it if it is a list."""
    items = items_of(root)
    if items is None:
        yield root, lines
        return
    for index, item in enumerate(items):
        yield from _opened(item, lines.below(f"items[{index}]"))


@dataclass(frozen=True, slots=True)
class _Found:
    """A topology, and where it stands."""

    source: str
    document: Document
    root: dict[str, Any]
    lines: Lines

    def parse(self) -> Topology:
        place = printable(self.source)
        findings = [Finding(place, flaw.line, KIND, flaw.field, flaw.reason) for flaw in self.document.flaws]
        found = shape.check(self.root, Declaration)
        wrong = [path for path, _ in found.wrong]
        planning = Planning(msgspec.convert(found.pruned, Declaration))
        problems = [
            *(Problem(unknown.path, f"unknown field{unknown.hint}") for unknown in found.unknown),
            *(Problem(path, reason) for path, reason in found.wrong),
            *(each for each in planning.problems if not any(_is_in(each.field, path) for path in wrong)),
        ]
        findings += [self.finding(problem) for problem in problems]
        if findings:
            raise ManifestError(findings)
        return _located(planning.topology, Path(self.source).absolute().parent)

    def finding(self, problem: Problem) -> Finding:
        line = self.lines.of(problem.field)
        return Finding(printable(self.source), line, KIND, problem.field, problem.reason)


def _is_in(field: str, path: str) -> bool:
    """True if a field is the one at `path`, or in it."""
    return field.startswith(path) and field[len(path) :][:1] in ("", ".", "[")


def _located(topology: Topology, folder: Path) -> Topology:
    """The topology with the files that its commands find beside it."""
    images = {
        image: tuple(str(folder / word) if word.startswith("./") else word for word in words)
        for image, words in topology.images.items()
    }
    if images == topology.images:
        return topology
    written = {image: list(words) for image, words in images.items()}
    return replace(topology, declaration=structs.replace(topology.declaration, images=written), images=images)
