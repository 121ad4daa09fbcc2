"""What an agent does around its rules: probes, health checks, pages, metrics, and Events on objects.

None of it keeps the rules waiting: it follows the rounds in its own time, and what cannot be had of it (a library that
is not installed, a port in use, a store that cannot be written) is told once and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Self

from svcnat.agent.counting import Counting, most_endpoints
from svcnat.agent.desired import Desired, Identity, Touched
from svcnat.agent.freshness import Freshness
from svcnat.agent.health import HealthServers
from svcnat.agent.keeper import Overran
from svcnat.agent.probes import Probed, Result, wanted_of_pod, wanted_of_service
from svcnat.agent.reconciler import Reconciler
from svcnat.agent.rounds import Observer, Round
from svcnat.agent.sources import PROBED, Happening, Source
from svcnat.agent.targets import Target
from svcnat.errors import BusyError, MissingError, SvcnatError
from svcnat.model.configuration import Configuration
from svcnat.model.objects import Node, Pod, Service

if TYPE_CHECKING:
    from svcnat.agent.attempts import Runner
    from svcnat.agent.metrics import Metrics
    from svcnat.agent.prober import Prober
    from svcnat.agent.web import Pages
    from svcnat.ruleset.plan import HealthCheck

COMPONENT = "svcnat"
_PATIENCE = 5.0  # seconds: half of what Prometheus waits
_MOST_WAITING = 1000  # happenings that wait to be written; more are dropped

_log = logging.getLogger(__name__)


class Surroundings:
    """An async context manager: entering it makes what the configuration asks for, leaving it ends all of it."""

    def __init__(
        self,
        source: Source,
        config: Configuration,
        run: Runner | None,
        worker: Executor,
        wake: Callable[[], None],
        alive: Callable[[], bool] = lambda: True,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """`worker` is the thread of the rounds; `wake` asks for one, because objects changed; `alive` is for /livez.

        `patience`: seconds that a scrape waits for a round.
        """
        self.loop = asyncio.get_running_loop()
        self._source, self._config, self._run = source, config, run
        self._worker, self._wake, self._alive, self._patience = worker, wake, alive, patience
        self._counting: Counting | None = None
        self.freshness = Freshness()
        self.metrics: Metrics | None = None
        self._pages: Pages | None = None
        self._prober: Prober | None = None
        self._servers: dict[Target, HealthServers] = {}
        self._served: dict[Target, tuple[tuple[HealthCheck, ...], tuple[str, ...]]] = {}
        self._probed: dict[tuple[type, Identity], tuple[Probed, ...]] = {}
        self._touched = Touched()
        self._begun = False
        self._told = asyncio.Event()
        self._to_write = asyncio.Event()
        self._results: list[tuple[Result, asyncio.Future[None]]] = []
        self._happenings: list[Happening] = []
        self._said: dict[str, str] = {}
        self._stack = contextlib.AsyncExitStack()
        self._reconciler: Reconciler | None = None

    @property
    def observer(self) -> Observer:
        """Who is to be told of rounds."""
        return _Observer(self)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if self._config.metrics_bind or self._config.healthz_bind:
                await self._make_pages(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def configure(self, config: Configuration) -> None:
        """Take another configuration."""
        self._config = config
        if self._counting:
            self._counting.few = most_endpoints(config)
        self._told.set()

    def tell(self, done: Round) -> None:
        """A round is done; this returns at once."""
        if done.moved:
            self._begun = False  # what could not be probed for want of a place to probe from may be possible now
        self._touched |= done.touched
        self._told.set()

    def answered(self, seconds: float, *, well: bool) -> None:
        """A command that asked for a round has its answer, so many seconds after it asked."""
        if self.metrics:
            self.metrics.answered("done" if well else "failed")
            for target, _ in self._reconciler.keepers if self._reconciler and well else ():
                self.metrics.programmed(target.node, seconds)

    async def serve(self, reconciler: Reconciler) -> None:
        """Follow the rounds, until cancelled."""
        self._reconciler = reconciler
        while True:
            self._told.clear()
            touched, self._touched = self._touched, Touched()
            nodes = {target.node for target, _ in reconciler.keepers}
            self.freshness.eligible = not nodes or not nodes <= reconciler.desired.leaving
            await self._probe(reconciler.desired, touched)
            await self._check(reconciler)
            await self.update_pages()
            await self._told.wait()

    # --- pages and metrics -----------------------------------------------------------------------------------

    async def _make_pages(self, stack: contextlib.AsyncExitStack) -> None:
        from svcnat.agent.metrics import Metrics
        from svcnat.agent.web import Pages

        try:
            self._counting = Counting(self._serving, few=most_endpoints(self._config))
            self.metrics = Metrics(self._counting)
            self._pages = await stack.enter_async_context(Pages(self.freshness.health, self._alive, self.metrics))
        except MissingError as error:
            self._say("pages", str(error))

    def _serving(self) -> Any:
        if self._reconciler is None:
            return []
        try:
            asked = self._worker.submit(self._reconciler.serving)
        except RuntimeError:  # the agent is about to end
            return []
        try:
            return asked.result(self._patience)
        except TimeoutError as error:
            # When rounds hang, it is the other numbers that tell.
            asked.cancel()
            raise BusyError(f"a round has been under way for more than {self._patience:g} seconds") from error

    async def update_pages(self) -> None:
        """Serve the pages where the configuration wants them."""
        if self._pages is None and (self._config.metrics_bind or self._config.healthz_bind):
            await self._make_pages(self._stack)
        if self._pages:
            self._say(
                "pages", "; ".join(await self._pages.update(self._config.metrics_bind, self._config.healthz_bind))
            )

    # --- health checks of load balancers ---------------------------------------------------------------------

    async def _check(self, reconciler: Reconciler) -> None:
        """Answer every healthCheckNodePort on its node."""
        wanted = await self.loop.run_in_executor(self._worker, reconciler.health_checks)
        for target in self._servers.keys() - {target for target, _, _ in wanted}:
            await self._servers.pop(target).close()
            self._served.pop(target, None)
        for target, checks, addresses in wanted:
            if self._served.get(target, ((), addresses)) == (checks, addresses):
                continue
            try:
                if target not in self._servers:
                    servers = HealthServers(target.netns, functools.partial(self.freshness.keeps_up, target.node))
                    self._servers[target] = await self._stack.enter_async_context(servers)
                unserved = await self._servers[target].update(checks, addresses)
            except SvcnatError as error:
                self._say(f"health checks of {target.node}", str(error))
                continue
            # What could not be served is tried again after the next round.
            if unserved:
                self._served.pop(target, None)
            else:
                self._served[target] = (checks, addresses)
            lines = [f"{each.check.namespace}/{each.check.name}: {each.address}: {each.reason}" for each in unserved]
            self._say(f"health checks of {target.node}", "; ".join(lines))

    # --- probes ----------------------------------------------------------------------------------------------

    async def _probe(self, desired: Desired, touched: Touched) -> None:
        """Probe what asks for it."""
        if not self._begun:
            # In the thread of the rounds, which may be changing them.
            touched = await self.loop.run_in_executor(
                self._worker, lambda: Touched(set(desired.services), set(), set(desired.pods))
            )
            self._begun = True
        changed = False
        for place in touched.pods:
            pod = desired.pods.get(place)
            target = self._target_of(pod.spec.node_name) if pod else None
            changed |= self._want((Pod, place), wanted_of_pod(pod, target.netns) if pod and target else ())
        for place in touched.services:
            service = desired.services.get(place)
            target = self._target_of("")
            found = wanted_of_service(service, desired.slices_of(place), target.netns) if service and target else ()
            changed |= self._want((Service, place), found)
        if not changed:
            return
        if self._prober is None:
            from svcnat.agent.prober import Prober

            self._prober = await self._stack.enter_async_context(Prober(self._report, run=self._run))
        await self._prober.update([each for wanted in self._probed.values() for each in wanted])

    def _want(self, what: tuple[type, Identity], wanted: tuple[Probed, ...]) -> bool:
        """Note what is to be probed of an object; True if that is something else than before."""
        if self._probed.get(what, ()) == wanted:
            return False
        self._probed[what] = wanted
        if not wanted:
            del self._probed[what]
        return True

    def _target_of(self, node: str) -> Target | None:
        """Where a Pod on a node is probed from: that node, or the first one if it is none of ours."""
        targets = [target for target, _ in self._reconciler.keepers] if self._reconciler else []
        return next((target for target in targets if target.node == node), targets[0] if targets else None)

    async def _report(self, result: Result) -> None:
        """Write down what a probe found out; returns when that is done."""
        if result.message:
            key = result.key
            self.happen(
                Happening(
                    PROBED[key.kind], key.namespace, key.name, "Warning", result.reason, result.message, COMPONENT, ""
                )
            )
        if result.changed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._results.append((result, future))
            self._to_write.set()
            await future

    # --- what is written down --------------------------------------------------------------------------------

    def happen(self, happening: Happening) -> None:
        """Tell of something that happened, when there is time."""
        if len(self._happenings) < _MOST_WAITING:
            self._happenings.append(happening)
        self._to_write.set()

    async def write_down(self) -> None:
        """Write what there is to write, until cancelled."""
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            await self._write()

    async def _write(self) -> None:
        """Write what has gathered into the store, in one transaction."""
        results, self._results = self._results, []
        happenings, self._happenings = self._happenings, []
        if not results and not happenings:
            return
        try:
            found = [result for result, _ in results]
            # Somebody may have the state file locked for seconds: rules do not wait for what is told about them.
            thread = None if self._source.store else self._worker
            await self.loop.run_in_executor(thread, self._source.write, found, happenings)
        except SvcnatError as error:
            self._say("store", f"what probes found out, and Events, cannot be written: {error}")
            for _, future in results:
                if not future.done():
                    future.set_exception(error)
            return
        self._say("store", "")
        for _, future in results:
            if not future.done():
                future.set_result(None)
        if results:
            self._wake()

    def _say(self, subject: str, trouble: str) -> None:
        """Tell of a trouble when it begins, changes and ends."""
        if self._said.get(subject, "") != trouble:
            self._said[subject] = trouble
            if trouble:
                _log.warning("%s: %s", subject, trouble)
            else:
                _log.info("%s: the trouble is over", subject)


class _Observer(Observer):
    """Tells freshness, metrics and Events what happens; in the thread of the rounds."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._all = surroundings

    def requested(self, target: Target) -> None:
        """See :class:`Observer`."""
        self._all.freshness.requested(target.node)
        if metrics := self._all.metrics:
            metrics.requested(target.node)

    def passed(self, target: Target, *, full: bool, seconds: float, changes: int) -> None:
        """See :class:`Observer`."""
        self._all.freshness.passed(target.node, seconds)
        if metrics := self._all.metrics:
            metrics.passed(target.node, "full" if full else "partial", seconds, changes)
            metrics.in_sync(target.node, in_sync=True)

    def failed(self, target: Target) -> None:
        """See :class:`Observer`."""
        if metrics := self._all.metrics:
            metrics.failed(target.node)
            metrics.in_sync(target.node, in_sync=False)

    def drifted(self, target: Target, what: str) -> None:
        """See :class:`Observer`."""
        message = f"somebody else changed the rules: {what}"
        self._tell(Happening(Node, "", target.node, "Warning", "RulesChanged", message, COMPONENT, target.node))
        if metrics := self._all.metrics:
            metrics.drifted(target.node)

    def refused(self, target: Target, service: Identity, reason: str) -> None:
        """See :class:`Observer`."""
        self._tell(Happening(Service, *service, "Warning", "RulesRefused", reason, COMPONENT, target.node))
        if metrics := self._all.metrics:
            metrics.refused(target.node)

    def holds(self, target: Target, *, services: int, endpoints: int, far: Mapping[str, int]) -> None:
        """See :class:`Observer`."""
        if metrics := self._all.metrics:
            metrics.holds(target.node, services=services, endpoints=endpoints, far=far)

    def read(self, target: Target, *, well: bool) -> None:
        """See :class:`Observer`."""
        if metrics := self._all.metrics:
            metrics.in_sync(target.node, in_sync=well)

    def gone(self, target: Target) -> None:
        """See :class:`Observer`."""
        self._all.freshness.left(target.node)
        if metrics := self._all.metrics:
            metrics.forget(target.node)
            if not target.optional:
                metrics.in_sync(target.node, in_sync=False)  # a series that ends alerts nobody

    def overrun(self, source: Overran) -> None:
        """See :class:`Observer`."""
        if metrics := self._all.metrics:
            metrics.overrun(source)

    def _tell(self, happening: Happening) -> None:
        self._all.loop.call_soon_threadsafe(self._all.happen, happening)
