"""Manifests on disk: what ``-f`` names, as (source name, bytes) pairs for :func:`svcnat.model.manifests.load`.

It parses nothing, follows no link to a folder and opens no device.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from svcnat.errors import Finding, ManifestError, UsageError

SUFFIXES = (".json", ".yaml", ".yml")
"""What is read in a folder; a file that is named itself may be called anything."""

MAX_BYTES = 256 << 20
"""Larger input is refused: it is a mistake, or meant to hurt."""

_PART = 1 << 20  # bytes


def read_sources(
    paths: Iterable[str], *, recursive: bool = False, stdin: BinaryIO | None = None
) -> list[tuple[str, bytes]]:
    """Read files, folders and ``-`` (`stdin`), in the order given; a folder's files by name.

    Folders give their ``*.yaml``, ``*.yml`` and ``*.json``, and with `recursive` those of the folders below. A file
    that is reached twice is read once.

    Raises:
        UsageError: ``-`` twice or without `stdin`, an address of the web, or nothing at all.
        ManifestError: what cannot be read, every one of it.

    """
    paths = [str(path) for path in paths]
    if paths.count("-") > (stdin is not None):
        raise UsageError("standard input (-f -) can be read only once" if stdin else "there is no standard input")
    reader = _Reader(recursive=recursive)
    for path in paths:
        if path == "-" and stdin:
            reader.keep("<stdin>", stdin)
        elif not path:
            # To pathlib it is the current folder, and to a script a variable that is not set.
            raise UsageError("-f takes files, folders and -, not an empty name; . is this folder")
        elif path.startswith(("http://", "https://")):
            raise UsageError(f"-f takes files, folders and -: download {path} first")
        else:
            reader.visit(Path(path), named=True)
    if reader.findings:
        raise ManifestError(reader.findings)
    return reader.sources


class _Reader:
    """What has been read so far, and what could not be."""

    def __init__(self, *, recursive: bool) -> None:
        self.recursive = recursive
        self.sources: list[tuple[str, bytes]] = []
        self.findings: list[Finding] = []
        self.seen: set[tuple[int, int]] = set()

    def visit(self, path: Path, *, named: bool) -> int:
        """Read a file, or a folder that was named (or any, if recursive); return how many manifests were found."""
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                return self._folder(path, named=named)
            if not named and not path.name.endswith(SUFFIXES):
                return 0
            # A pipe that nobody writes to would make a folder wait for ever; <(a command) is named.
            if not (stat.S_ISREG(status.st_mode) or (named and stat.S_ISFIFO(status.st_mode))):
                self._refuse(path, "neither a file nor a folder")
            elif (identity := (status.st_dev, status.st_ino)) not in self.seen:
                self.seen.add(identity)
                with path.open("rb") as file:
                    self.keep(str(path), file)
        except FileNotFoundError:
            if not named and not path.is_symlink():
                return 0  # it went while its folder was read
            self._refuse(path, "no such file or folder")
        except OSError as error:
            self._refuse(path, (error.strerror or str(error)).lower())
        return 1

    def keep(self, source: str, file: BinaryIO) -> None:
        """Read an open file to its end."""
        data = bytearray()
        # A buffer for the largest file there may be is more than some machines promise for the smallest one.
        while len(data) <= MAX_BYTES and (part := file.read(_PART)):
            data += part
        if len(data) > MAX_BYTES:
            self.findings.append(Finding(source, 0, "", "", f"larger than {MAX_BYTES >> 20} MiB"))
        else:
            self.sources.append((source, bytes(data)))

    def _folder(self, path: Path, *, named: bool) -> int:
        if not named and (path.is_symlink() or not self.recursive):
            return 0
        found = sum(self.visit(child, named=False) for child in sorted(path.iterdir()))
        if named and not found:
            below = "" if self.recursive else "; -R looks into the folders below"
            self._refuse(path, f"no manifests here: their names must end in {', '.join(SUFFIXES)}{below}")
        return found

    def _refuse(self, path: Path, reason: str) -> None:
        self.findings.append(Finding(str(path), 0, "", "", reason))
