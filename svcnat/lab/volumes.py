"""The volumes of a pod: what is in each, and what is seen where in which container.

ConfigMaps, Secrets, the downward API and what projects several of them give files that nobody can write to. An
``emptyDir`` is a folder of the pod's own, which begins empty, outlives restarts and goes with the pod; so is a claim,
as there is no storage. Others do nothing. Pure: nothing is made or mounted here. Source: core/v1 Volume, VolumeMount
and their sources; the kubelet's ``pkg/volume``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from svcnat.lab.containers import Missing, Place, dicts, expanded, field_of
from svcnat.lab.supervision import Mount
from svcnat.model.objects import Container, Pod
from svcnat.model.validation.names import dns_label

FAILED = "MountVolume.SetUp failed for volume"
"""What is said of a volume that lacks something begins with this."""

_EMPTY = ("emptyDir", "persistentVolumeClaim", "ephemeral")
_FILES = ("configMap", "secret", "downwardAPI", "projected")
_MODE = 0o644

Contents = Callable[[str, str, str], Mapping[str, bytes] | None]
"""What a ConfigMap or Secret holds, given its kind, namespace and name; None if there is none."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a volume."""

    data: bytes
    mode: int = _MODE


Files = Mapping[PurePosixPath, File]
"""What is in a volume, by path below it."""


def volumes_of(pod: Pod, place: Place, contents: Contents) -> dict[str, Files | None]:
    """The files of each volume, None for one that begins empty; a mount of none that is known is of a claim.

    Raises:
        Missing: a ConfigMap, Secret or key is not there, and not optional.

    """
    found: dict[str, Files | None] = {}
    declared = {str(each.get("name")) for each in dicts(pod.spec.volumes)}
    for volume in dicts(pod.spec.volumes):
        name = str(volume.get("name"))
        if dns_label(name):
            continue
        kind = next((each for each in _FILES if isinstance(volume.get(each), dict)), "")
        if kind:
            source: dict[str, Any] = volume[kind]
            mode = _mode(source.get("defaultMode"), _MODE)
            parts = dicts(source.get("sources")) if kind == "projected" else [{kind: source}]
            try:
                found[name] = {path: file for part in parts for path, file in _files(part, pod, place, contents, mode)}
            except Missing as missing:
                raise Missing(f'{FAILED} "{name}" : {missing}') from missing
        elif any(each in volume for each in _EMPTY):
            found[name] = None
    mounted = {
        str(mount.get("name"))
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for mount in dicts(container.volume_mounts)
    }
    return found | {name: None for name in sorted(mounted - declared) if not dns_label(name)}


def mounts_of(
    container: Container, volumes: Mapping[str, Files | None], folder: Path, variables: Mapping[str, str]
) -> dict[str, Mount]:
    """What a container sees at each path, of volumes that lie below `folder`; outer paths come first.

    Raises:
        Missing: it wants to see a part of a volume that is not in there.

    """
    found: dict[str, Mount] = {}
    for each in dicts(container.volume_mounts):
        name, target = str(each.get("name")), str(each.get("mountPath") or "")
        if name not in volumes or not target.startswith("/"):
            continue
        files = volumes[name]
        asked = expanded(str(each.get("subPathExpr") or ""), variables) or each.get("subPath")
        part = _inside(asked)
        if files is not None and part.parts and not any(path.is_relative_to(part) for path in files):
            raise Missing(f'failed to prepare subPath for volumeMount "{name}" of container "{container.name}"')
        found[target] = Mount(str(folder / name / part), bool(each.get("readOnly")) or files is not None)
    return {path: found[path] for path in sorted(found)}


def _files(
    source: dict[str, Any], pod: Pod, place: Place, contents: Contents, mode: int
) -> Iterator[tuple[PurePosixPath, File]]:
    """The files of one source of a volume."""
    for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if isinstance(reference := source.get(field), dict):
            yield from _entries(kind, reference, pod.metadata.namespace, contents, mode)
    if isinstance(told := source.get("downwardAPI"), dict):
        for item in dicts(told.get("items")):
            if isinstance(reference := item.get("fieldRef"), dict):
                text = _told(str(reference.get("fieldPath") or ""), pod, place)
                yield _inside(item.get("path")), File(text.encode(), _mode(item.get("mode"), mode))


def _entries(
    kind: str, reference: dict[str, Any], namespace: str, contents: Contents, mode: int
) -> Iterator[tuple[PurePosixPath, File]]:
    """What a ConfigMap or Secret gives: the `items` of it that are asked for, or everything."""
    name = str(reference.get("secretName") or reference.get("name") or "")
    found = contents(kind, namespace, name)
    optional = bool(reference.get("optional"))
    if found is None:
        if not optional:
            raise Missing(f'{kind.lower()} "{name}" not found')
        return
    if not reference.get("items"):
        yield from ((_inside(key), File(data, mode)) for key, data in found.items())
    for item in dicts(reference.get("items")):
        key = str(item.get("key"))
        if key in found:
            yield _inside(item.get("path")), File(found[key], _mode(item.get("mode"), mode))
        elif not optional:
            what = "config" if kind == "ConfigMap" else "secret"
            raise Missing(f"{'configmap ' * (kind == 'ConfigMap')}references non-existent {what} key: {key}")


def _told(path: str, pod: Pod, place: Place) -> str:
    """What the downward API writes into a file: of labels and annotations, all of them if none is named."""
    texts = {"metadata.labels": pod.metadata.labels, "metadata.annotations": pod.metadata.annotations}.get(path)
    if texts is None:
        return field_of(path, pod, place)
    return "\n".join(f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in sorted(texts.items()))


def _mode(given: object, default: int) -> int:
    return given & 0o777 if isinstance(given, int) and not isinstance(given, bool) else default


def _inside(path: object) -> PurePosixPath:
    """A path below a folder, whatever it says: no step leads up, or to what the folder keeps for itself."""
    steps = PurePosixPath(str(path or "")).parts
    return PurePosixPath(*(step for step in steps if step != "/" and not step.startswith("..")))
