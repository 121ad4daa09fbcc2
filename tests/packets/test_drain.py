"""Drain and weights by ``svcnat annotate``, as people type it: with an agent, and without one."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat.cli.frame import main
from tests.agents import CONFIG, Agent, runtime
from tests.bed import ADDRESSES, PATIENCE, Bed, temporary_bed
from tests.packets.test_flows import Client

pytestmark = pytest.mark.packets

FRONT = "10.96.0.10"
SERVICE = f"""\
apiVersion: v1
kind: Service
metadata: {{name: web, annotations: {{svcnat.io/scheduler: round-robin}}}}
spec:
  clusterIP: {FRONT}
  selector: {{app: web}}
  ports: [{{name: tcp, port: 80, targetPort: 8080}}, {{name: udp, port: 7, targetPort: 7007, protocol: UDP}}]
"""
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}}}
spec: {{containers: [{{name: c, image: x}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: "True"}}]}}
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        made.listen("TCP", 8080, 4)
        made.listen("UDP", 7007, 4)
        yield made


@pytest.fixture(params=["with an agent", "without one"])
def svcnat(bed: Bed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., int]]:
    """``svcnat`` with a state file that has a Service of two pods, whose rules are on the node."""
    (tmp_path / "web.yml").write_text(
        SERVICE + "".join(POD.format(name=pod, address=ADDRESSES[pod][0]) for pod in ("pod-1", "pod-2"))
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    where = bed.netns("node")
    flags = ("--state", str(tmp_path / "state.db"), "--config", str(tmp_path / "config.yaml"), "--netns", where)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime())
        assert main((*flags, "apply", "-f", str(tmp_path / "web.yml"))) == 0
        if request.param == "with an agent":
            stack.enter_context(Agent(tmp_path, where))
        yield lambda *arguments: main((*flags, *arguments))
    main((*flags, "cleanup"))


def shares(bed: Bed, count: int = 8) -> dict[str, int]:
    """Where so many new connections go."""
    seen = [bed.probe("client", FRONT, 80, patience=PATIENCE) for _ in range(count)]
    assert {each.what for each in seen} == {"reached"}
    return dict(Counter(each.pod for each in seen))


def test_a_drained_pod_gets_nothing_new_and_keeps_what_it_has(bed: Bed, svcnat: Callable[..., int]) -> None:
    """Weight 0 by annotation: no new connection, flows go on; without the annotation all is as before."""
    assert shares(bed) == {"pod-1": 4, "pod-2": 4}
    clients = [Client(bed, "client", FRONT, 7) for _ in range(2)]
    try:
        assert sorted(client.ask() for client in clients) == ["pod-1", "pod-2"]
        assert svcnat("annotate", "pod", "pod-1", "svcnat.io/weight=0") == 0
        assert shares(bed) == {"pod-2": 8}
        assert sorted(client.ask() for client in clients) == ["pod-1", "pod-2"]
        assert svcnat("annotate", "pod", "pod-1", "svcnat.io/weight-") == 0
        assert shares(bed) == {"pod-1": 4, "pod-2": 4}
    finally:
        for client in clients:
            client.close()


def test_weights_are_shares(bed: Bed, svcnat: Callable[..., int]) -> None:
    """Exactly so many of each round; a weight that is refused leaves the shares as they were."""
    assert svcnat("annotate", "pod/pod-2", "svcnat.io/weight=3") == 0
    assert shares(bed) == {"pod-1": 2, "pod-2": 6}
    assert svcnat("annotate", "pod/pod-2", "svcnat.io/weight=1001", "--overwrite") == 1
    assert svcnat("annotate", "pod/pod-2", "svcnat.io/weight=1") == 1  # it has one, and nobody said --overwrite
    assert shares(bed) == {"pod-1": 2, "pod-2": 6}
    assert svcnat("label", "pod/pod-2", "app=other", "--overwrite") == 0
    assert shares(bed) == {"pod-1": 8}
