"""Somebody's editor, and the file that is edited: in a folder of its own that nobody else may look into.

It knows nothing of objects.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from svcnat.errors import SvcnatError, UsageError
from svcnat.kernel import files

_VARIABLES = ("KUBE_EDITOR", "EDITOR", "VISUAL")


def command(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The editor that the environment names, with its arguments, or else vi; no shell reads it.

    Raises:
        UsageError: a quote in it is never closed.

    """
    for name in _VARIABLES:
        try:
            if words := shlex.split(environment.get(name, "")):
                return words
        except ValueError as error:
            raise UsageError(f"{name} is no command: {error}") from error
    return ["vi"]


class Draft:
    """A file to be edited, 0600 in a folder of 0700; a context manager that removes it, unless it is to be kept."""

    def __init__(self, name: str) -> None:
        """Prepare for a file of this name; the folder is made in TMPDIR."""
        self._folder = Path(tempfile.mkdtemp(prefix="svcnat-edit-"))
        self.path = self._folder / name
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._kept:
            shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self) -> Path:
        """Let it stay, and return where it is; editors may have made it anew, with other rights."""
        self._kept = True
        with contextlib.suppress(OSError):
            files.make_private(self.path)
        return self.path

    def edit(self, text: str) -> bytes:
        """Have a text edited, and return what was saved; nothing if the file is gone.

        Raises:
            SvcnatError: the editor cannot be started, ends with an error, or leaves no plain file.

        """
        words = command()
        self.path.unlink(missing_ok=True)
        with os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text.encode(errors="surrogateescape"))
        # An interrupt is for the editor alone; it has its own handler, as every program that is started.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = subprocess.run([*words, str(self.path)], check=False).returncode
        except OSError as error:
            raise SvcnatError(f'unable to launch the editor "{shlex.join(words)}": {error.strerror}') from error
        finally:
            signal.signal(signal.SIGINT, before)
        if code:
            raise SvcnatError(f'there was a problem with the editor "{shlex.join(words)}": it ended with {code}')
        try:
            return files.read(self.path)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise SvcnatError(f"cannot read what the editor saved as {self.path}: {error.strerror}") from error
