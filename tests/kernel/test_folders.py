"""Folders that are deeper than pathlib and shutil go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from svcnat.kernel import folders


def test_what_a_program_nested_goes(tmp_path: Path) -> None:
    """However deep it is, and though no path is long enough for it; what links lead to stays."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("nested", dir_fd=here)
        below = os.open("nested", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.symlink(kept, "link", dir_fd=here)
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)
    (folder / "link").symlink_to(kept)
    (folder / "a/b").mkdir(parents=True)
    folders.remove(folder)
    assert not folder.exists()
    assert (kept / "file").exists()
    folders.remove(folder)


def test_folders_are_made_one_after_another(tmp_path: Path) -> None:
    """As many as a path has room for; what is there stays, and a file in the way is an error."""
    deep = tmp_path / Path(*["x"] * 1100)
    folders.make(deep)
    folders.make(deep)
    assert deep.is_dir()
    folders.remove(tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        folders.make(tmp_path / "file/x")
