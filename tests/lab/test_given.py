"""What containers take from ConfigMaps and Secrets, when it comes, changes and goes; and that Secrets stay secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from svcnat.lab import kubelet, labs, logs, topology
from svcnat.lab.labs import Lab
from svcnat.lab.topology import Declaration
from svcnat.model.objects import ConfigMap, Container, EnvVar, Event, ObjectMeta, Pod, PodSpec, Resource, Secret
from tests.agents import until
from tests.lab.conftest import BuildLab
from tests.lab.pods import create, pod, stored
from tests.lab.test_supervisor import container, log

pytestmark = pytest.mark.packets

HUSH = "hunter2"
LAST = 'echo "$HOSTNAME $A $B $C"; exec sleep 1000'


def meta(name: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace="default")


def put(lab: Lab, *found: Resource) -> None:
    with lab.store.transaction() as transaction:
        for each in found:
            transaction.create(each) if transaction.get(
                type(each), "default", each.metadata.name
            ) is None else transaction.replace(each)


def drop(lab: Lab, kind: type[Resource], name: str) -> None:
    with lab.store.transaction() as transaction:
        transaction.delete(kind, "default", name)


def taking(name: str, script: str = LAST, *, env_from: Any = None, **references: dict[str, Any]) -> Pod:
    """A pod whose container runs a script, with variables from these references."""
    env = [EnvVar(name=each, value_from=source) for each, source in references.items()]
    made = Container(name="main", image="any", command=["sh", "-c", script], env=env, env_from=env_from)
    return Pod(metadata=meta(name), spec=PodSpec(containers=[made]))


def key_of(kind: str, name: str, key: str, **more: Any) -> dict[str, Any]:
    return {f"{kind}KeyRef": {"name": name, "key": key, **more}}


def waits(lab: Lab, name: str) -> str:
    """Why the container of a pod waits, after a pass."""
    waiting = container(lab, name).state.waiting
    return f"{waiting.reason}: {waiting.message}" if waiting else ""


def test_variables(build_lab: BuildLab) -> None:
    """All of one with a prefix, single keys, optional ones that are not there; `env` wins over `envFrom`."""
    lab = build_lab()
    put(
        lab,
        ConfigMap(metadata=meta("settings"), data={"A": "blue", "B": "all"}),
        Secret(metadata=meta("keys"), string_data={"token": HUSH, "C": "from secret"}),
    )
    create(
        lab,
        taking(
            "one",
            'echo "$A $B $P_token $NONE."; exec sleep 1000',
            env_from=[
                {"configMapRef": {"name": "settings"}},
                {"prefix": "P_", "secretRef": {"name": "keys"}},
                {"configMapRef": {"name": "missing", "optional": True}},
            ],
            B=key_of("secret", "keys", "C"),
            NONE=key_of("configMap", "settings", "none", optional=True),
        ),
    )
    kubelet.start(lab)
    until(lambda: log(lab, "one"), "a word")
    assert log(lab, "one") == f"blue from secret {HUSH} .\n"


def test_what_is_missing_is_waited_for(build_lab: BuildLab) -> None:
    """First the ConfigMap, then its key, then the Secret: each is told of, and the container starts with the last."""
    lab = build_lab()
    create(lab, taking("one", A=key_of("configMap", "settings", "a"), B=key_of("secret", "keys", "b")))
    assert waits(lab, "one") == 'CreateContainerConfigError: configmap "settings" not found'
    assert (stored(lab, "one").status.phase, kubelet.is_settled(lab)) == ("Pending", True)
    put(lab, ConfigMap(metadata=meta("settings"), data={"other": ""}))
    assert not kubelet.is_settled(lab)
    assert waits(lab, "one") == "CreateContainerConfigError: couldn't find key a in ConfigMap default/settings"
    put(lab, ConfigMap(metadata=meta("settings"), data={"a": "1"}))
    assert waits(lab, "one") == 'CreateContainerConfigError: secret "keys" not found'
    put(lab, Secret(metadata=meta("keys"), string_data={"b": "2"}))
    fares = container(lab, "one")
    assert (fares.state.waiting, fares.ready, fares.restart_count) == (None, True, 0)
    assert stored(lab, "one").status.phase == "Running"
    until(lambda: log(lab, "one"), "a word")
    assert log(lab, "one") == "one 1 2 \n"
    assert kubelet.is_settled(lab)


def test_changes_count_from_the_next_start(build_lab: BuildLab, tmp_path: Path) -> None:
    """A container that runs keeps what it has; one that starts again has what there is then, or waits for it."""
    lab = build_lab(topology.plan(Declaration(restart_backoff_seconds=0.1)))
    settings = ConfigMap(metadata=meta("settings"), data={"a": "old"})
    put(lab, settings)
    end = tmp_path / "end"
    script = f"echo $A; while [ ! -e {end} ]; do sleep 0.02; done; rm {end}; exit 1"
    create(lab, taking("one", script, A=key_of("configMap", "settings", "a")))
    kubelet.start(lab)
    until(lambda: log(lab, "one") == "old\n", "a word")
    put(lab, ConfigMap(metadata=meta("settings"), data={"a": "new"}))
    assert (container(lab, "one").restart_count, log(lab, "one")) == (0, "old\n")
    end.touch()
    until(lambda: log(lab, "one") == "new\n", "the second run")
    assert container(lab, "one").restart_count == 1
    drop(lab, ConfigMap, "settings")
    assert waits(lab, "one") == ""
    end.touch()
    until(lambda: waits(lab, "one").startswith("CreateContainerConfigError"), "the trouble")
    assert (stored(lab, "one").status.phase, container(lab, "one").ready) == ("Running", False)
    put(lab, settings)
    kubelet.start(lab)
    until(lambda: log(lab, "one") == "old\n", "the third run")
    assert container(lab, "one").restart_count == 2


def test_what_has_ended_stays_so(build_lab: BuildLab) -> None:
    """A container that is not to be started again is not, whatever comes and goes."""
    lab = build_lab()
    settings = ConfigMap(metadata=meta("settings"), data={"a": "1"})
    put(lab, settings)
    one = taking("one", "echo $A", A=key_of("configMap", "settings", "a"))
    create(lab, Pod(metadata=one.metadata, spec=PodSpec(containers=one.spec.containers, restart_policy="Never")))
    until(lambda: container(lab, "one").state.terminated, "its end")
    drop(lab, ConfigMap, "settings")
    kubelet.start(lab)
    put(lab, settings)
    kubelet.start(lab)
    assert len(logs.runs_of(lab, stored(lab, "one"), "main")) == 1
    assert kubelet.is_settled(lab)


def test_a_stand_in_needs_nothing(build_lab: BuildLab) -> None:
    """It has no variables: what its manifest refers to may be missing."""
    lab = build_lab()
    found = pod("one")
    (main,) = found.spec.containers
    given = Container(name=main.name, image=main.image, ports=main.ports, env_from=[{"secretRef": {"name": "none"}}])
    create(lab, Pod(metadata=found.metadata, spec=PodSpec(containers=[given])))
    assert container(lab, "one").ready


def test_secrets_stay_secret(build_lab: BuildLab) -> None:
    """Neither status, Event nor log tells one; files that hold one are their owner's alone, and go with the lab."""
    before = os.umask(0)
    lab = build_lab()
    put(lab, Secret(metadata=meta("keys"), string_data={"a": HUSH, "cmd": f"/no/such/{HUSH}"}))
    one = taking("one", "exec sleep 1000", A=key_of("secret", "keys", "a"))
    failing = taking("two", "", A=key_of("secret", "keys", "cmd"))
    (main,) = failing.spec.containers
    failing = Pod(
        metadata=failing.metadata,
        spec=PodSpec(containers=[Container(name="main", image="x", command=["env"], args=["$(A)"], env=main.env)]),
    )
    try:
        create(lab, one, failing, taking("three", A=key_of("secret", "keys", "none")))
        kubelet.start(lab)
        until(lambda: log(lab, "two"), "an error of its own")
    finally:
        os.umask(before)
    kubelet.start(lab)
    with lab.store.read() as snapshot:
        told = [*snapshot.list(Pod), *snapshot.list(Event)]
    assert HUSH not in "".join(map(str, told))
    holding = [each for each in lab.folder.rglob("*") if each.is_file() and HUSH.encode() in each.read_bytes()]
    assert {each.name for each in holding} >= {"crew.json"}
    assert not [each for each in holding if each.suffix == ".log" and each.parent == lab.folder]
    assert [each for each in holding if each.stat().st_mode & 0o077] == []
    assert lab.folder.stat().st_mode & 0o077 == 0
    lab.close()
    labs.down(lab.name)
    assert not lab.folder.exists()
