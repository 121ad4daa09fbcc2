"""What a Pod's volumes must keep, and where its containers mount them, in the fields that svcnat uses.

Manifests are kept as they were written here, so that anything may stand in these fields. Source: core/v1
ValidateVolumes and ValidateVolumeMounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from svcnat.model.objects import Container, PodSpec
from svcnat.model.validation.names import check, dns_label
from svcnat.model.validation.problems import Problem, duplicate, invalid, not_found, required

_MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"
_MOST = 0o777


def check_volumes(spec: PodSpec, path: str, *, claims: bool) -> list[Problem]:
    """Return the problems of a Pod's volumes and their mounts; with `claims`, mounts may be of a StatefulSet's."""
    problems: list[Problem] = []
    known: set[str] = set()
    for index, volume in _items(spec.volumes):
        at, name = f"{path}.volumes[{index}]", _text(volume.get("name"))
        problems += check(f"{at}.name", name, dns_label) if name else [required(f"{at}.name")]
        problems += [duplicate(f"{at}.name", name)] if name in known else []
        known.update([name] if name else [])
        for field in ("configMap", "secret", "downwardAPI", "projected"):
            if isinstance(source := volume.get(field), dict):
                problems += _check_source(field, source, f"{at}.{field}")
    for group, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            problems += _check_mounts(container, f"{path}.{group}[{index}]", None if claims else known)
    return problems


def _check_mounts(container: Container, path: str, known: set[str] | None) -> Iterator[Problem]:
    places: set[str] = set()
    for index, mount in _items(container.volume_mounts):
        at, name, place = f"{path}.volumeMounts[{index}]", _text(mount.get("name")), _text(mount.get("mountPath"))
        if not name:
            yield required(f"{at}.name")
        elif known is not None and name not in known:
            yield not_found(f"{at}.name", name)
        if not place:
            yield required(f"{at}.mountPath")
        elif place in places:
            yield invalid(f"{at}.mountPath", place, "must be unique")
        places.add(place)
        if part := _text(mount.get("subPath")):
            yield from _check_path(f"{at}.subPath", part)


def _check_source(field: str, source: dict[str, Any], path: str) -> Iterator[Problem]:
    """Yield the problems of what gives a volume its files."""
    yield from _check_mode(f"{path}.defaultMode", source.get("defaultMode"))
    if field == "projected":
        for index, part in _items(source.get("sources")):
            for inner in ("configMap", "secret", "downwardAPI"):
                if isinstance(found := part.get(inner), dict):
                    yield from _check_items(inner, found, f"{path}.sources[{index}].{inner}", name="name")
    else:
        yield from _check_items(field, source, path, name="secretName" if field == "secret" else "name")


def _check_items(field: str, source: dict[str, Any], path: str, *, name: str) -> Iterator[Problem]:
    told = field == "downwardAPI"
    if not told and not _text(source.get(name)):
        yield required(f"{path}.{name}")
    for index, item in _items(source.get("items")):
        at, place = f"{path}.items[{index}]", _text(item.get("path"))
        if not told and not _text(item.get("key")):
            yield required(f"{at}.key")
        if not place:
            yield required(f"{at}.path")
        elif place.startswith(".."):
            yield invalid(f"{at}.path", place, "must not start with '..'")
        else:
            yield from _check_path(f"{at}.path", place)
        yield from _check_mode(f"{at}.mode", item.get("mode"))


def _check_path(field: str, path: str) -> Iterator[Problem]:
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def _check_mode(field: str, mode: object) -> list[Problem]:
    if mode is None or (isinstance(mode, int) and not isinstance(mode, bool) and 0 <= mode <= _MOST):
        return []
    return [invalid(field, mode, _MODE_TEXT)]


def _items(found: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a list that may be none."""
    for index, each in enumerate(found if isinstance(found, list) else []):
        if isinstance(each, dict):
            yield index, each


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""
