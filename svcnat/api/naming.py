"""Serving the names of a cluster: objects from a state file, a lab or manifests, answers over DNS.

What a name is answered with is decided in :mod:`svcnat.dns`; here objects come in, and sockets are opened in the
network namespaces that they are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Container, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from svcnat.agent.desired import Desired, Touched
from svcnat.agent.folders import watch_folders
from svcnat.agent.mishaps import Mishaps
from svcnat.agent.notify import Notifier
from svcnat.api.agents import Following, leave_with
from svcnat.errors import KernelError, MissingError, SvcnatError, UsageError
from svcnat.kernel import netns as namespaces
from svcnat.model.addresses import canonical

if TYPE_CHECKING:
    from svcnat.agent.sources import Source
    from svcnat.dns.forwarding import Opening
    from svcnat.dns.listening import Address, Listening
    from svcnat.dns.records import Records

DOMAIN = "cluster.local"
RESOLV_CONF = "/etc/resolv.conf"

_LOOK_SECONDS = 0.5  # while nobody asks
_RETRY_SECONDS = 1.0
_WAIT_SECONDS = 0.1  # for the newest objects, when somebody does
_AT_ONCE = 200  # objects between which questions are answered
_PORT = 53
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_log = logging.getLogger(__name__)
T = TypeVar("T")


def serve_dns(
    following: Following,
    addresses: Sequence[str],
    netns: str | None = None,
    upstreams: Sequence[str] = (),
    domain: str = DOMAIN,
    *,
    upstream_netns: str | None = None,
) -> None:
    """Answer DNS queries in this process until SIGTERM or SIGINT; SIGHUP reads configuration and objects again.

    `addresses` are ADDRESS[:PORT] in the network namespace `netns`, or fd:N: the UDP socket that whoever started this
    process opened as descriptor N, and the TCP socket that is N + 1. `upstreams`, ADDRESS[:PORT] or files like
    /etc/resolv.conf, are asked for names that are not the cluster's, from the namespace `upstream_netns`; None is this
    process' own.

    Raises:
        SvcnatError: it cannot begin: the objects cannot be read, or an address cannot be bound.
        MissingError: a library of the extra "dns" is not installed.

    """

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(Mishaps())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # Who asks for a reload too early shall not end what begins.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        with Notifier.of_environment() as notifier:
            async with answering(
                following, addresses, netns, upstreams, domain, upstream_netns=upstream_netns
            ) as service:
                notifier.ready(f"answering for {domain} at {', '.join(service.addresses)}")
                loop.add_signal_handler(signal.SIGHUP, service.reload)
                work = [service.failed(), stop.wait(), notifier.keep_alive(lambda: True)]
                if following.home:
                    os.chdir("/")  # nobody shall wait to unmount the folder that the lab was built from
                    work.append(leave_with(following.home))
                await _until_stopped(work[:2], work[2:])
                notifier.stopping()

    # Two threads share the interpreter: the one that answers must not wait long for the one that reads.
    sys.setswitchinterval(0.001)
    asyncio.run(main())


async def _until_stopped(ending: list[Coroutine[Any, Any, Any]], work: list[Coroutine[Any, Any, Any]]) -> None:
    """Do all of it until one of the first is over; what goes wrong with that one is raised."""
    ends = [*map(asyncio.ensure_future, ending)]
    tasks = [*ends, *map(asyncio.ensure_future, work)]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def answering(
    following: Following,
    addresses: Sequence[str],
    netns: str | None = None,
    upstreams: Sequence[str] = (),
    domain: str = DOMAIN,
    *,
    upstream_netns: str | None = None,
) -> AsyncGenerator[Names, None]:
    """Answer DNS queries as long as the block runs: :func:`serve_dns` for who has an event loop."""
    wanted = [_parse_place(each) for each in addresses]
    _check_domain(domain)
    try:
        from svcnat.dns.forwarding import Forwarder
        from svcnat.dns.records import Records
        from svcnat.dns.responder import Responder
        from svcnat.dns.server import Server
    except ImportError as error:
        raise MissingError("DNS needs the library dnspython: pip install '.[dns]'") from error
    records = Records(domain, serial=int(time.time()))
    service = Names(following, records)
    opening = _opening(upstream_netns)
    shared = namespaces.identity(netns) == namespaces.identity(upstream_netns)
    ours = _Ours([each for each in wanted if shared and isinstance(each, tuple)], opening)
    forwarder = Forwarder(_upstreams(upstreams, ours), opening) if upstreams else None
    async with contextlib.AsyncExitStack() as stack:
        await service.begin()
        stack.push_async_callback(service.end)
        sockets = _bound(wanted, netns)
        service.addresses = tuple(_spelled(*each.udp.getsockname()[:2]) for each in sockets)
        await stack.enter_async_context(Server(Responder(records, forwarder), sockets, news=service))
        _log.info(
            "answering", extra={"domain": domain, "at": ", ".join(service.addresses), "follows": service.source.follows}
        )
        yield service


class Names:
    """The records of a source, kept in step with it."""

    def __init__(self, following: Following, records: Records) -> None:
        self.source: Source = following.source(create=False)
        self.addresses: tuple[str, ...] = ()
        self._records, self._configure = records, following.configure
        self._desired = Desired()
        # Whatever blocks happens in this one thread, so that nothing happens twice at a time.
        self._worker = ThreadPoolExecutor(1, "svcnat-names")
        self._wake = asyncio.Event()
        self._rested = asyncio.Event()
        self._rested.set()
        self._again = False
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read all objects, and follow them from then on.

        Raises:
            SvcnatError: they cannot be read.

        """
        try:
            await self._in_worker(lambda: self.source.open(self._configure()))
            await self._take(await self._in_worker(lambda: self.source.refresh(self._desired)))
        except BaseException:
            await self.end()
            raise
        self._task = asyncio.create_task(self._follow())

    async def end(self) -> None:
        """Let go of everything."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._in_worker(self.source.close)
        self._worker.shutdown()

    def reload(self) -> None:
        """Read the configuration and all objects again, soon."""
        self._again = True
        self._wake.set()

    def is_behind(self) -> bool:
        """Tell, at the price of two system calls and one small query, whether objects differ from the records.

        If they do, the records follow soon: :meth:`catch_up` waits for it.
        """
        if not self._rested.is_set():
            return True
        with contextlib.suppress(SvcnatError):  # which is told of by who follows
            if not self._trouble and self.source.changed():
                self._rested.clear()
                self._wake.set()
        return not self._rested.is_set()

    async def catch_up(self) -> None:
        """Wait until the records are as the objects were when this was called, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS):
                while self.is_behind():
                    await self._rested.wait()

    async def failed(self) -> None:
        """Wait for a mistake, which is raised: following objects has no other end."""
        assert self._task
        await asyncio.shield(self._task)

    async def _follow(self) -> None:
        watching = asyncio.create_task(watch_folders(self.source, self._wake.set))
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_SECONDS if self._trouble else _LOOK_SECONDS):
                        await self._wake.wait()
                woken, again = self._wake.is_set(), self._again
                self._wake.clear()
                self._again = False
                try:
                    # The look itself costs less than having another thread do it.
                    if woken or again or self._trouble or self.source.changed():
                        self._rested.clear()
                        await self._take(await self._in_worker(lambda: self._read(again=again)))  # noqa: B023 - awaited
                except SvcnatError as error:
                    if str(error) != self._trouble:
                        self._trouble = str(error)
                        _log.error("the objects cannot be read, names stay as they are: %s", error)
                else:
                    if self._trouble:
                        _log.info("the objects can be read again")
                    self._trouble = ""
                self._rested.set()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _take(self, touched: Touched) -> None:
        """Bring the records up to date with what may differ, and answer questions in between."""
        work = [*((self._take_service, place) for place in touched.services)]
        work += ((self._take_pod, place) for place in touched.pods)
        for count, (take, place) in enumerate(work, 1):
            take(place)
            if not count % _AT_ONCE:
                await asyncio.sleep(0)

    def _read(self, *, again: bool) -> Touched:
        if again:
            self.source.open(self._configure())
        return self.source.refresh(self._desired)

    async def _in_worker(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    def _take_service(self, place: tuple[str, str]) -> None:
        service = self._desired.services.get(place)
        if service:
            self._records.put(service, self._desired.slices_of(place))
        else:
            self._records.remove(place)

    def _take_pod(self, place: tuple[str, str]) -> None:
        pod = self._desired.pods.get(place)
        if pod:
            self._records.put_pod(pod)
        else:
            self._records.remove_pod(place)


def parse_address(text: str, port: int = _PORT) -> Address:
    """An IP address with or without a port: ``10.0.0.1``, ``10.0.0.1:5353``, ``fd00::1``, ``[fd00::1]:5353``.

    Raises:
        UsageError: it is none.

    """
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+)(?::(\d{1,5}))?", text)
    address, number = text, str(port)
    if match:
        address, number = match[1] or match[3], match[2] or match[4] or number
    found = canonical(address)
    if found is None or int(number) > 65535:
        raise UsageError(f"{text!r} is no ADDRESS or ADDRESS:PORT")
    return found, int(number)


def _parse_place(text: str) -> Address | int:
    """Where to answer: an address, or the first of two descriptors."""
    match = re.fullmatch(r"fd:(\d{1,9})", text)
    return int(match[1]) if match else parse_address(text)


def _spelled(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _check_domain(domain: str) -> None:
    labels = domain.strip(".").lower().split(".")
    if len(domain) > 100 or not all(map(_LABEL.fullmatch, labels)):
        raise UsageError(f"{domain!r} cannot be the domain of a cluster")


def _bound(wanted: Sequence[Address | int], netns: str | None) -> list[Listening]:
    """Sockets for every address, or for none."""
    from svcnat.dns.listening import inherited, listen

    with contextlib.ExitStack() as stack:
        sockets = []
        with namespaces.entered(netns):
            for place in wanted:
                try:
                    found = inherited(place) if isinstance(place, int) else listen(place)
                except OSError as error:
                    subject = f"fd:{place}" if isinstance(place, int) else _spelled(*place)
                    where = f' in network namespace "{netns}"' if netns else ""
                    raise KernelError(f"cannot answer at {subject}{where}: {error.strerror}") from error
                stack.callback(found.close)
                sockets.append(found)
        stack.pop_all()
    return sockets


def _opening(netns: str | None) -> Opening:
    """How sockets for questions to others are opened."""

    def opening(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        try:
            with namespaces.entered(netns):
                return socket.socket(family, kind)
        except KernelError as error:
            raise OSError(str(error)) from error

    return opening


class _Ours:
    """The addresses at which we answer, among them all of the host where we answer everywhere."""

    def __init__(self, addresses: Sequence[Address], opening: Opening) -> None:
        self._addresses, self._opening = frozenset(addresses), opening

    def __contains__(self, server: object) -> bool:
        if not isinstance(server, tuple) or server in self._addresses:
            return server in self._addresses
        from svcnat.dns.listening import EVERYWHERE, family_of

        address, port = server
        everywhere = {(each, port) for each in EVERYWHERE if family_of(each) == family_of(address)}
        return bool(everywhere & self._addresses) and self._is_of_this_host(address)

    def _is_of_this_host(self, address: str) -> bool:
        """True if something could be bound to it, port or no port."""
        from svcnat.dns.listening import family_of

        try:
            with self._opening(family_of(address), socket.SOCK_DGRAM) as bound:
                bound.bind((address, 0))
        except OSError:
            return False
        return True


def _upstreams(given: Sequence[str], ours: Container[Address]) -> Callable[[], tuple[Address, ...]]:
    """Whom to ask at the time: addresses as given, files as they are; never ourselves."""
    from svcnat.dns.forwarding import ResolvConf

    sources: list[Callable[[], tuple[Address, ...]]] = []
    for text in given:
        if "/" in text:
            sources.append(ResolvConf(Path(text)))
        else:
            address = parse_address(text)
            sources.append(lambda address=address: (address,))  # type: ignore[misc]
    return lambda: tuple(dict.fromkeys(each for source in sources for each in source() if each not in ours))
