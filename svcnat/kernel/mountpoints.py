"""Places to mount on that the machine does not have: made in the calling thread's own mounts, never on its disks.

A folder that lacks one is covered by another in memory, in which all that was there is seen as it was; what a program
adds to it is seen by those alone that have these mounts. Whoever calls has mounts of its own, which nothing follows
(:mod:`svcnat.kernel.surroundings`). Source: mount(2), mount_namespaces(7), switch_root(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from svcnat.kernel import folders, syscalls

_STAGES = ("/mnt", "/media", "/srv", "/opt", "/home", "/boot")
"""Folders of which one is covered while another root is made."""


class Mountpoints:
    """Those that one view of the machine needs; making one changes the current folder."""

    def __init__(self) -> None:
        self._ours: set[int] = set()  # the devices of folders in memory
        self._shown: dict[Path, bool] = {}  # what has been mounted, and whether it may get more folders

    def note(self, place: Path, *, may_grow: bool) -> None:
        """Say that something is mounted at a place, in which mount points may simply be made if it `may_grow`."""
        self._shown[place] = may_grow

    def at(self, target: Path, *, folder: bool) -> Path:
        """Have a folder, or a file, at `target`; its path without symbolic links is the answer.

        Raises:
            OSError: what is there is of the other sort, or the root, or the kernel refused.

        """
        place = Path(os.path.realpath(target))  # resolve() gives up on loops
        if place == place.parent:
            # A process goes on with the root that it has: the mount would be there, and nobody would see it.
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if not place.exists():
            above = next(each for each in place.parents if each.exists())
            if above.stat().st_dev not in self._ours and not self._may_grow(above):
                self._cover(above)
            folders.make(place if folder else place.parent)
            if not folder:
                place.touch()
        return place

    def _may_grow(self, folder: Path) -> bool:
        within = [each for each in self._shown if folder.is_relative_to(each)]
        return bool(within) and self._shown[max(within, key=lambda each: len(each.parts))]

    def _cover(self, folder: Path) -> None:
        os.chdir(folder)
        if folder == folder.parent:
            self._cover_root()
            return
        # Seen from within, the folder stays what it was.
        self._mount_memory(folder, stat.S_IMODE(Path().stat().st_mode))
        for each in Path().iterdir():
            _show(each, folder / each)

    def _cover_root(self) -> None:
        """Have another root: nothing can be mounted over the one that a process has."""
        stage = next(Path(each) for each in _STAGES if Path(each).is_dir() and not Path(each).is_symlink())
        others = [each for each in Path("/").iterdir() if each != stage]
        os.chdir(stage)
        self._mount_memory(stage, 0o755)
        for each in others:
            _show(each, stage / each.name)
        (stage / stage.name).mkdir()
        syscalls.mount(".", stage / stage.name, "none", syscalls.BIND | syscalls.RECURSIVE)
        syscalls.detach(stage / stage.name)  # the new root itself, which came along as it covers that folder
        os.chdir(stage)
        syscalls.mount(".", Path("/"), "none", syscalls.MOVE)
        os.chroot(".")

    def _mount_memory(self, folder: Path, mode: int) -> None:
        syscalls.mount("tmpfs", folder, "tmpfs", syscalls.NOSUID | syscalls.NODEV, f"mode={mode:o}")
        self._ours.add(folder.stat().st_dev)


def _show(source: Path, target: Path) -> None:
    """Show a file or a folder, with all that is mounted below, at a place that is made for it."""
    try:
        kind = source.lstat().st_mode
    except FileNotFoundError:
        return  # gone meanwhile
    if stat.S_ISLNK(kind):
        target.symlink_to(source.readlink())
        return
    if stat.S_ISDIR(kind):
        target.mkdir()
    else:
        target.touch()
    with contextlib.suppress(FileNotFoundError):
        syscalls.mount(str(source), target, "none", syscalls.BIND | syscalls.RECURSIVE)
