"""Noticing that manifests changed: editors that write in place, those that rename, and links that are exchanged.

It watches folders, since a file that is replaced is another one: those that are followed, and of everything that is
named, or is a link, the folders on the way to what it means. What changed is for the reader to find out: it only says
that something did. Events in a burst are told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from svcnat.agent.sources import Manifests, Source

if TYPE_CHECKING:
    from asyncinotify import Event, Inotify

_QUIET_SECONDS = 0.05  # an editor's file comes in several steps
_LOOK_SECONDS = 1.0  # how often a folder that is not there, or cannot be watched, is looked at
_ANY = ""  # among names: every one
_MOST_LINKS = 40  # on the way to a file: path_resolution(7)

_log = logging.getLogger(__name__)
_Places = dict[Path, tuple[int, int, frozenset[str]]]
"""Folders to watch: which they are (a path may come to mean another one), and the names that matter in them."""


async def watch_folders(source: Source, wake: Callable[[], None]) -> None:
    """Call `wake` after every change of what a source reads; ends at once if it reads no files."""
    if not isinstance(source, Manifests):
        return
    from asyncinotify import Inotify

    told = False
    while True:
        places = _places(source.paths, recursive=source.recursive)
        try:
            with Inotify() as inotify:
                names, blind = _watch(inotify, places)
                told = _tell_blind(blind, told)
                wake()  # whatever happened before the watch
                valid = True
                while valid and places == _places(source.paths, recursive=source.recursive):
                    happened, valid = await _something(inotify, names)
                    if happened or blind:
                        wake()
        except OSError as error:  # no more instances: inotify(7)
            told = _tell_blind(error.strerror or str(error), told)
            await asyncio.sleep(_LOOK_SECONDS)
            wake()


def _watch(inotify: Inotify, places: _Places) -> tuple[dict[Path, set[str]], str]:
    """Watch folders: the names that matter in each, and why some cannot be watched."""
    from asyncinotify import Mask

    mask = Mask.CLOSE_WRITE | Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
    found: dict[Path, set[str]] = {}
    blind = ""
    for folder, (_, _, names) in places.items():
        try:
            watch = inotify.add_watch(folder, mask)
        except FileNotFoundError:
            continue  # it went meanwhile, which the next look finds
        except OSError as error:
            blind = f"{folder}: {error.strerror}"
            continue
        # Two paths may mean one folder, which has one watch.
        found.setdefault(watch.path, set()).update(names)
    return found, blind


async def _something(inotify: Inotify, names: dict[Path, set[str]]) -> tuple[bool, bool]:
    """Wait until something that matters has happened, and is over, or it is time to look for oneself.

    Tells whether something happened, and whether all watches are still valid: a folder that is made again may have the
    number of the one that went, but not its watch.
    """
    happened, valid = False, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS) as patience:
            while True:
                event = await inotify.get()
                # Without a name it is about the folder itself, or events were lost.
                valid = valid and event.name is not None
                if not happened and (event.name is None or _matters(event, names)):
                    happened = True
                    patience.reschedule(asyncio.get_running_loop().time() + _QUIET_SECONDS)
    return happened, valid


def _matters(event: Event, names: dict[Path, set[str]]) -> bool:
    watch = event.watch
    wanted = names.get(watch.path, {_ANY}) if watch else {_ANY}
    return _ANY in wanted or str(event.name) in wanted


def _tell_blind(reason: str, told: bool) -> bool:  # noqa: FBT001
    """Say once that files are read every second instead."""
    if reason and not told:
        _log.warning("the manifests cannot be watched, so they are read every second: %s", reason)
    return bool(reason)


def _places(paths: Iterable[str], *, recursive: bool) -> _Places:
    """Where a change of what is read would show."""
    names: dict[Path, set[str]] = {}
    for path in map(Path, paths):
        for step in _steps(path):
            names.setdefault(step.parent, set()).add(step.name)
        for folder in _folders(path, recursive=recursive):
            names.setdefault(folder, set()).add(_ANY)
            for link in _links(folder):
                for step in _steps(link):
                    names.setdefault(step.parent, set()).add(step.name)
    places: _Places = {}
    for folder, wanted in names.items():
        with contextlib.suppress(OSError):
            status = folder.stat()
            places[folder] = (status.st_dev, status.st_ino, frozenset(wanted))
    return places


def _steps(path: Path) -> Iterator[Path]:
    """A path, and what it points to, and so on."""
    for _ in range(_MOST_LINKS):
        yield path
        try:
            path = path.parent / path.readlink()
        except OSError:
            return


def _folders(path: Path, *, recursive: bool) -> Iterator[Path]:
    """The folders of which every file may be read."""
    if not path.is_dir():
        return
    yield path
    if recursive:
        for root, folders, _ in os.walk(path):
            yield from (Path(root, each) for each in folders)


def _links(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(each.path) for each in entries if each.is_symlink()]
    except OSError:
        return []
