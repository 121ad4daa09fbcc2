"""The files of a volume as they lie in its folder: a reader sees the old ones or the new ones, never some of each.

As the kubelet has it: the files are in a folder of their own, ``..data`` leads there, and the names that are seen lead
through it; what is new is written beside, and one rename makes the change. Source: the kubelet's
``pkg/volume/util/atomic_writer.go``. What the files are is :mod:`svcnat.lab.volumes`' subject.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from svcnat.kernel import folders
from svcnat.lab.volumes import Files

_LINK, _NEXT = "..data", "..data.new"


def write(folder: Path, files: Files) -> None:
    """Have exactly these files in a folder, which is made if need be; nothing happens if it has them.

    Raises:
        OSError: they cannot be written: one is to be in the place of another's folder, or the disk is full.

    """
    folder.mkdir(parents=True, exist_ok=True)
    link, following = folder / _LINK, folder / _NEXT
    version = f"..{_digest(files)}"
    before = link.readlink().name if link.is_symlink() else ""
    if before != version:
        _fill(folder / version, files)
        following.unlink(missing_ok=True)
        following.symlink_to(version)
        following.replace(link)
    tops = {path.parts[0] for path in files if path.parts}
    for name in tops:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_LINK}/{name}")
    for each in folder.iterdir():
        if each.name not in (_LINK, version, *tops):
            each.unlink() if each.is_symlink() else folders.remove(each)


def _fill(folder: Path, files: Files) -> None:
    if folder.exists():
        folders.remove(folder)  # somebody was interrupted
    folder.mkdir(mode=0o755)
    for path, file in files.items():
        if path.parts:
            folders.make((folder / path).parent)
            (folder / path).write_bytes(file.data)
            (folder / path).chmod(file.mode)


def _digest(files: Files) -> str:
    found = hashlib.sha256()
    for path, file in sorted(files.items()):
        found.update(f"{path}\0{file.mode}\0{len(file.data)}\0".encode())
        found.update(file.data)
    return found.hexdigest()[:32]
