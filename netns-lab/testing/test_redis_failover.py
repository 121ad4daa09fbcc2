"""A real client's failover: redis-py, and two real redis-servers behind one service.

The servers are commands that the test starts in the pods; these declare no ports, or stand-ins would have them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

redis = pytest.importorskip("redis", reason="redis-py is not installed")
# Debian's package redis-tools has the program without the service: redis-check-rdb is redis-server by another name.
PROGRAM = shutil.which("redis-server") or shutil.which("redis-check-rdb")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")

PORT = 6379
MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {selector: {app: redis}, ports: [{port: 6379}]}
---
apiVersion: v1
kind: Pod
metadata: {name: redis-a, labels: {app: redis}}
spec: {containers: [{name: redis, image: redis}]}
---
apiVersion: v1
kind: Pod
metadata: {name: redis-b, labels: {app: redis}}
spec: {containers: [{name: redis, image: redis}]}
---
apiVersion: v1
kind: Pod
metadata: {name: app}
spec: {containers: [{name: app, image: app}]}
"""


def start(lab: LabFixture, pod: str, folder: Path) -> None:
    """Run a redis-server in a pod that knows the pod's name."""
    command = ["redis-server", "--port", str(PORT), "--protected-mode", "no", "--save", "", "--dir", str(folder)]
    lab.spawn(pod, [*command, "--logfile", str(folder / f"{pod}.log")], executable=PROGRAM)
    lab.wait(lambda: lab.pod(pod).listens(PORT), what=f"redis-server of {pod} listens")
    lab.pod(pod).call(lambda: redis.Redis(port=PORT).set("name", pod))


def test_a_client_reconnects_to_the_server_that_is_left(svcnat_lab: LabFixture, tmp_path: Path) -> None:
    """It keeps its connection, and with it its server, until that dies; its next command is answered by the other."""
    svcnat_lab.apply(MANIFESTS)
    for pod in ("redis-a", "redis-b"):
        start(svcnat_lab, pod, tmp_path)

    def ask_on_and_on() -> None:
        client = redis.Redis("redis", PORT, socket_timeout=0.5, decode_responses=True, retry=patient())
        with client:
            first = client.get("name")
            assert {client.get("name") for _ in range(50)} == {first}  # one connection, one server
            svcnat_lab.kill(first)
            assert {client.get("name") for _ in range(50)} == {"redis-a", "redis-b"} - {first}

    svcnat_lab.pod("app").call(ask_on_and_on)  # its sockets are the pod's, and so are names


def patient() -> redis.retry.Retry:
    """Ten tries, a tenth of a second apart: what an application that wants failover tells redis-py."""
    return redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 10)
