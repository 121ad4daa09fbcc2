"""People without root, for tests of rootless labs: a user id that has no account, and sees this checkout.

Under root each command becomes that user, with no right left. Folders that only root may look into, such as root's
home, are covered in a mount namespace of the command's own, and show only what Python needs. In a user namespace,
whose one user is root already, there is nobody else to become: there labs nest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60.0


def one_user() -> bool:
    """True where nobody else can be: in a user namespace with one user, or without root."""
    return os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split()[2] == "1"


@dataclass(frozen=True)
class Person:
    """A user, whose labs are kept below `home`; None: whoever we are."""

    uid: int | None
    home: Path

    def command(self, *words: str) -> list[str]:
        """The words, as this user types them."""
        if self.uid is None:
            return list(words)
        user = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--no-new-privs"]
        script = "\n".join(["set -e", *_uncovering(), 'exec "$@"'])
        return ["unshare", "-m", "sh", "-c", script, "sh", *user, *words]

    @property
    def environment(self) -> dict[str, str]:
        """What a login of this user would have."""
        variable = "SVCNAT_RUNTIME_DIR" if self.uid is None else "XDG_RUNTIME_DIR"
        folder = self.runtime if self.uid is None else self.home
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "HOME": "/",
            "TMPDIR": str(self.home),
            variable: str(folder),
        }

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command as this user."""
        return subprocess.Popen(
            self.command(*words),
            **{"env": self.environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as this user."""
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def svcnat(self, *words: str, given: str | None = None) -> str:
        """What svcnat prints for this user, when it succeeds."""
        done = self.run(sys.executable, "-m", "svcnat", *words, given=given)
        assert done.returncode == 0, f"svcnat {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *words: str) -> str:
        """What svcnat says on standard error, when it refuses."""
        done = self.run(sys.executable, "-m", "svcnat", *words)
        assert done.returncode == 1, f"svcnat {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr

    @property
    def runtime(self) -> Path:
        """The folder where svcnat keeps this user's labs."""
        return self.home / "svcnat"

    def files(self) -> list[Path]:
        """What is left in the runtime folder, but for its folders."""
        return [path for path in self.runtime.rglob("*") if path.parent != self.runtime or not path.is_dir()]

    def processes(self) -> list[str]:
        """The command lines of what runs for this user's labs."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    line = (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.runtime).encode() in line:
                    found.append(line.decode().replace("\0", " "))
        return found


def _uncovering() -> list[str]:
    """Commands of a shell that let everybody look at what Python and this checkout need, and at nothing else."""
    lines = []
    needed = [REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent]
    covered: dict[Path, set[Path]] = {}
    for path in needed:
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                covered.setdefault(folder, set()).add(path)
                break
    for folder, paths in covered.items():
        lines += [f"exec 9<{shlex.quote(str(folder))}", f"mount -t tmpfs -o mode=0755 none {shlex.quote(str(folder))}"]
        for path in sorted(paths):
            place, below = shlex.quote(str(path)), shlex.quote(str(path.relative_to(folder)))
            lines += [f"test -d {place} || {{ mkdir -p {place}; mount -c --bind /proc/self/fd/9/{below} {place}; }}"]
        lines.append("exec 9<&-")
    return lines


def have_tools() -> bool:
    """True if the tools are there that make such a user."""
    return all(map(shutil.which, ("setpriv", "unshare", "mount")))
