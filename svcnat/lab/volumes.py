"""The volumes of a pod, as folders of its own: which is seen where in which container.

Only ``emptyDir``, which begins empty, outlives restarts and goes with the pod; others do nothing. Pure: nothing is made
or mounted here. Source: core/v1 Volume and VolumeMount.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from svcnat.lab.containers import dicts
from svcnat.model.objects import Container, Pod


def mounts_of(pod: Pod, container: Container, folder: Path) -> dict[str, Path]:
    """The folder below `folder` that a container sees at each path; outer paths come first."""
    known = {each.get("name") for each in dicts(pod.spec.volumes) if "emptyDir" in each}
    found = {
        str(each.get("mountPath") or ""): folder / each["name"] / _inside(each.get("subPath"))
        for each in dicts(container.volume_mounts)
        if each.get("name") in known
    }
    return {path: found[path] for path in sorted(found) if path.startswith("/")}


def _inside(path: object) -> PurePosixPath:
    """A path below a folder, whatever it says: no step leads up."""
    return PurePosixPath(*(step for step in PurePosixPath(str(path or "")).parts if step not in ("/", "..")))
