"""The kubelet between commands, ``python -m svcnat.lab.watcher FOLDER``: passes whenever something else asks for one.

A command that changes pods makes its own pass and waits for it. What nobody waits for is this process's: pods that a
controller made because a probe succeeded, that another program put into the store, containers that ended or started
again, pods that have taken their time of grace, nodes whose namespace somebody has deleted. It looks first, without the
lab's lock, and takes it only if there is something to do: stand-in servers and agents that ended are left to the next
change, as they are without it. It exits when its lab goes, and when another one watches it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from svcnat.agent.control import Reconcile
from svcnat.errors import EndedError, LabError, SvcnatError
from svcnat.lab import agent, network, process, state
from svcnat.lab.process import ProcessId
from svcnat.lab.supervision import Supervision
from svcnat.store.watch import Watch

if TYPE_CHECKING:  # it is labs that stop watchers
    from svcnat.lab.labs import Lab

LOG = "watcher.log"

_WATCHER = "svcnat.lab.watcher"
_LOCK = "watcher.lock"
_LOOK_SECONDS = 0.2
_COURTESY_SECONDS = 0.1  # for the pass of the command that made the change
_RETRY_SECONDS = 1.0
_NICENESS = 5  # whoever waits for a command goes first


def have(folder: Path) -> None:
    """Start the watcher of the lab in `folder` if it does not run.

    Raises:
        LabError: the lab is gone, or it cannot be started.

    """
    if process.is_alive(state.read(folder).watcher):
        return
    with state.locked(folder):
        record = state.read(folder)
        if not process.is_alive(record.watcher):
            try:
                watcher = process.start([_WATCHER, str(folder)], folder / LOG)
            except OSError as error:
                raise LabError(f"cannot start the watcher: {error}") from error
            state.write(folder, replace(record, watcher=watcher))


def stop(folder: Path, recorded: ProcessId | None) -> None:
    """End every watcher of the lab in `folder`; None if none is recorded."""
    process.stop_module(_WATCHER, folder, recorded)


class _Watcher:
    """What is known of the lab between two looks."""

    def __init__(self, lab: Lab, watch: Watch) -> None:
        self._lab, self._watch = lab, watch
        self._supervision: Supervision | None = None
        self._said = ""
        self._recorded = 0
        self._silent = False
        self._off: tuple[str, ...] = ()

    def run(self) -> None:
        """Look and act until the lab is gone."""
        unsettled = True
        while (self._lab.folder / state.STORE).exists():
            unsettled |= self._watch.changed() | self._nodes_matter()
            if not unsettled:
                unsettled = self._pause()
                continue
            try:
                unsettled = not self._settle()
                self._say("")
            except (SvcnatError, OSError) as error:  # a disk that is full may be so for a while
                self._say(str(error))
            if unsettled:
                time.sleep(_RETRY_SECONDS if self._said else _LOOK_SECONDS)

    def _nodes_matter(self) -> bool:
        """True if somebody may have failed or mended nodes, or if one is silent, so that time alone makes work."""
        with contextlib.suppress(OSError):
            written = state.written(self._lab.folder)
            if written != self._recorded:
                record = state.read(self._lab.folder)
                self._recorded, self._silent, self._off = written, bool(record.silent), record.off
                return True
        return self._silent or network.lacks_nodes(self._lab.name, self._lab.topology, self._off)

    def _settle(self) -> bool:
        """Make a pass if there is something to do; False if there still is."""
        from svcnat.lab import kubelet

        if kubelet.is_settled(self._lab):
            return True
        time.sleep(_COURTESY_SECONDS)
        if kubelet.is_settled(self._lab):
            return True
        folder = self._lab.folder
        probing = agent.have(folder)
        kubelet.start(self._lab, probing=probing)
        gone = kubelet.unwanted(self._lab)
        if probing:
            self._have_rules()
        if kubelet.retire(self._lab).retired:
            gone |= kubelet.unwanted(self._lab)
            if probing:
                self._have_rules()
        kubelet.sweep(self._lab, gone)
        return kubelet.is_settled(self._lab)

    def _have_rules(self) -> None:
        """Wait until the agent's rules send nothing more to pods that are to end."""
        with self._lab.store.read() as snapshot:
            revision = snapshot.revision
        with agent.connect(self._lab.folder) as client:
            client.ask(Reconcile(revision))

    def _pause(self) -> bool:
        """Wait for a while; True if a container ended or started meanwhile, or the supervisor did."""
        if self._supervision is None:
            with contextlib.suppress(LabError):
                self._supervision = Supervision(self._lab.folder)
        if self._supervision is None:
            time.sleep(_LOOK_SECONDS)
            return False
        try:
            return self._supervision.wait(_LOOK_SECONDS)
        except LabError:
            self._supervision.close()
            self._supervision = None
            return True

    def _say(self, trouble: str) -> None:
        if trouble != self._said:
            self._said = trouble
            print(trouble or "the trouble is over", file=sys.stderr, flush=True)  # noqa: T201 - its log


def _watch(folder: Path) -> None:
    from svcnat.lab.labs import Lab

    with Lab.open(folder.name) as lab, lab.store.watch() as watch:
        _Watcher(lab, watch).run()


def main() -> None:
    """Watch the lab in the folder that the command line names, until it goes."""
    folder = Path(sys.argv[1])
    os.chdir("/")
    os.nice(_NICENESS)
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state.wait_until_built(folder)
        _watch(folder)
    except (LabError, EndedError, FileNotFoundError, BlockingIOError):
        # The lab is gone, or somebody else watches it.
        return


if __name__ == "__main__":
    main()
