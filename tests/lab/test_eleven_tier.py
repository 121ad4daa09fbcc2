"""An application as public demos have it, built from its manifests alone: netns-lab/eleven-tier, and its README."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat import api
from svcnat.cli.frame import main
from svcnat.model.objects import EndpointSlice, Pod, Service
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.cli.conftest import Result, svcnat
from tests.lab.conftest import runtime, unused_name

__all__ = ["runtime", "svcnat"]  # fixtures

pytestmark = pytest.mark.packets

FOLDER = Path(__file__).parents[2] / "netns-lab" / "eleven-tier"
TIERS = {
    *("adverts", "basket", "basket-store", "catalogue", "checkout", "currency", "mailer", "payment"),
    *("recommendations", "shipping", "storefront"),
}

ASK = """
import os, socket, sys
for place in sys.argv[1:]:
    name, _, port = place.rpartition(":")
    for family, kind, *_, address in socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as asked:
            asked.settimeout(60)
            asked.connect(address)
            asked.sendall(b"hello\\n")
            print(place, asked.makefile().readline().split()[0])
"""

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def lab(runtime: Path) -> Iterator[api.Lab]:
    """The shop, which is up when its probes, gRPC and other, have succeeded and its init container has ended."""
    made = api.Lab.up(unused_name(), FOLDER)
    yield made
    made.down()


def pods(lab: api.Lab) -> dict[str, Pod]:
    with lab.read() as snapshot:
        return {pod.metadata.name: pod for pod in snapshot.list(Pod, "default")}


def ask(lab: api.Lab, pod: str, places: list[str]) -> list[list[str]]:
    """Resolve names in a pod as a program there does, and connect: each with the pod that answered."""
    # Not the one of a virtual environment, which may be below /tmp: some pods have a volume there.
    words = [str(Path(sys.executable).resolve()), "-c", ASK, *places]
    done = lab.exec(pod, words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")
    assert done.returncode == 0, (pod, done.stderr)
    return [line.split() for line in done.stdout.splitlines()]


def test_it_is_ready_when_it_is_up(lab: api.Lab) -> None:
    """Every pod of every tier, on both nodes."""
    found = pods(lab)
    assert {pod.metadata.labels["app"] for pod in found.values()} == TIERS | {"visitors"}
    assert [name for name, pod in found.items() if not is_ready(pod)] == []
    assert {pod.spec.node_name for pod in found.values()} == {"node-1", "node-2"}


def test_every_service_name_resolves_and_answers_from_every_pod(lab: api.Lab) -> None:
    """By the names that the manifests use, with the ports of the Services; one of the pods behind it answers."""
    behind: dict[str, set[str]] = {}
    with lab.read() as snapshot:
        services = [each for each in snapshot.list(Service, "default") if each.spec.selector]
        for piece in snapshot.list(EndpointSlice, "default"):
            names = {each.target_ref.name for each in piece.endpoints if each.target_ref}
            behind.setdefault(piece.metadata.labels["kubernetes.io/service-name"], set()).update(names)
    assert {each.metadata.name for each in services} == TIERS | {"storefront-external"}
    places = [f"{each.metadata.name}:{each.spec.ports[0].port}" for each in services]
    for pod in pods(lab):
        answers = ask(lab, pod, places)
        assert {place for place, _ in answers} == set(places), pod
        assert all(who in behind[place.partition(":")[0]] for place, who in answers), (pod, answers)


def test_every_tier_finds_the_others_by_its_environment(lab: api.Lab) -> None:
    """The addresses in a container's environment, as its manifest has them; full names and other spellings, too."""
    for name, pod in pods(lab).items():
        variables = [each for container in pod.spec.containers for each in container.env]
        places = [str(each.value) for each in variables if each.name.endswith("_ADDR")]
        if places:
            assert {place for place, _ in ask(lab, name, places)} == set(places)
    names = ["currency", "currency.default", "currency.default.svc", "currency.default.svc.cluster.local."]
    answers = ask(lab, next(iter(pods(lab))), [f"{each}:7000" for each in names])
    assert {who.rpartition("-")[0].rpartition("-")[0] for _, who in answers} == {"currency"}


def test_get_all(lab: api.Lab, svcnat: Run) -> None:
    """As kubectl prints it: a table for each kind, in its order, with the kind and its group before each name."""
    said = svcnat("--lab", lab.built.name, "get", "all")
    assert (said.code, said.err) == (0, "")
    tables = [table.splitlines() for table in said.out.split("\n\n")]
    assert [re.split(r"\s{2,}", table[0].rstrip()) for table in tables] == [
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"],
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        ["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
    ]
    for table, prefix, count in zip(
        tables, ("pod", "service", "deployment.apps", "replicaset.apps"), (13, 13, 12, 12), strict=True
    ):
        names = [line.split()[0] for line in table[1:]]
        assert len(names) == count
        assert all(re.fullmatch(rf"{re.escape(prefix)}/[a-z0-9-]+", name) for name in names), names


def test_one_pod_of_many(lab: api.Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """``exec`` and ``logs`` take whatever has pods and choose one; what has none is told."""
    name = lab.built.name

    def said(*words: str) -> tuple[int, str, str]:
        code = main([*words])
        return (code, *capfd.readouterr())

    code, out, err = said("exec", "svc/storefront", "--", "hostname")
    assert (code, err) == (0, f"Found 2 pods, using pod/{out}")
    assert out.strip() in pods(lab)
    assert said("--lab", name, "lab", "exec", "deployment/payment", "--", "hostname")[1].startswith("payment-")
    assert said("exec", "rs/nope", "--", "true")[::2] == (1, 'error: replicasets.apps "nope" not found\n')
    assert said("exec", "cm/shop-settings", "--", "true")[::2] == (2, "error: configmaps have no pods\n")
    assert said("exec", "svc/kubernetes", "--", "true")[::2] == (1, "error: service/kubernetes has no pods that run\n")
    until(lambda: said("logs", "deploy/visitors", "--tail", "1")[1].startswith("storefront-"), "the load generator")


def test_visitors_never_notice(lab: api.Lab, svcnat: Run) -> None:
    """What the README says: all pods of a tier are replaced while the load generator asks, and it is told nothing."""
    name = lab.built.name

    def heard() -> list[str]:
        return [line.split()[0] for line in svcnat("--lab", name, "logs", "deployment/visitors").out.splitlines()]

    before = {each for each in pods(lab) if each.startswith("storefront-")}
    until(lambda: set(heard()) >= before, "an answer of each pod")
    assert svcnat("--lab", name, "rollout", "restart", "deployment/storefront").code == 0
    assert svcnat("--lab", name, "rollout", "status", "deployment/storefront", "--timeout", "60s").code == 0
    lab.wait()
    after = {each for each in pods(lab) if each.startswith("storefront-")} - before
    until(lambda: set(heard()) >= after, "an answer of each new pod")
    assert set(heard()) <= before | after
