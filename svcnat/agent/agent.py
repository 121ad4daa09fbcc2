"""The agent: an event loop that finds reasons for rounds, and one thread that makes them.

What comes from outside (requests, signals, files, the kernel's events, the clock) only says that there may be something
to do; the round finds out what (:mod:`svcnat.agent.reconciler`). Reasons that come while a round is under way wait for
the next one together. Whoever asked for a round gets its answer as soon as the rules are there; probes, health checks
and pages follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from svcnat.agent.attempts import Runner
from svcnat.agent.control import Answer, Reconcile, Request, Verify, Watch
from svcnat.agent.folders import watch_folders
from svcnat.agent.keeper import Keeper
from svcnat.agent.mishaps import Mishaps
from svcnat.agent.notify import Notifier
from svcnat.agent.reconciler import Reconciler
from svcnat.agent.rounds import Reasons, Round
from svcnat.agent.server import Server
from svcnat.agent.sources import Source
from svcnat.agent.surroundings import Surroundings
from svcnat.agent.targets import Target
from svcnat.errors import SvcnatError
from svcnat.model.configuration import Configuration

_LOOK_SECONDS = 0.5  # between two looks at what nobody tells of: the state file, the names of namespaces
_STUCK_SECONDS = 120.0  # a round that takes longer will not end
_CALM_SECONDS = 0.02  # between rounds for events alone, so that a storm of them costs few

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """How an agent runs; ``reload`` reads the configuration again; ``run`` runs the commands of exec probes."""

    reload: Callable[[], Configuration]
    socket: Path
    cleanup_on_exit: bool = False
    force: bool = False
    run: Runner | None = None
    notifier: Notifier = field(default_factory=Notifier)


class Agent:
    """Keeps the rules of its targets equal to its source's objects, until it is told to stop."""

    def __init__(self, source: Source, targets: tuple[Target, ...], config: Configuration, options: Options) -> None:
        self._source, self._targets, self._config, self._options = source, targets, config, options
        # Everything that blocks happens in this one thread, so that nothing happens twice at a time.
        self._worker = ThreadPoolExecutor(1, "svcnat-worker")
        self._surroundings = Surroundings(
            source, config, options.run, self._worker, self._wake_for_objects, self._is_alive
        )
        self._reconciler = Reconciler(
            source, targets, config, observer=self._surroundings.observer, keeping=self._keeping
        )
        self._server = Server(options.socket, self._answer)
        self._reasons = Reasons(objects=True)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._waiting: list[asyncio.Future[Round]] = []
        self._told = asyncio.Condition()
        self._revision = -1
        self._listening: set[int] = set()
        self._words = ""

    def _keeping(self, target: Target, config: Configuration, source: Source) -> Keeper:
        return Keeper(target, config, follows=source.follows, identity=source.identity, force=self._options.force)

    async def run(self) -> None:
        """Begin, keep on, and end at SIGTERM or SIGINT; the rules stay, unless ``cleanup_on_exit``.

        Raises:
            SvcnatError: it cannot begin: the objects cannot be read, or a target has another writer.

        """
        notifier, loop = self._options.notifier, asyncio.get_running_loop()
        began, cleanup, early = False, False, asyncio.Event()
        loop.set_exception_handler(Mishaps())
        # Who asks for a reload too early shall not end what begins.
        loop.add_signal_handler(signal.SIGHUP, early.set)
        try:
            await self._in_worker(self._reconciler.open)
            self._server.open()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            async with self._surroundings:
                await self._round()
                await self._surroundings.update_pages()
                notifier.ready(self._in_words())
                began = True
                _log.info("following", extra={"follows": self._source.follows, "revision": self._revision})
                loop.add_signal_handler(signal.SIGHUP, self._reload)
                if early.is_set():
                    self._reload()
                await self._until_stopped(
                    self._rounds(),
                    self._looks(),
                    self._server.serve(),
                    notifier.keep_alive(self._is_alive),
                    self._surroundings.serve(self._reconciler),
                    self._surroundings.write_down(),
                    watch_folders(self._source, self._wake_for_objects),
                )
                notifier.stopping()
                # Only who was asked to end removes rules, not who could not begin, or failed.
                cleanup = self._options.cleanup_on_exit
        finally:
            for descriptor in self._listening:
                loop.remove_reader(descriptor)
            await self._server.close()
            await self._in_worker(lambda: self._reconciler.close(cleanup=cleanup))
            self._worker.shutdown()
            if began:
                _log.info("ended: the rules %s", "are removed" if cleanup else "stay")
                # Whoever asks once more, while the process goes, is asking for what is happening.
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.remove_signal_handler(number)
                    signal.signal(number, signal.SIG_IGN)

    async def _until_stopped(self, *work: Coroutine[Any, Any, None]) -> None:
        """Do all this work until told to stop; a mistake in any of it ends the rest, and is raised."""
        stop: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        tasks: set[asyncio.Task[Any]] = {stop, *map(asyncio.create_task, work)}
        try:
            while stop in tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what went wrong; work that had nothing to do just ends
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_worker(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    # --- reasons ---------------------------------------------------------------------------------------------

    def _wake_for_objects(self) -> None:
        self._reasons.objects = True
        self._wake.set()

    def _wake_for_event(self, descriptor: int) -> None:
        """Something happened: it is read in the round, so until then nobody needs to be told again."""
        asyncio.get_running_loop().remove_reader(descriptor)
        self._listening.discard(descriptor)
        self._reasons.events = True
        self._wake.set()

    async def _looks(self) -> None:
        """Look at what nobody tells of, and wake for what is due."""
        last = 0.0
        while True:
            due = self._reconciler.due
            pause = _LOOK_SECONDS if due is None else max(0.01, min(due - time.monotonic(), _LOOK_SECONDS))
            await asyncio.sleep(pause)
            self._reasons.events = True
            if time.monotonic() - last >= _LOOK_SECONDS:
                last = time.monotonic()
                self._reasons.look = True
            self._wake.set()

    def _reload(self) -> None:
        """Read the configuration again (SIGHUP); one that is wrong is told of, and the old one stays."""
        self._options.notifier.reloading()
        try:
            config = self._options.reload()
        except SvcnatError as error:
            _log.error("the configuration stays as it was: %s", error)
            self._options.notifier.ready(self._in_words())
            return
        self._config = config
        self._reasons.config = config
        self._surroundings.configure(config)
        self._wake.set()

    # --- rounds ----------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        while True:
            await self._wake.wait()
            if self._reasons == Reasons(events=True):
                self._wake.clear()
                with contextlib.suppress(TimeoutError):  # a better reason ends the calm
                    await asyncio.wait_for(self._wake.wait(), _CALM_SECONDS)
            reloaded = self._reasons.config is not None
            await self._round()
            if reloaded:
                self._options.notifier.ready(self._in_words())
                _log.info("the configuration was read again")

    async def _round(self) -> None:
        self._wake.clear()
        reasons, self._reasons = self._reasons, Reasons()
        waiting, self._waiting = self._waiting, []
        self._surroundings.freshness.began()
        done = await self._in_worker(lambda: self._reconciler.round(reasons))
        self._surroundings.freshness.ended()
        for future in waiting:
            if not future.done():
                future.set_result(done)
        self._listen()
        if done.revision != self._revision:
            self._revision = done.revision
            async with self._told:
                self._told.notify_all()
        self._surroundings.tell(done)
        if (words := self._in_words()) != self._words:
            self._words = words
            self._options.notifier.status(words)

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        current = {each for _, keeper in self._reconciler.keepers for each in keeper.filenos()}
        for descriptor in self._listening - current:
            loop.remove_reader(descriptor)
        for descriptor in current - self._listening:
            loop.add_reader(descriptor, self._wake_for_event, descriptor)
        self._listening = current

    def _is_alive(self) -> bool:
        return self._surroundings.freshness.under_way < _STUCK_SECONDS

    def _in_words(self) -> str:
        state = self._reconciler.state()
        states = ", ".join(f"{target.node} {target.state}" for target in state.targets)
        return f"following {state.follows} at revision {state.revision}: {states}"

    # --- requests --------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> AsyncGenerator[Answer, None]:
        match request:
            case Reconcile():
                future: asyncio.Future[Round] = asyncio.get_running_loop().create_future()
                began = time.monotonic()
                self._waiting.append(future)
                self._reasons.urgent = self._reasons.objects = True
                self._wake.set()
                await future
                state = self._reconciler.state()
                well = not state.troubles and all(target.state in ("synced", "off") for target in state.targets)
                self._surroundings.answered(time.monotonic() - began, well=well)
                if state.troubles:
                    yield Answer(state, error="\n".join(state.troubles))
                elif state.revision < request.revision:
                    yield Answer(state, error=f"{state.follows} holds revision {state.revision}, which is older")
                else:
                    yield Answer(state)
            case Verify():
                yield Answer(await self._in_worker(lambda: self._reconciler.state(deep=request.deep)))
            case Watch():
                told = -1
                while True:
                    async with self._told:
                        await self._told.wait_for(lambda: self._revision != told)  # noqa: B023 - awaited at once
                    told = self._revision
                    yield Answer(revision=told)
