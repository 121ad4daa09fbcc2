"""Which process a number stands for, in words for a person.

A best effort: the process may be gone, another one may have its number by now, and in a PID namespace the kernel's
numbers mean nothing. It never fails, and it does not say what a process does.
"""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST = 120  # characters of a command line


def describe(pid: int, command: str = "") -> str:
    """``nft (pid 1234, /usr/sbin/nft -f rules.nft)``; what is not known is left out.

    `command` is the name that the kernel gave with the number (comm). Where the number has come to mean a process of
    another name, only what the kernel said is repeated. Every character of the answer is printable.
    """
    folder = Path(f"/proc/{pid}")
    running = _read(folder / "comm").strip()
    name = printable(command or running)
    known = f"pid {pid}" if pid else ""
    if pid and running and (not command or running == command):
        # A thread's own folder shows the command line of its process.
        line = printable(" ".join(_read(folder / "cmdline").rstrip("\0").split("\0")))
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST - 3]}..."
        known = ", ".join(part for part in (known, line) if part)
    if not name:
        return known or "an unknown process"
    return f"{name} ({known})" if known else name


def printable(text: str) -> str:
    """The text with ``?`` for every character that a terminal could act upon."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return os.read(opened.fileno(), 4096).decode(errors="replace")
    except OSError:
        return ""
