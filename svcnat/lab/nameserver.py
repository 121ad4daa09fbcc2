"""The DNS of a lab: the objects that it consists of, as in a cluster, and the program that its pods run.

A Service ``kube-system/kube-dns`` at the tenth address of each service range, and a Deployment ``coredns`` whose pods
are like any other; what runs in them is ``svcnat --lab NAME dns``. How names are answered is :mod:`svcnat.dns`'
subject, how programs are run :mod:`svcnat.lab.crews`'. Without the libraries of the extra "dns" a lab has none.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from svcnat.lab import names, process
from svcnat.lab.topology import DNS_HOST, Topology
from svcnat.model.manifests import Manifest, load
from svcnat.model.objects import Deployment, Service

SERVICE = "kube-dns"
IMAGE = "svcnat/dns"
"""What stands in manifests for ``svcnat dns``."""
PORT = 53

_DEPLOYMENT = "coredns"
_LABELS = {"k8s-app": "kube-dns"}
_LIBRARIES = ("dns", "asyncinotify")


def is_possible() -> bool:
    """True if the libraries that it needs are installed."""
    return all(importlib.util.find_spec(each) for each in _LIBRARIES)


def manifests(topology: Topology, others: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """The objects of a lab's DNS; none if the topology wants none, or `others` bring what it consists of."""
    ours = {(Service, names.SYSTEM, SERVICE), (Deployment, names.SYSTEM, _DEPLOYMENT)}
    theirs = {(type(each.resource), each.resource.metadata.namespace, each.resource.metadata.name) for each in others}
    if not topology.dns or ours & theirs:
        return ()
    documents = {"kind": "List", "apiVersion": "v1", "items": [_service(topology), _deployment()]}
    return load([("the lab's DNS", msgspec.json.encode(documents))]).manifests


def command(lab: str) -> tuple[str, ...]:
    """What a container of :data:`IMAGE` runs; its sockets are handed down, IPv4 first."""
    program = (sys.executable, "-P", "-m", "svcnat", "--lab", lab, "dns")
    return (*program, "--listen", "fd:3", "--listen", "fd:5", "--log-format", "text")


def environment(folder: Path) -> dict[str, str]:
    """What that program needs to find itself, and the lab in `folder`."""
    return {"PYTHONPATH": os.pathsep.join(process.python_path()), "SVCNAT_RUNTIME_DIR": str(folder.parents[1])}


def _service(topology: Topology) -> dict[str, Any]:
    addresses = [str(network[DNS_HOST]) for network in topology.services]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "namespace": names.SYSTEM,
            "labels": {**_LABELS, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "selector": _LABELS,
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                {"name": "dns", "port": PORT, "protocol": "UDP"},
                {"name": "dns-tcp", "port": PORT, "protocol": "TCP"},
            ],
        },
    }


def _deployment() -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": _DEPLOYMENT,
            "namespace": names.SYSTEM,
            "labels": {**_LABELS, "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "strategy": {"rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    # The servers that it asks for other names are the machine's.
                    "dnsPolicy": "Default",
                    # With one pod for all names, nobody wants to wait for five minutes when its node is lost.
                    "tolerations": [
                        {
                            "key": "node.kubernetes.io/unreachable",
                            "operator": "Exists",
                            "effect": "NoExecute",
                            "tolerationSeconds": 0,
                        }
                    ],
                    "containers": [
                        {
                            "name": _DEPLOYMENT,
                            "image": IMAGE,
                            "ports": [
                                {"name": "dns", "containerPort": PORT, "protocol": "UDP"},
                                {"name": "dns-tcp", "containerPort": PORT, "protocol": "TCP"},
                            ],
                        }
                    ],
                },
            },
        },
    }
