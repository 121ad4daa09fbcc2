"""Folders that programs nest, however deep they are and however long their paths get.

pathlib and shutil call themselves for each folder within another, and hold a descriptor open for each: a thousand are
more than they can do. What is in a folder is for others to decide.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def make(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, if they are not there; `mode` is the last one's, as far as the umask allows.

    Raises:
        OSError: the kernel refused, as where a file is in the way.

    """
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for each in reversed(missing[1:]):
        each.mkdir(exist_ok=True)
    folder.mkdir(mode, exist_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, and nothing that it leads to; nothing happens if it is not there.

    Raises:
        OSError: the kernel refused.

    """
    token, count = secrets.token_hex(8), 0
    while inner := _empty(folder):
        for each in inner:
            # What is below comes up beside it, so that no path ever gets longer.
            for below in _empty(each):
                count += 1
                with suppress(FileNotFoundError):
                    below.rename(folder / f"{token}.{count}")
            with suppress(FileNotFoundError):
                each.rmdir()
    with suppress(FileNotFoundError):
        folder.rmdir()


def _empty(folder: Path) -> list[Path]:
    """Remove the files of a folder; the answer is the folders in it."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in tuple(entries):
            if entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
            else:
                with suppress(FileNotFoundError):
                    Path(entry.path).unlink()
    return found
