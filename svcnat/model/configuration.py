"""The configuration file: its fields, their defaults, and errors that name a line.

Fields that KubeProxyConfiguration has carry its names. What svcnat does not honour is no field: nobody shall rely on
it. This module reads no file and no environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, NamedTuple

import msgspec

from svcnat.errors import Finding, ManifestError
from svcnat.model import manifest_text, shape
from svcnat.model.addresses import Network, canonical, family, parse_network
from svcnat.model.identity import GROUP, VERSION
from svcnat.model.quoting import printable
from svcnat.model.validation.addresses import check_pair
from svcnat.model.validation.names import CIDR_TEXT, check, check_choice, dns_subdomain
from svcnat.model.validation.problems import Problem, duplicate, invalid, required, unsupported

API_VERSION = f"{GROUP}/{VERSION}"
SERVICE_RANGES = "10.96.0.0/12,fd00:10:96::/112"
SWITCHES = ("auto", "on", "off")
METRICS_PORT, HEALTHZ_PORT = 10249, 10256  # kube-proxy's
_DEVICE_NAME_MAX = 15  # bytes: IFNAMSIZ - 1 (Linux, dev_valid_name)


class Bind(NamedTuple):
    """Where something is served: an address, as canonical text, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if family(self.address) == 6 else f"{self.address}:{self.port}"


class Configuration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What ``/etc/svcnat/config.yaml`` says; every field has a default, and empty text means unset."""

    hostname_override: str = ""
    """The node's name; unset means the host's."""
    cluster_cidr: str = msgspec.field(default="", name="clusterCIDR")
    """The pods' ranges, one per family, comma-separated: traffic from elsewhere to cluster IPs is masqueraded."""
    service_cidr: str = msgspec.field(default="", name="serviceCIDR")
    """The ranges of cluster IPs, comma-separated; unset means the default ones, with no rule for unknown addresses."""
    node_port_addresses: list[str] = msgspec.field(default_factory=lambda: ["primary"])
    """Which node addresses answer node ports: CIDRs, or ``primary``."""
    node_port_range: str = "30000-32767"
    """FIRST-LAST."""
    localhost_node_ports: bool = False
    masquerade_all: bool = False
    bridge_masquerade: str = "auto"
    load_balancer_pool: list[str] = []
    """Ranges for load balancers: CIDRs, or FIRST-LAST."""
    load_balancer_interfaces: list[str] = []
    """The links on which the host answers for load-balancer and external IPs (ARP, neighbour discovery).

    Hosts on these links then reach the addresses without a route, and no device of the host has them. Whoever may
    write Services can so take over any address of these links that no device of the host has. The host must forward;
    a link that does not exist is a warning."""
    zone: str = ""
    """The node's, for topology hints; unset means what the label of its Node object says."""
    endpoint_counters: str = "auto"
    """Count connections of each endpoint: elements with a counter take the kernel two to six times as long to add."""
    metrics_bind_address: str = f"127.0.0.1:{METRICS_PORT}"
    """Where the agent serves /metrics: ADDRESS or ADDRESS:PORT; empty means nowhere."""
    healthz_bind_address: str = f"127.0.0.1:{HEALTHZ_PORT}"
    """The same for /healthz and /livez."""
    endpoint_metrics: str = "auto"
    """Whether /metrics has the connections of each endpoint, or only of each Service."""

    @property
    def cluster_networks(self) -> tuple[Network, ...]:
        """The pods' ranges; empty when they are not known."""
        return tuple(_networks(self.cluster_cidr))

    @property
    def service_networks(self) -> tuple[Network, ...]:
        """The ranges of cluster IPs, the default ones when none are configured."""
        return tuple(_networks(self.service_cidr or SERVICE_RANGES))

    @property
    def node_ports(self) -> range:
        """The node ports that Services may have."""
        first, _, last = self.node_port_range.partition("-")
        return range(int(first), int(last) + 1)

    @property
    def metrics_bind(self) -> Bind | None:
        """Where /metrics is served; None means nowhere."""
        return _bind(self.metrics_bind_address, METRICS_PORT)

    @property
    def healthz_bind(self) -> Bind | None:
        """Where /healthz and /livez are served; None means nowhere."""
        return _bind(self.healthz_bind_address, HEALTHZ_PORT)


def parse_configuration(data: bytes, source: str) -> Configuration:
    """Return the configuration that a file holds; an empty file is the default one.

    Raises:
        ManifestError: with every finding: unknown fields are errors here, for a slip would silently change the rules.

    """
    documents = [each for each in manifest_text.documents(data) if each.broken or each.root is not None]
    findings = [
        Finding(printable(source), flaw.line, "Configuration", flaw.field, flaw.reason)
        for document in documents
        for flaw in document.flaws
    ]
    if not documents:
        return Configuration()
    document, *more = documents
    if more:
        line = more[0].lines.of("")
        findings.append(Finding(printable(source), line, "Configuration", "", "a second document is one too many"))
    pruned: dict[str, Any] = {}
    if not document.broken:
        pruned, problems = _check(document.root)
        findings += [
            Finding(printable(source), document.lines.of(each.field), "Configuration", each.field, each.reason)
            for each in problems
        ]
    if findings:
        raise ManifestError(findings)
    return msgspec.convert(pruned, Configuration)


def _check(root: Any) -> tuple[dict[str, Any], list[Problem]]:
    if not isinstance(root, dict):
        return {}, [Problem("", "a configuration is an object with apiVersion, kind and its fields")]
    problems = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", "Configuration")):
        if root.get(key) is None:
            problems.append(required(key))
        elif root[key] != wanted:
            problems.append(unsupported(key, root[key], [wanted]))
    # YAML 1.1 reads a bare on or off as true or false.
    words = {True: "on", False: "off"}
    switches = ("bridgeMasquerade", "endpointCounters", "endpointMetrics")
    given = {key: words[value] if key in switches and isinstance(value, bool) else value for key, value in root.items()}
    found = shape.check(given, Configuration)
    problems += [Problem(unknown.path, f"unknown field{unknown.hint}") for unknown in found.unknown]
    problems += [Problem(path, reason) for path, reason in found.wrong]
    for key, rule in _RULES.items():
        value = found.pruned.get(key)
        if value:
            problems += rule(key, value)
    return found.pruned, problems


def _networks(text: str) -> Iterator[Network]:
    for part in text.split(","):
        network = parse_network(part.strip())
        if network is not None:
            yield network


def _bind(text: str, port: int) -> Bind | None:
    """ADDRESS, ADDRESS:PORT, IPV6 or [IPV6]:PORT; None for anything else."""
    if bare := canonical(text):
        return Bind(bare, port)
    found = re.fullmatch(r"(?:\[([^\[\]]*:[^\[\]]*)\]|([^\[\]:]*)):([1-9][0-9]{0,4})", text)
    address = canonical(found[1] or found[2]) if found else None
    return Bind(address, int(found[3])) if found and address and int(found[3]) <= 65535 else None


def _check_bind(field: str, value: str) -> list[Problem]:
    if _bind(value, METRICS_PORT):
        return []
    return [invalid(field, value, "must be ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT, with an IP address")]


def _check_ranges(field: str, value: str) -> list[Problem]:
    parts = [part.strip() for part in value.split(",")]
    problems = [invalid(field, part, CIDR_TEXT) for part in parts if parse_network(part) is None]
    return problems or check_pair(field, parts)


def _check_node_addresses(field: str, values: list[str]) -> list[Problem]:
    problems = []
    for index, text in enumerate(values):
        if text != "primary" and parse_network(text) is None:
            problems.append(invalid(f"{field}[{index}]", text, f"{CIDR_TEXT}, or primary"))
    if "primary" in values and len(values) > 1:
        problems.append(invalid(field, ", ".join(values), "primary must be the only value"))
    return problems


def _check_port_range(field: str, value: str) -> list[Problem]:
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", value)
    if found and 1 <= int(found[1]) <= int(found[2]) <= 65535:
        return []
    return [invalid(field, value, "must be FIRST-LAST, both between 1 and 65535")]


def _check_pool(field: str, values: list[str]) -> list[Problem]:
    problems = []
    for index, text in enumerate(values):
        first, dash, last = (part.strip() for part in text.partition("-"))
        ends = canonical(first), canonical(last)
        ordered = dash and None not in ends and _ordered(first, last)
        if not ordered and parse_network(text) is None:
            problems.append(invalid(f"{field}[{index}]", text, "must be a CIDR, or FIRST-LAST of one family"))
    return problems


def _check_interfaces(field: str, values: list[str]) -> list[Problem]:
    problems = []
    for index, name in enumerate(values):
        place = f"{field}[{index}]"
        if name == "lo":
            problems.append(invalid(place, name, "the loopback device has no neighbours"))
        elif name in (".", "..") or not re.fullmatch(r"[^\s/:\0]+", name) or len(name.encode()) > _DEVICE_NAME_MAX:
            problems.append(invalid(place, name, "must be the name of a network device"))
        elif name in values[:index]:
            problems.append(duplicate(place, name))
    return problems


def _ordered(first: str, last: str) -> bool:
    return family(first) == family(last) and int(ip_address(first)) <= int(ip_address(last))


_RULES: dict[str, Callable[[str, Any], list[Problem]]] = {
    "hostnameOverride": lambda field, value: check(field, value, dns_subdomain),
    "clusterCIDR": _check_ranges,
    "serviceCIDR": _check_ranges,
    "nodePortAddresses": _check_node_addresses,
    "nodePortRange": _check_port_range,
    "bridgeMasquerade": lambda field, value: check_choice(field, value, SWITCHES),
    "loadBalancerPool": _check_pool,
    "loadBalancerInterfaces": _check_interfaces,
    "endpointCounters": lambda field, value: check_choice(field, value, SWITCHES),
    "endpointMetrics": lambda field, value: check_choice(field, value, SWITCHES),
    "metricsBindAddress": _check_bind,
    "healthzBindAddress": _check_bind,
}
