"""What a lab remembers between two commands: ``lab.json`` in its folder below the runtime folder.

One process at a time has a lab's folder locked; the file is replaced as a whole, so that a crash leaves the old one
or the new one. The objects are in the store beside it, and not known here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct, field

from svcnat.errors import LabError, PrivilegeError
from svcnat.lab import names
from svcnat.lab.control import Port
from svcnat.lab.process import ProcessId
from svcnat.lab.topology import Declaration

STORE = "state.db"

_RECORD = "lab.json"
_VERSION = 1
_RUNTIME = "SVCNAT_RUNTIME_DIR"
_USUAL = "/run/svcnat"


class Program(Struct, frozen=True, omit_defaults=True):
    """What a container runs, nothing for a stand-in; `asked` is the digest of what its manifest asked for."""

    name: str
    asked: str
    command: tuple[str, ...] = ()


class Started(Struct, frozen=True, omit_defaults=True):
    """A pod that was started; `troubles` are ports that did not open.

    `device`, the node's end of its link, is another one at every start, and what its servers and processes go by. One
    that is `ending` has processes that have been asked to leave. `given` is what its containers were last told of, as
    KIND/NAME: the resourceVersions of ConfigMaps and Secrets, nothing for one that was not there.
    """

    uid: str
    name: str
    node: str
    device: str
    v4: str
    v6: str
    ports: tuple[Port, ...] = ()
    host_network: bool = False
    troubles: tuple[str, ...] = ()
    programs: tuple[Program, ...] = ()
    ending: bool = False
    given: dict[str, str] = {}

    @property
    def manned(self) -> bool:
        """True if one of its containers has a process of its own."""
        return any(each.command for each in self.programs)


class Cut(Struct, frozen=True, omit_defaults=True):
    """A partition: these nodes on one side, and on the other those, or if none are named everybody else."""

    nodes: tuple[str, ...]
    others: tuple[str, ...] = ()

    def without(self, healed: Collection[str]) -> Cut | None:
        """What is left of it when these can reach everybody again; None if nothing is."""
        nodes = tuple(each for each in self.nodes if each not in healed)
        others = tuple(each for each in self.others if each not in healed)
        return Cut(nodes, others) if nodes and (others or not self.others) else None


class Record(Struct, frozen=True, omit_defaults=True):
    """A lab; pods are under the names of their network namespaces, `cursors` tell where each node's next address is.

    `path` is where programs are looked for, whoever starts them. Of nodes: which are `off`, who is `cut` off from whom,
    since when nothing was heard of those that cannot be reached (`silent`, seconds since 1970), which ones were being
    built again (`unfinished`), and which one is the `entrance` to the service ranges, the first one if that is "".
    """

    boot: str
    topology: Declaration
    standin: ProcessId | None = None
    agent: ProcessId | None = None
    supervisor: ProcessId | None = None
    watcher: ProcessId | None = None
    lines: ProcessId | None = None
    path: str = os.defpath
    cursors: dict[str, int] = field(default_factory=dict)
    pods: dict[str, Started] = field(default_factory=dict)
    off: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()
    silent: dict[str, float] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()
    entrance: str = ""
    version: int = _VERSION


def runtime_folder() -> Path:
    """The folder that holds the folder of every lab: ``$SVCNAT_RUNTIME_DIR/labs``, by default ``/run/svcnat/labs``.

    Somebody who is not root, or is so in a user namespace only, has a folder of their own, in ``$XDG_RUNTIME_DIR`` or
    in ``/tmp``; the variable says so from then on, to whatever this process starts and to those who look for an agent.

    Raises:
        PrivilegeError: somebody else was there first.

    """
    # Of all that root has, the root folder is what no user namespace, container or mount makes another's.
    if not os.environ.get(_RUNTIME) and (os.geteuid() != 0 or Path("/").stat().st_uid != 0):
        os.environ[_RUNTIME] = str(_own_folder())
    return Path(os.environ.get(_RUNTIME) or _USUAL).absolute() / "labs"


def _own_folder() -> Path:
    user = os.geteuid()
    outside = user or int(Path("/proc/self/uid_map").read_text(encoding="ascii").split()[1])
    session = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    with contextlib.suppress(OSError):
        # After `su` the variable may still name the folder of the user before.
        if session.is_absolute() and session.stat().st_uid == user:
            return session / "svcnat"
    folder = Path(f"/tmp/svcnat-{outside}")  # noqa: S108 - it is looked at
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise _forbidden(folder) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o022:
        raise _forbidden(folder)
    return folder


def keeper_of(lab: str) -> Path:
    """The file of the keeper of a lab, which is there if the lab is one of somebody without root.

    Raises:
        LabError: not a name that a lab can have.

    """
    return _keepers() / folder_of(lab).name


def kept() -> list[str]:
    """The names of the labs that have, or had, a keeper."""
    with contextlib.suppress(OSError):
        return [file.name for file in _keepers().iterdir() if names.is_label(file.name)]
    return []


def _keepers() -> Path:
    return runtime_folder().parent / "rootless"


def folder_of(lab: str) -> Path:
    """The folder of a lab, whether it is there or not.

    Raises:
        LabError: not a name that a lab can have.

    """
    if not names.is_label(lab):
        raise LabError(f"{lab!r} cannot be the name of a lab: lower-case letters, digits and -, at most 63")
    return runtime_folder() / lab


def folders() -> list[str]:
    """The names of what is in the runtime folder; none when there is no such folder.

    Raises:
        LabError: it is no folder.
        PrivilegeError: it is another user's.

    """
    try:
        return [folder.name for folder in runtime_folder().iterdir()]
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise _forbidden(runtime_folder()) from error
    except OSError as error:
        raise LabError(f"cannot use {runtime_folder()}: {error.strerror}") from error


def boot() -> str:
    """The id of this boot of the machine: no namespace outlives it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def read(folder: Path) -> Record:
    """What was last written.

    Raises:
        LabError: there is no such lab, it is half-built, or another version's.
        PrivilegeError: it is another user's.

    """
    try:
        record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Record)
    except FileNotFoundError as error:
        if folder.is_dir():
            raise LabError(f"lab {folder.name} is half-built: `svcnat lab down {folder.name}` removes it") from error
        raise LabError(f"there is no lab {folder.name}: `svcnat lab list` names those that run") from error
    except PermissionError as error:
        raise _forbidden(folder) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise LabError(
            f"cannot read {folder / _RECORD}: {error}: `svcnat lab down {folder.name}` removes the lab"
        ) from error
    if record.version != _VERSION:
        raise LabError(f"lab {folder.name} was built by another version of svcnat: take it down and up again")
    if record.boot != boot():
        raise LabError(f"lab {folder.name} ended with a reboot: `svcnat lab down {folder.name}` removes its files")
    return record


def written(folder: Path) -> int:
    """When it was last written, in nanoseconds.

    Raises:
        OSError: it is gone.

    """
    return (folder / _RECORD).stat().st_mtime_ns


def wait_until_built(folder: Path) -> None:
    """Return when nobody is building the lab in `folder` any more; it may have come to nothing.

    Raises:
        LabError: there is no such lab, or it is gone since.
        PrivilegeError: it is another user's.

    """
    if not (folder / _RECORD).exists():
        with locked(folder):
            pass


def write(folder: Path, record: Record) -> None:
    """Replace what was written; the folder must be locked.

    Raises:
        LabError: it cannot be written.

    """
    new = folder / f"{_RECORD}.new"
    with writing(folder):
        new.write_bytes(msgspec.json.encode(record))
        new.replace(folder / _RECORD)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write files of the lab in `folder`.

    Raises:
        LabError: one cannot be written, as on a disk that is full.

    """
    try:
        yield
    except OSError as error:
        raise LabError(
            f"cannot write the files of lab {folder.name}: {error.filename or folder}: {error.strerror}"
        ) from error


@contextlib.contextmanager
def locked(folder: Path, *, create: bool = False) -> Iterator[None]:
    """Be the only process that changes a lab; waits for others. With `create` the folder is made.

    Raises:
        LabError: there is no such lab, or it was taken down while we waited.
        PrivilegeError: it is another user's.

    """
    descriptor = _open(folder, create=create)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _is_still(folder, descriptor):
            raise LabError(f"lab {folder.name} was taken down meanwhile")
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path, *, create: bool) -> int:
    try:
        if create:
            folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileExistsError as error:
        raise LabError(f"lab {folder.name} exists already: `svcnat lab down {folder.name}` removes it") from error
    except FileNotFoundError as error:
        raise LabError(f"there is no lab {folder.name}: `svcnat lab list` names those that run") from error
    except PermissionError as error:
        raise _forbidden(folder) from error
    except OSError as error:
        raise LabError(f"cannot use {folder}: {error.strerror}") from error


def _forbidden(folder: Path) -> PrivilegeError:
    return PrivilegeError(f"{folder}: Permission denied: run as root, or set SVCNAT_RUNTIME_DIR to a folder of yours")


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        named, held = folder.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISDIR(named.st_mode) and (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
