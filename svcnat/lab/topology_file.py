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
    clients: 1
    images:                                        # what containers run; the longest match of registry/name:tag counts
      redis: redis-server --protected-mode no      # as in a shell, or as a list of words; "" is the stand-in
      front-end: ./server.py --verbose             # a word that begins with ./ is a path beside this file
    restartBackoffSeconds: 10                      # before the second restart of a container, doubled up to 30 times it

This module decides no address: :mod:`svcnat.lab.topology` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import structs

from svcnat.errors import Finding, ManifestError
from svcnat.lab.topology import Declaration, Planning, Topology, simple
from svcnat.model import manifest_text, shape
from svcnat.model.configuration import API_VERSION
from svcnat.model.manifest_text import Document
from svcnat.model.quoting import printable
from svcnat.model.validation.problems import Problem, invalid

KIND = "Topology"


def find(texts: Iterable[tuple[str, bytes]]) -> Topology:
    """The topology in files, each given as its name and bytes; the default one if there is none.

    Documents of other kinds, and what cannot be read, are left to :func:`svcnat.model.manifests.load`.

    Raises:
        ManifestError: with everything that is wrong, located; two topologies are wrong.

    """
    found = [
        (source, document)
        for source, data in texts
        if KIND.encode() in data
        for document in manifest_text.documents(data)
        if _is_topology(document)
    ]
    if not found:
        return simple()
    source, document = found[0]
    if len(found) > 1:
        first = f"{printable(source)}:{document.lines.of('')}"
        other, second = found[1]
        raise ManifestError([_finding(other, second, Problem("", f"a lab has one topology: the first is at {first}"))])
    return _parse(source, document)


def _is_topology(document: Document) -> bool:
    root = document.root
    return (
        not document.broken
        and isinstance(root, dict)
        and root.get("kind") == KIND
        and str(root.get("apiVersion")).partition("/")[0] == API_VERSION.partition("/")[0]
    )


def _parse(source: str, document: Document) -> Topology:
    findings = [Finding(printable(source), flaw.line, KIND, flaw.field, flaw.reason) for flaw in document.flaws]
    found = shape.check(document.root, Declaration)
    wrong = {path for path, _ in found.wrong}
    planning = Planning(msgspec.convert(found.pruned, Declaration))
    problems = [
        *(Problem(unknown.path, f"unknown field{unknown.hint}") for unknown in found.unknown),
        *(Problem(path, reason) for path, reason in found.wrong),
        *(problem for problem in planning.problems if problem.field not in wrong),
    ]
    if document.root["apiVersion"] != API_VERSION:
        problems.insert(0, invalid("apiVersion", document.root["apiVersion"], f"must be {API_VERSION}"))
    findings += [_finding(source, document, problem) for problem in problems]
    if findings:
        raise ManifestError(findings)
    return _located(planning.topology, Path(source).absolute().parent)


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


def _finding(source: str, document: Document, problem: Problem) -> Finding:
    return Finding(printable(source), document.lines.of(problem.field), KIND, problem.field, problem.reason)
