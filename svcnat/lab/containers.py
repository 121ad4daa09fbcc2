"""What a container runs, and with which environment and files: from the manifest to plain values.

Pure, but for the search for a program on this machine. Sources: core/v1 Container and EnvVar; the kubelet's
``pkg/kubelet/envvars`` (variables of Services), ``kubelet_pods.go`` (hosts file) and ``network/dns`` (resolv.conf).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svcnat.lab.addressing import Addresses
from svcnat.lab.supervision import Part
from svcnat.model.objects import Container, Pod, PodDNSConfig, Service

STAND_IN: tuple[str, ...] = ()
"""The command of a container that runs none."""

DOMAIN = "cluster.local"

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_UNIDENTIFYING = re.compile(r"[^A-Z0-9_]")
_MOST_NAMESERVERS = 3

Data = Callable[[str, str, str], Mapping[str, str] | None]
"""The data of a ConfigMap or Secret, given its kind, namespace and name; None if there is none."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod runs."""

    node: str
    node_addresses: Addresses
    addresses: Addresses


def all_of(pod: Pod) -> tuple[Container, ...]:
    """A pod's containers in the order in which they start: init containers, then the others."""
    return (*pod.spec.init_containers, *pod.spec.containers)


def part_of(pod: Pod, container: Container) -> Part:
    """What a container is in its pod; an init container that restarts always is a sidecar (KEP-753)."""
    if container not in pod.spec.init_containers:
        return "main"
    return "sidecar" if container.restart_policy == "Always" else "init"


# --- the command ---------------------------------------------------------------------------------------------


def command_of(container: Container, images: Mapping[str, Sequence[str]], path: str) -> tuple[str, ...]:
    """What a container runs, as far as its manifest and the topology's `images` tell; :data:`STAND_IN` if nothing.

    The table's command gets the container's arguments, unless they are those of its own command. Whether a program of
    the table exists is found out when it is run; a container's own command has to exist in `path`.
    """
    listed = _listed(container.image, images)
    if listed is not None:
        return (*listed, *(() if container.command or not listed else container.args))
    if container.command and program(container.command[0], path):
        return (*container.command, *container.args)
    return STAND_IN


def _listed(image: str, images: Mapping[str, Sequence[str]]) -> Sequence[str] | None:
    """The table's entry for an image: as it is written, or without its digest and tag, or without its registry too."""
    without_digest = image.partition("@")[0]
    head, slash, last = without_digest.rpartition("/")
    bare = last.partition(":")[0]
    for name in (image, without_digest, f"{head}{slash}{bare}", last, bare):
        if name in images:
            return images[name]
    return None


def program(name: str, path: str) -> str | None:
    """The file that a command's first word means on this machine, None if it has no such program."""
    return shutil.which(name, path=path)


# --- the environment -----------------------------------------------------------------------------------------


class Missing(Exception):  # noqa: N818 - it is what is missing
    """Something that an environment refers to does not exist."""


def environment_of(
    pod: Pod, container: Container, services: Iterable[Service], place: Place, data: Data
) -> dict[str, str]:
    """The variables of a container: those of the Services of its namespace, its own before them, and HOSTNAME.

    Raises:
        Missing: a ConfigMap, Secret or key is not there, and not optional.

    """
    found = {"HOSTNAME": hostname_of(pod)}
    if pod.spec.enable_service_links is not False:
        found |= service_variables(services)
    for source in dicts(container.env_from):
        found |= _all_of(source, pod.metadata.namespace, data)
    for variable in container.env:
        if variable.value_from:
            value = _value_from(variable.value_from, pod, place, data)
        else:
            value = expanded(variable.value or "", found)
        if value is not None:
            found[variable.name] = value
    # What no process can have would keep it from starting.
    return {name: text.replace("\0", "") for name, text in found.items() if name and "=" not in name}


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """A text with the values of ``$(NAME)`` in it; what is unknown stays as it is, and ``$$`` is a dollar."""
    return _REFERENCE.sub(lambda found: variables.get(found[1], found[0]) if found[1] else "$", text)


def service_variables(services: Iterable[Service]) -> dict[str, str]:
    """``WEB_SERVICE_HOST``, ``WEB_SERVICE_PORT``, ``WEB_PORT_80_TCP_ADDR`` and so on, for Services with an address."""
    found: dict[str, str] = {}
    for service in services:
        address = service.spec.cluster_ip
        if not address or address == "None" or not service.spec.ports:
            continue
        prefix = _variable(service.metadata.name)
        host = f"[{address}]" if ":" in address else address
        found[f"{prefix}_SERVICE_HOST"] = address
        found[f"{prefix}_SERVICE_PORT"] = str(service.spec.ports[0].port)
        for position, port in enumerate(service.spec.ports):
            protocol = port.protocol or "TCP"
            url = f"{protocol.lower()}://{host}:{port.port}"
            if port.name:
                found[f"{prefix}_SERVICE_PORT_{_variable(port.name)}"] = str(port.port)
            if not position:
                found[f"{prefix}_PORT"] = url
            one = f"{prefix}_PORT_{port.port}_{protocol}"
            found |= {one: url, f"{one}_PROTO": protocol.lower(), f"{one}_PORT": str(port.port), f"{one}_ADDR": address}
    return found


def _variable(name: str) -> str:
    return _UNIDENTIFYING.sub("_", name.upper())


def _all_of(source: dict[str, Any], namespace: str, data: Data) -> dict[str, str]:
    """The variables of an EnvFromSource."""
    prefix = str(source.get("prefix") or "")
    for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        if isinstance(reference := source.get(field), dict):
            entries = _data(kind, namespace, reference, data) or {}
            return {f"{prefix}{key}": text for key, text in entries.items()}
    return {}


def _value_from(source: object, pod: Pod, place: Place, data: Data) -> str | None:
    """The value of an EnvVarSource; None if there is none, and it is optional or of no meaning here."""
    if not isinstance(source, dict):
        return None
    if isinstance(field := source.get("fieldRef"), dict):
        return field_of(str(field.get("fieldPath") or ""), pod, place)
    for name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if isinstance(reference := source.get(name), dict):
            entries, key = _data(kind, pod.metadata.namespace, reference, data), str(reference.get("key") or "")
            if entries is None:
                return None
            if key not in entries and not reference.get("optional"):
                raise Missing(f"couldn't find key {key} in {kind} {pod.metadata.namespace}/{reference.get('name')}")
            return entries.get(key)
    return None


def _data(kind: str, namespace: str, reference: dict[str, Any], data: Data) -> Mapping[str, str] | None:
    name = str(reference.get("name") or "")
    found = data(kind, namespace, name)
    if found is None and not reference.get("optional"):
        raise Missing(f'{kind.lower()} "{name}" not found')
    return found


def field_of(path: str, pod: Pod, place: Place) -> str:
    """What the downward API tells of a pod's field; nothing of one that it does not know."""
    meta = pod.metadata
    for name, texts in (("labels", meta.labels), ("annotations", meta.annotations)):
        if path.startswith(f"metadata.{name}['") and path.endswith("']"):
            return texts.get(path[len(f"metadata.{name}['") : -2], "")
    return {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": place.node,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.hostIP": place.node_addresses.v4,
        "status.hostIPs": ",".join(place.node_addresses),
        "status.podIP": place.addresses.v4,
        "status.podIPs": ",".join(place.addresses),
    }.get(path, "")


def dicts(found: object) -> list[dict[str, Any]]:
    """The objects of a list that nobody has checked."""
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


# --- the files -----------------------------------------------------------------------------------------------


def hostname_of(pod: Pod) -> str:
    """The host name that a pod's programs see."""
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def hosts_file(pod: Pod, addresses: Addresses) -> str:
    """The ``/etc/hosts`` of a pod, as the kubelet writes it."""
    name = hostname_of(pod)
    names = [name]
    if pod.spec.subdomain:
        names.insert(0, f"{name}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{DOMAIN}")
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        *("\t".join((address, *names)) for address in addresses),
    ]
    aliases = ["\t".join((each.ip, *each.hostnames)) for each in pod.spec.host_aliases]
    if aliases:
        lines += ["", "# Entries added by HostAliases.", *aliases]
    return "\n".join(lines) + "\n"


def resolv_conf(pod: Pod, nameservers: Sequence[str]) -> str | None:
    """The ``/etc/resolv.conf`` of a pod where the cluster's DNS is at `nameservers`; None leaves the machine's own."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    own = policy == "None"
    if not own and (
        not nameservers or policy == "Default" or (pod.spec.host_network and policy != "ClusterFirstWithHostNet")
    ):
        return None
    config = pod.spec.dns_config or PodDNSConfig()
    namespace = pod.metadata.namespace
    searches = [] if own else [f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN]
    options = {} if own else {"ndots": "5"}
    options |= {each.name: each.value or "" for each in config.options}
    servers = list(dict.fromkeys([*([] if own else nameservers), *config.nameservers]))
    searches = list(dict.fromkeys([*searches, *config.searches]))
    lines = [f"nameserver {each}" for each in servers[:_MOST_NAMESERVERS]]
    if searches:
        lines.append(f"search {' '.join(searches)}")
    words = [f"{name}:{value}" if value else name for name, value in options.items()]
    if words:
        lines.append(f"options {' '.join(words)}")
    return "\n".join(lines) + "\n"
