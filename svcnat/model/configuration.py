"""The configuration file: what a host says about itself, its pods and its services.

::

    apiVersion: svcnat.io/v1alpha1
    kind: Configuration
    hostnameOverride: node-1                          # the node's name, if it is not the host's
    clusterCIDR: 10.244.0.0/16,fd00:10:244::/56       # where pods live; clients from elsewhere are masqueraded
    serviceCIDR: 10.96.0.0/12,fd00:10:96::/112        # where cluster IPs come from (these are the defaults)
    masqueradeAll: false                              # masquerade every client of a cluster IP

Field names are KubeProxyConfiguration's where it has them. A field that svcnat does not honour is an error, so that
nobody relies on it. This module opens no file.
"""

from __future__ import annotations

from functools import cached_property

import msgspec
from msgspec import Struct, field

from svcnat.errors import Finding, ManifestError
from svcnat.model import manifest_text, shape
from svcnat.model.addresses import canonical_network
from svcnat.model.manifest_text import Document
from svcnat.model.quoting import printable, quoted
from svcnat.model.validation.problems import Problem, invalid

API_VERSION = "svcnat.io/v1alpha1"
KIND = "Configuration"


class Configuration(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", dict=True):
    """A configuration as its file has it; ranges are comma-separated. Every field may be missing."""

    hostname_override: str = ""
    cluster_cidr: str = field(default="", name="clusterCIDR")
    service_cidr: str = field(default="", name="serviceCIDR")
    masquerade_all: bool = False

    @cached_property
    def cluster_cidrs(self) -> tuple[str, ...]:
        """The ranges of pods, canonical."""
        return _ranges(self.cluster_cidr)

    @cached_property
    def service_cidrs(self) -> tuple[str, ...]:
        """The ranges of cluster IPs, canonical; none means the defaults."""
        return _ranges(self.service_cidr)


def parse_configuration(data: bytes, source: str) -> Configuration:
    """Read a configuration file, given its bytes and its name.

    Raises:
        ManifestError: everything that is wrong with it, by line; unknown fields are wrong.

    """
    documents = list(manifest_text.documents(data))
    document = documents[0] if documents else None
    if document is None or (document.root is None and not document.flaws):
        return Configuration()
    if document.broken:
        raise ManifestError([Finding(printable(source), flaw.line, KIND, "", flaw.reason) for flaw in document.flaws])
    problems, configuration = _read(document)
    if len(documents) > 1:
        problems.append(Problem("", "a configuration is one document; this file has several"))
    if problems:
        raise ManifestError(
            [
                Finding(printable(source), document.lines.of(each.field), KIND, each.field, each.reason)
                for each in problems
            ]
        )
    return configuration


def _read(document: Document) -> tuple[list[Problem], Configuration]:
    root = document.root
    problems = [Problem(flaw.field, flaw.reason) for flaw in document.flaws]
    if not isinstance(root, dict):
        return [*problems, Problem("", f"must be a {KIND} of {API_VERSION}")], Configuration()
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if root.get(name) != wanted:
            problems.append(invalid(name, root.get(name), f"must be {wanted}"))
    found = shape.check(root, Configuration)
    problems += [Problem(path, reason) for path, reason in found.wrong]
    for unknown in found.unknown:
        hint = f": did you mean {quoted(unknown.meant)}?" if unknown.meant else ""
        problems.append(Problem(unknown.path, f"unknown field{hint}"))
    configuration = msgspec.convert(found.pruned, Configuration)
    for name, text in (("clusterCIDR", configuration.cluster_cidr), ("serviceCIDR", configuration.service_cidr)):
        for part in _parts(text):
            if canonical_network(part) is None:
                problems.append(invalid(name, part, "must be a range of addresses in CIDR notation, as 10.244.0.0/16"))
    return problems, configuration


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _ranges(text: str) -> tuple[str, ...]:
    return tuple(canonical for part in _parts(text) if (canonical := canonical_network(part)))
