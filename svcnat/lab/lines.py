"""Long lines: a process that takes its time over every packet, ``python -m svcnat.lab.lines FOLDER``, without netem.

A link with latency is two veth pairs then, whose inner ends are in the namespace ``svcnat.LAB.lines``. The process
takes what comes in at either one, and puts it out at the other one when its time has come: frames as they are, with
what the kernel knows of their checksums and segments (PACKET_VNET_HDR in packet(7)). It follows the devices as they
come and go, and exits when its lab does. Which links are long, and what they lose, is not decided here.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from svcnat.errors import LabError, SvcnatError
from svcnat.kernel import netlink, netns
from svcnat.lab import names, network, process, state
from svcnat.lab.process import ProcessId
from svcnat.lab.topology import Topology, plan

LOG = "lines.log"

_LINES = "svcnat.lab.lines"
_READY = "lines.ready"
_PATIENCE = 10.0
_PAUSE = 0.005
_LOOK_SECONDS = 0.2
_AT_ONCE = 64
_LARGEST = 1 << 17
_ALL = 0x0003  # ETH_P_ALL
_SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING = 263, 15, 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER = 4 << 20
_MOST_UNDER_WAY = 64 << 20  # bytes of a line: who sends without a pause into ten seconds shall not have all memory
_BESIDE = 256  # bytes that a frame takes besides


def have(folder: Path, recorded: ProcessId | None) -> ProcessId:
    """Start the process of the lab in `folder` if it does not run, and wait until it takes packets.

    Raises:
        LabError: it cannot be started.

    """
    if process.is_alive(recorded):
        return recorded
    (folder / _READY).unlink(missing_ok=True)
    try:
        started = process.start([_LINES, str(folder)], folder / LOG)
    except OSError as error:
        raise LabError(f"cannot start the long lines: {error}") from error
    end = time.monotonic() + _PATIENCE
    while not (folder / _READY).exists():
        if not process.is_alive(started) or time.monotonic() > end:
            raise LabError(f"the long lines do not work: see {folder / LOG}")
        time.sleep(_PAUSE)
    return started


def stop(folder: Path, recorded: ProcessId | None) -> None:
    """End every such process of the lab in `folder`; None if none is recorded."""
    process.stop_module(_LINES, folder, recorded)


class _End:
    """One inner end: what comes in there leaves by the other one, `delay` seconds later."""

    def __init__(self, device: str, index: int) -> None:
        self.device, self.index = device, index
        self.other: _End
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._socket.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
        self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        netlink.force(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _BUFFER)
        netlink.force(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _BUFFER)
        self._socket.bind((device, _ALL))

    def fileno(self) -> int:
        return self._socket.fileno()

    def frames(self) -> Iterator[bytes]:
        """What has come in, some of it."""
        for _ in range(_AT_ONCE):
            try:
                yield self._socket.recv(_LARGEST)
            except OSError:  # there is no more, or the device has gone
                return

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # a line is allowed to lose what it cannot carry
            self._socket.send(frame)

    def close(self) -> None:
        self._socket.close()


class _Line:
    """A link: its two ends, and what is on its way, in the order in which it arrives."""

    def __init__(self, port: str, delay: float) -> None:
        self._devices = network.ends_of_line(port)
        self._delay = delay
        self._ends: list[_End] = []
        self._under_way: deque[tuple[float, _End, bytes]] = deque()
        self._room = _MOST_UNDER_WAY

    def look(self, selector: selectors.BaseSelector) -> None:
        """Open both ends if they are there, and others than before."""
        indices = [_index(device) for device in self._devices]
        if [end.index for end in self._ends] == indices:
            return
        for end in self._ends:
            selector.unregister(end)
            end.close()
        self._ends = []
        self._under_way.clear()
        self._room = _MOST_UNDER_WAY
        if all(indices):
            one, other = self._ends = [
                _End(device, index) for device, index in zip(self._devices, indices, strict=True)
            ]
            one.other, other.other = other, one
            for end in self._ends:
                selector.register(end, selectors.EVENT_READ, self)

    def take(self, end: _End) -> None:
        """Take what came in at an end; what there is no room for is lost."""
        due = time.monotonic() + self._delay
        for frame in end.frames():
            size = len(frame) + _BESIDE
            if size <= self._room:
                self._room -= size
                self._under_way.append((due, end.other, frame))

    def deliver(self, now: float) -> float:
        """Put out what has arrived; the answer is when the next is due."""
        while self._under_way and self._under_way[0][0] <= now:
            _, end, frame = self._under_way.popleft()
            self._room += len(frame) + _BESIDE
            end.send(frame)
        return self._under_way[0][0] if self._under_way else now + _LOOK_SECONDS


def _index(device: str) -> int:
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(device)
    return 0


def _carry(folder: Path, topology: Topology) -> None:
    selector = selectors.SelectSelector()  # others round a pause up to milliseconds
    lines = [_Line(port, each.link.latency) for each, port in network.long_links(topology)]
    looked, inode = 0.0, folder.stat().st_ino
    while True:
        now = time.monotonic()
        if now - looked >= _LOOK_SECONDS:
            looked = now
            with contextlib.suppress(OSError):
                for line in lines:
                    line.look(selector)
            if not folder.exists() or folder.stat().st_ino != inode:
                return
            (folder / _READY).touch()
        due = min((line.deliver(now) for line in lines), default=now + _LOOK_SECONDS)
        pause = min(due, looked + _LOOK_SECONDS) - time.monotonic()
        for key, _ in selector.select(max(pause, 0.0)):
            key.data.take(key.fileobj)


def main() -> None:
    """Carry the packets of the lab in the folder that the command line names, until it goes."""
    folder = Path(sys.argv[1])
    os.chdir("/")
    with contextlib.suppress(SvcnatError, FileNotFoundError):  # the lab is gone
        topology = plan(state.read(folder).topology)
        netns.call(names.member(folder.name, names.LINES), lambda: _carry(folder, topology))


if __name__ == "__main__":
    main()
