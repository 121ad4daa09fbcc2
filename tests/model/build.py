"""Manifests as short texts, and what loading them says."""

from __future__ import annotations

import textwrap

from svcnat.errors import ManifestError
from svcnat.model.manifests import Loaded, Manifest, load
from svcnat.model.objects import Resource

COURSE = """\
apiVersion: v1
kind: Service
metadata:
  name: back-end
spec:
  type: ClusterIP
  ports:
    - targetPort: 80
      port: 80
  selector:
    app: myapp
    type: back-end
"""

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx
        ports:
        - name: http
          containerPort: 80
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: back-end-1
  labels: {kubernetes.io/service-name: back-end}
addressType: IPv4
ports:
- port: 80
endpoints:
- addresses: [10.0.0.1]
"""
ENDPOINTS = """\
apiVersion: v1
kind: Endpoints
metadata: {name: back-end}
subsets:
- addresses: [{ip: 10.0.0.1}]
  ports: [{port: 80}]
"""
NODE = """\
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.1.0/24}
status: {addresses: [{type: InternalIP, address: 172.30.0.1}, {type: Hostname, address: n1}]}
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"

GOOD = (COURSE, POD, DEPLOYMENT, SLICE, ENDPOINTS, NODE, NAMESPACE)


def dedent(text: str) -> str:
    """The text of an indented literal."""
    return textwrap.dedent(text).lstrip("\n")


def loaded(text: str | bytes, *, strict: bool = False) -> Loaded:
    """What a single file called m.yml holds."""
    return load([("m.yml", text if isinstance(text, bytes) else text.encode())], strict=strict)


def one(text: str) -> Manifest:
    """The only object of a text."""
    (manifest,) = loaded(text).manifests
    return manifest


def resource(text: str) -> Resource:
    """The only object of a text, typed."""
    return one(text).resource


def errors(text: str | bytes, *, strict: bool = False) -> list[str]:
    """Every finding as ``LINE: FIELD: REASON``; none when the text is sound."""
    try:
        loaded(text, strict=strict)
    except ManifestError as error:
        return [f"{each.line}: {each.field}: {each.reason}" for each in error.findings]
    return []


def service(spec: str, metadata: str = "{name: back-end}") -> str:
    """A Service with one line of metadata and a spec in flow style, on lines 3 and 4."""
    return f"apiVersion: v1\nkind: Service\nmetadata: {metadata}\nspec: {spec}\n"
