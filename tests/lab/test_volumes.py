"""What is in volumes, where containers see it, and what becomes of it when a ConfigMap or Secret changes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.lab import kubelet, payloads
from svcnat.lab.containers import Missing
from svcnat.lab.supervision import Mount
from svcnat.lab.volumes import File, mounts_of, volumes_of
from svcnat.model.objects import ConfigMap, Container, Pod, Secret
from tests.agents import until
from tests.lab.conftest import BuildLab
from tests.lab.pods import create, stored
from tests.lab.test_containers import PLACE, a_pod
from tests.lab.test_given import drop, meta, put, waits
from tests.lab.test_supervisor import log, program

HELD = {
    ("ConfigMap", "default", "settings"): {"a.conf": b"one", "b.conf": b"two"},
    ("Secret", "default", "keys"): {"token": b"hunter2\xff"},
}
FOLDER = Path("/v")


def contents(kind: str, namespace: str, name: str) -> Mapping[str, bytes] | None:
    return HELD.get((kind, namespace, name))


def held(*volumes: dict[str, Any]) -> dict[str, dict[str, tuple[bytes, int]] | None]:
    """What is in the volumes of a pod, by name and path."""
    found = volumes_of(a_pod(volumes=list(volumes)), PLACE, contents)
    return {
        name: files if files is None else {str(path): (file.data, file.mode) for path, file in files.items()}
        for name, files in found.items()
    }


def test_all_of_it_or_some() -> None:
    """Every key is a file, or those that are asked for, under other names and with modes of their own."""
    assert held({"name": "v", "configMap": {"name": "settings"}}) == {
        "v": {"a.conf": (b"one", 0o644), "b.conf": (b"two", 0o644)}
    }
    items = [{"key": "a.conf", "path": "deep/er/x", "mode": 0o600}, {"key": "b.conf", "path": "../../etc/..passwd"}]
    assert held({"name": "v", "configMap": {"name": "settings", "items": items, "defaultMode": 0o440}}) == {
        "v": {"deep/er/x": (b"one", 0o600), "etc": (b"two", 0o440)}
    }
    assert held({"name": "v", "secret": {"secretName": "keys", "defaultMode": 0o400}}) == {
        "v": {"token": (b"hunter2\xff", 0o400)}
    }


def test_what_a_pod_is_told_of_itself() -> None:
    """Labels one a line, single fields, and several sources in one volume."""
    sources = [
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o600}]}},
        {"secret": {"name": "keys", "items": [{"key": "token", "path": "t"}]}},
        {"configMap": {"name": "none", "optional": True}},
        {"serviceAccountToken": {"path": "token"}},
    ]
    assert held({"name": "v", "projected": {"sources": sources}}) == {
        "v": {"labels": (b'app="web"', 0o644), "name": (b"web-0", 0o600), "t": (b"hunter2\xff", 0o644)}
    }


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            {"configMap": {"name": "settings", "items": [{"key": "x", "path": "x"}]}},
            "configmap references non-existent config key: x",
        ),
        (
            {"secret": {"secretName": "keys", "items": [{"key": "x", "path": "x"}]}},
            "references non-existent secret key: x",
        ),
    ],
)
def test_what_is_missing(volume: dict[str, Any], message: str) -> None:
    """The kubelet's words; optional, it is nothing."""
    with pytest.raises(Missing) as caught:
        held({"name": "v", **volume})
    assert str(caught.value) == f'MountVolume.SetUp failed for volume "v" : {message}'
    for source in volume.values():
        source["optional"] = True
    assert held({"name": "v", **volume}) == {"v": {}}


def test_what_begins_empty() -> None:
    """``emptyDir``, claims, and what a StatefulSet's pod mounts of its claims; other volumes are none."""
    mounted = Container(name="main", volume_mounts=[{"name": "data"}, {"name": "host"}, {"name": "../../etc"}])
    pod = a_pod(
        containers=[mounted],
        volumes=[
            {"name": "e", "emptyDir": {"medium": "Memory"}},
            {"name": "p", "persistentVolumeClaim": {"claimName": "x"}},
            {"name": "host", "hostPath": {"path": "/"}},
            {"name": "../../etc", "emptyDir": {}},
            {"name": 7, "emptyDir": None},
            "nonsense",
        ],
    )
    assert volumes_of(pod, PLACE, contents) == {"e": None, "p": None, "7": None, "data": None}


def test_where_they_are_seen() -> None:
    """Outer paths come first; a part of a volume leads nowhere else; files are read-only, folders if so asked."""
    volumes = {"e": None, "f": {PurePosixPath("d/x"): File(b"")}}
    mounts: list[dict[str, Any]] = [
        {"name": "e", "mountPath": "/mnt/b", "subPath": "x/../../y"},
        {"name": "e", "mountPath": "/mnt", "readOnly": True},
        {"name": "f", "mountPath": "/opt"},
        {"name": "f", "mountPath": "/etc/x", "subPath": "d/x"},
        {"name": "e", "mountPath": "/e", "subPathExpr": "$(NAME)/$(NONE)"},
        {"name": "no", "mountPath": "/no"},
        {"name": "e", "mountPath": "relative"},
        {"name": "e"},
    ]
    found = mounts_of(Container(volume_mounts=mounts), volumes, FOLDER, {"NAME": "web"})
    assert list(found.items()) == [
        ("/e", Mount("/v/e/web/$(NONE)")),
        ("/etc/x", Mount("/v/f/d/x", read_only=True)),
        ("/mnt", Mount("/v/e", read_only=True)),
        ("/mnt/b", Mount("/v/e/x/y")),
        ("/opt", Mount("/v/f", read_only=True)),
    ]
    assert mounts_of(Container(), volumes, FOLDER, {}) == {}
    with pytest.raises(Missing, match='failed to prepare subPath for volumeMount "f" of container "main"'):
        mounts_of(
            Container(name="main", volume_mounts=[{"name": "f", "mountPath": "/x", "subPath": "none"}]),
            volumes,
            FOLDER,
            {},
        )


names = st.sampled_from(["a", "b", "c/x", "c/y", "d/e/f"])
files = st.dictionaries(
    names.map(PurePosixPath), st.builds(File, st.binary(max_size=4), st.sampled_from([0o644, 0o400])), max_size=4
)


@settings(derandomize=True, max_examples=60, database=None)
@given(st.lists(files, min_size=1, max_size=4))
def test_a_folder_has_what_was_written_last(tmp_path_factory: pytest.TempPathFactory, versions: list[Any]) -> None:
    """Whatever was there before, and nothing else; what did not change is the same file."""
    folder = tmp_path_factory.mktemp("v") / "volume"
    for each in versions:
        payloads.write(folder, each)
    link = (folder / "..data").readlink()
    payloads.write(folder, versions[-1])
    assert (folder / "..data").readlink() == link
    found = {
        PurePosixPath(path.relative_to(folder)): File(path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for top in folder.iterdir()
        if not top.name.startswith("..")
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file()
    }
    assert found == versions[-1]
    assert sorted(each.name for each in folder.iterdir() if each.name.startswith("..")) == sorted(["..data", link.name])


def a_program(name: str, script: str, volumes: list[Any], mounts: list[Any], **spec: Any) -> Pod:
    return program(name, script, container={"volume_mounts": mounts}, volumes=volumes, **spec)


@pytest.mark.packets
def test_files_in_a_container(build_lab: BuildLab, tmp_path: Path) -> None:
    """At places that the machine does not have, read-only, with their modes; a change is seen without a restart.

    Not where a single file is shown. The machine has nothing of it.
    """
    lab = build_lab()
    put(lab, ConfigMap(metadata=meta("settings"), data={"a": "old", "b": "B"}))
    put(lab, Secret(metadata=meta("keys"), string_data={"token": "hunter2"}))
    root = f"/{tmp_path.name}-{os.getpid()}"
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "data", "emptyDir": {}},
    ]
    mounts = [
        {"name": "config", "mountPath": f"{root}/config"},
        {"name": "keys", "mountPath": f"{root}/keys", "readOnly": True},
        {"name": "config", "mountPath": f"/etc{root}.conf", "subPath": "a"},
        {"name": "data", "mountPath": f"{root}/data"},
    ]
    script = f"""
        cd {root}; echo "$(cat config/a config/b keys/token /etc{root}.conf) $(stat -Lc %a config/a keys/token)"
        touch data/here; touch config/x 2>/dev/null || echo read-only
        until [ ! -L config/b ]; do sleep 0.02; done; cat config/a /etc{root}.conf; ls config; exec sleep 1000
    """
    create(lab, a_program("one", script, volumes, mounts))
    kubelet.start(lab)
    until(lambda: log(lab, "one").endswith("read-only\n"), "its first words")
    assert log(lab, "one") == "oldBhunter2old 644\n400\nread-only\n"
    put(lab, ConfigMap(metadata=meta("settings"), data={"a": "new", "c": "C"}))
    assert not kubelet.is_settled(lab)
    kubelet.start(lab)
    until(lambda: log(lab, "one").endswith("c\n"), "its second words")
    assert log(lab, "one").removeprefix("oldBhunter2old 644\n400\nread-only\n") == "newolda\nc\n"
    told = lab.exec("one", ["sh", "-c", f"ls {root}/data; cat /etc{root}.conf"], stdout=subprocess.PIPE, text=True)
    assert told.stdout == "here\nnew"
    assert not Path(root).exists()
    assert not Path(f"/etc{root}.conf").exists()
    drop(lab, ConfigMap, "settings")
    kubelet.start(lab)
    assert lab.exec("one", ["cat", f"{root}/config/a"], stdout=subprocess.PIPE).stdout == b"new"
    reachable = [each for each in lab.folder.rglob("*") if each.is_file() and "hunter2" in each.read_text("latin-1")]
    assert {each.name for each in reachable} >= {"token"}
    assert (lab.folder / "pods").is_dir()
    assert all(each.stat().st_mode & 0o077 == 0 for each in (lab.folder, *(lab.folder / "pods").iterdir()))


@pytest.mark.packets
def test_a_volume_that_lacks_something_is_waited_for(build_lab: BuildLab) -> None:
    """No container of the pod starts before it is there; the words are the kubelet's."""
    lab = build_lab()
    volumes = [{"name": "config", "configMap": {"name": "settings"}}]
    mounts = [{"name": "config", "mountPath": "/mnt/settings", "subPath": "a"}]
    create(lab, a_program("one", "cat /mnt; exec sleep 1000", volumes, []))
    create(
        lab,
        a_program("two", "cat /mnt/settings; exec sleep 1000", volumes, mounts),
    )
    message = 'ContainerCreating: MountVolume.SetUp failed for volume "config" : configmap "settings" not found'
    assert (waits(lab, "one"), waits(lab, "two")) == (message, message)
    put(lab, ConfigMap(metadata=meta("settings"), data={"b": "1"}))
    assert waits(lab, "one") == ""
    assert waits(lab, "two") == (
        'CreateContainerConfigError: failed to prepare subPath for volumeMount "config" of container "main"'
    )
    put(lab, ConfigMap(metadata=meta("settings"), data={"a": "here"}))
    assert waits(lab, "two") == ""
    until(lambda: log(lab, "two") == "here", "its word")
    assert stored(lab, "two").status.phase == "Running"


@pytest.mark.packets
def test_volumes_that_cannot_be(build_lab: BuildLab) -> None:
    """Told of the pod that asks for it alone: one file in the place of another's folder, a place that is a file.

    So are a name that no file can have, and the root folder; a thousand folders one within another are no trouble.
    """
    lab = build_lab()
    put(lab, ConfigMap(metadata=meta("settings"), data={"a": "1", "b": "2"}))
    items = [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]
    clash = [{"name": "config", "configMap": {"name": "settings", "items": items}}]
    empty, over = [{"name": "e", "emptyDir": {}}], [{"name": "e", "mountPath": "/etc/passwd"}]
    create(
        lab,
        a_program("one", "exec sleep 1000", clash, []),
        a_program("two", "exec sleep 1000", empty, over),
        a_program("three", "exec sleep 1000", [], []),
        a_program("four", "exec sleep 1000", empty, [{"name": "e", "mountPath": "/x", "subPath": "y" * 300}]),
        a_program("five", "exec sleep 1000", empty, [{"name": "e", "mountPath": "/"}]),
        a_program("six", "exec sleep 1000", empty, [{"name": "e", "mountPath": "/z" * 1200}]),
    )
    assert waits(lab, "one").startswith('ContainerCreating: MountVolume.SetUp failed for volume "config" : ')
    until(lambda: waits(lab, "two").startswith("CrashLoopBackOff"), "its back-off")
    ended = stored(lab, "two").status.container_statuses[0].last_state.terminated
    assert ended is not None
    assert (ended.reason, ended.message) == ("StartError", "cannot mount on /etc/passwd: Not a directory")
    ended = stored(lab, "five").status.container_statuses[0].last_state.terminated
    assert ended is not None
    assert ended.message == "cannot mount on /: Device or resource busy"
    assert waits(lab, "four") == (
        'CreateContainerConfigError: failed to prepare subPath for container "main" : File name too long'
    )
    assert waits(lab, "three") == waits(lab, "six") == ""
