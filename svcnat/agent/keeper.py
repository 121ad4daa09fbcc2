"""One network namespace's rules, kept equal to objects that change: incremental while nobody interferes.

A keeper remembers what the kernel holds and at which generation. While that is so, a change of some Services costs what
those Services cost: they are planned and compiled anew, and the difference is committed in one transaction, which the
kernel takes only if nobody has committed since. In every other case (at the start, after somebody else's change, after
a refused commit) a full pass reads the tables and compares.

It runs in one thread and waits for nothing. When to call what is :mod:`svcnat.agent.reconciler`'s decision.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from svcnat.agent import flows, ownership
from svcnat.agent.departures import Departures, Left, departures, everything, left, overdue, unknown
from svcnat.agent.desired import Desired, Identity
from svcnat.agent.host import described, prepare, survey, unguard, unprepare
from svcnat.agent.report import Written
from svcnat.agent.settings import Host, settings_for
from svcnat.agent.tally import Tally
from svcnat.agent.targets import Target
from svcnat.agent.writer import Writer
from svcnat.errors import KernelError, SvcnatError
from svcnat.kernel import lock, netns
from svcnat.kernel.conntrack import Conntrack
from svcnat.kernel.events import HostEvents, Overrun, RulesetEvents
from svcnat.kernel.host import Survey
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset import nftables
from svcnat.ruleset.assembly import Fragment
from svcnat.ruleset.compile import compile_service, doubts
from svcnat.ruleset.layout import GUARD
from svcnat.ruleset.needs import Needs
from svcnat.ruleset.plan import HealthCheck, Plan, ServicePortPlan, Settings
from svcnat.ruleset.planner import Planner

_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0  # seconds between tries of a Service that was refused, doubling
_DOUBLINGS = 10  # more than it takes to come to the last: of a thousand tries, the power of two is no float
_LOCK_PATIENCE = 10.0  # seconds for a command that is writing

_STAY = "flows that nobody serves any more stay until they expire: %s"

_log = logging.getLogger(__name__)
_Ports = tuple[ServicePortPlan, ...]

Overran = Literal["nftables", "rtnetlink"]
"""Whose events can be lost."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A Service whose rules cannot be had: why, how often it was tried, and when it is tried again."""

    reason: str
    tries: int
    again: float


class Keeper:
    """The rules of one target; open it before anything else, and close it."""

    def __init__(
        self,
        target: Target,
        config: Configuration,
        *,
        follows: str,
        identity: str | None,
        force: bool = False,
        opener: Callable[[str | None], Namespace] = Namespace,
        tracker: Callable[[str | None], Conntrack] = Conntrack,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`follows` is what others are told; `identity` is the state file's, None if objects come from manifests."""
        self.target = target
        self.refused: dict[Identity, Refusal] = {}
        self.tally = Tally()
        self._config = config
        self._follows, self._state, self._force = follows, identity, force
        self._opener, self._clock = opener, clock
        self._cleaner = flows.Cleaner(target.netns, tracker)
        self._stack = contextlib.ExitStack()
        self._seen: Survey | None = None
        self._host: Host | None = None
        self._zone = ""
        self._settings, self._planner, self._needs = Settings(), Planner(Settings()), Needs(Settings())
        self._compiled = False
        self._needy = False  # the host may not have what the Services need
        self._began = False  # connection tracking has been looked through
        self._doubts: dict[Identity, list[str]] = {}
        self._warnings: list[str] = []
        self._cuts: list[tuple[float, Identity, Left]] = []
        self._overruns: dict[Overran, int] = {}

    # --- its life --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Become the namespace's writer, and listen to what happens there.

        Raises:
            BusyError: somebody else is, another agent for instance.
            ConflictError: the rules there follow another state file.
            MissingError, PrivilegeError: the namespace cannot be entered.

        """
        where = self.target.netns
        with contextlib.ExitStack() as stack:
            self._place = netns.identity(where)
            self._held = stack.enter_context(lock.writer(where, patience=_LOCK_PATIENCE, agent=self._follows))
            namespace = stack.enter_context(self._opener(where))
            if not self._force:
                ownership.require(namespace, self._state, where)
            self._host_events = stack.enter_context(contextlib.closing(HostEvents(where)))
            events = stack.enter_context(contextlib.closing(RulesetEvents(where)))
            self.writer = Writer(namespace, events, self._origin)
            self._stack = stack.pop_all()

    def close(self, *, cleanup: bool = False) -> None:
        """Let go of the namespace; its rules stay, unless `cleanup`."""
        with self._stack:
            self._cleaner.close()
            if cleanup:
                self.writer.namespace.commit(nftables.render_cleanup(self.writer.namespace.families()))
                unprepare(self.target.netns)

    def is_there(self) -> bool:
        """True if the target's name still means the namespace that was opened."""
        self._held.hang_up()
        try:
            return netns.identity(self.target.netns) == self._place
        except KernelError:
            return False

    def filenos(self) -> tuple[int, int]:
        """What to listen to: :meth:`interfered` reads the first, :meth:`host_changed` the second."""
        return self.writer.events.fileno(), self._host_events.fileno()

    def configure(self, config: Configuration, target: Target) -> None:
        """Take another configuration, and with it perhaps another name of the target; the next pass follows them."""
        self._config, self.target, self._host = config, target, None

    def adopt(self, identity: str | None) -> None:
        """Follow another state file, which took the place of the one that was followed."""
        if identity != self._state:
            self._state = identity
            self.writer.origin = self._origin
            self._host, self._compiled = None, False

    @property
    def _origin(self) -> str:
        return ownership.origin_of(self._state) if self._state else "manifests"

    # --- what others do --------------------------------------------------------------------------------------

    def interfered(self) -> list[str]:
        """What others did to our tables since the last call, in words; then the next pass is a full one."""
        return self.writer.interfered()

    def host_changed(self) -> bool:
        """True if the next pass has to look at the host: what the last one saw of it may have changed."""
        for event in self._host_events.read():
            if isinstance(event, Overrun) or not (self._seen and self._seen.foresees(*event)):
                self._seen = self._host = None
        return self._host is None

    def lost(self) -> tuple[Overran, ...]:
        """Whose events were lost since the last call, once for each time."""
        found: dict[Overran, int] = {
            "nftables": self.writer.events.overruns,
            "rtnetlink": self._host_events.overruns,
        }
        before, self._overruns = self._overruns, found
        return tuple(name for name, count in found.items() for _ in range(count - before.get(name, 0)))

    # --- passes ----------------------------------------------------------------------------------------------

    def follow(self, desired: Desired, services: Collection[Identity]) -> Written:
        """Make the rules equal to `desired`, of which `services` may have changed since the last pass.

        Raises:
            KernelError: the kernel refused, and not because of single Services; the rules are as they were, and the
                next pass does what this one did not.

        """
        planned = self._planner.services
        looked, others = self._adjust(desired)
        due = {each for each, refusal in self.refused.items() if refusal.again <= self._clock()}
        concerned = {*services, *others, *due}
        before = {identity: planned.get(identity, ()) for identity in concerned}
        for identity in concerned:
            self._plan(identity, desired)
        fragments: dict[Identity, tuple[Fragment, ...]] = {}
        for identity in sorted({*self._planner.take(), *due}):
            with self._refusing(identity):
                fragments[identity] = compile_service(self._note(identity))
        try:
            written = self.writer.write(fragments)
            # A full pass may refuse Services that did not change.
            for identity in {*fragments, *written.refused}:
                if reason := written.refused.get(identity):
                    self._refuse(identity, reason)
                else:
                    self.refused.pop(identity, None)
            self._needy |= looked or written.full
            self._prepare(written)
        except BaseException:
            # A later pass will not know what flows this one left behind, nor that the host is to be prepared.
            self._began, self._host = False, None
            raise
        self._clean(fragments.keys() - written.refused.keys(), before, written)
        written.warnings += [*self._warnings, *itertools.chain.from_iterable(self._doubts.values())]
        return written

    def cut(self) -> None:
        """End the connections whose time has come (``terminate=SECONDS``)."""
        now, found = self._clock(), Departures()
        lost: dict[Identity, list[Left]] = {}
        later: dict[Identity, list[Left]] = {}
        for due, identity, each in self._cuts:
            (lost if due <= now else later).setdefault(identity, []).append(each)
        self._cuts = [each for each in self._cuts if each[0] > now]
        for identity, those in lost.items():
            found.update(overdue(those, later.get(identity, ()), self._planner.services.get(identity, ())))
        try:
            self._cleaner.clean(found, self._settings.node_port_addresses)
        except KernelError as error:
            self._began = False  # the next pass looks at everything
            _log.warning(_STAY, error, extra={"node": self.target.node})

    @property
    def due(self) -> float | None:
        """When, by the clock, :meth:`cut` or a pass has something to do again; None if that is not known."""
        times = [due for due, _, _ in self._cuts] + [refusal.again for refusal in self.refused.values()]
        return min(times, default=None)

    def retries(self, now: float) -> bool:
        """True if a Service that was refused is to be tried again."""
        return any(refusal.again <= now for refusal in self.refused.values())

    @property
    def ports(self) -> Mapping[Identity, _Ports]:
        """What each Service has here; it follows this keeper."""
        return self._planner.services

    @property
    def services(self) -> int:
        """How many Services have rules here."""
        return len(self._planner.services)

    @property
    def health_checks(self) -> tuple[HealthCheck, ...]:
        """The health checks that this node answers on :attr:`settings`' addresses for node ports."""
        return self._planner.health_checks

    @property
    def settings(self) -> Settings:
        """What the node knows of itself."""
        return self._settings

    def _adjust(self, desired: Desired) -> tuple[bool, Iterable[Identity]]:
        """Look at the host if that is due; tells whether it was, and which Services other settings concern."""
        looked, zone = self._host is None, desired.zone_of(self.target.node)
        if self._host is None:
            self._seen = survey(self.target.netns, self._config)
            self._host = described(self._seen, self._config)
        elif zone == self._zone:
            return False, ()
        self._zone = zone
        settings = settings_for(self._config, self._host, self.target.node, zone)
        if self._compiled and settings == self._settings:
            return looked, ()
        if self._compiled and self.writer.retune(settings):
            # Only the Services that have other rules for it are written; addresses of the host are none of theirs.
            self._settings = settings
            self._planner.retune(settings)
            return looked, desired.services
        self._compiled = True
        self._settings, self._planner, self._needs = settings, Planner(settings), Needs(settings)
        self.writer.restart(settings)
        for memory in (self.refused, self._doubts):
            memory.clear()
        self.tally = Tally()
        return looked, desired.services

    def _plan(self, identity: Identity, desired: Desired) -> None:
        service = desired.services.get(identity)
        if service is None:
            self._planner.remove(identity)
            self.refused.pop(identity, None)
            return
        with self._refusing(identity):
            self._planner.put(service, desired.slices_of(identity))

    def _note(self, identity: Identity) -> _Ports:
        """The ports of a Service, noted for who wants to know of them."""
        ports = self._planner.services.get(identity, ())
        self._needy |= self._needs.put(identity, ports)
        self.tally.put(identity, ports)
        self._doubts.pop(identity, None)
        if found := doubts(Plan(self._settings, {identity: ports})):
            self._doubts[identity] = found
        return ports

    @contextlib.contextmanager
    def _refusing(self, identity: Identity) -> Iterator[None]:
        """Let no Service keep the others waiting, whatever is wrong with it, or with this program."""
        try:
            yield
        except SvcnatError as error:
            self._refuse(identity, str(error))
        except Exception as error:  # noqa: BLE001 - logged, and shown for this Service
            _log.exception("a mistake of svcnat's", extra={"service": "/".join(identity)})
            self._refuse(identity, f"a mistake of svcnat's: {type(error).__name__}: {error}")

    def _refuse(self, identity: Identity, reason: str) -> None:
        tries = self.refused[identity].tries + 1 if identity in self.refused else 1
        pause = min(_FIRST_RETRY * 2 ** min(tries - 1, _DOUBLINGS), _LAST_RETRY)
        self.refused[identity] = Refusal(reason, tries, self._clock() + pause)

    # --- around the rules ------------------------------------------------------------------------------------

    def _prepare(self, written: Written) -> None:
        """Give the host what the Services need beside the rules, if it may not have it."""
        if self._needy:
            self._warnings = prepare(self.target.netns, self._needs, self._config)
            self._needy = bool(self._warnings)  # what could not be had is tried again with every pass
        if any(GUARD in (*part.sweep, *part.unhook) for change in written.changes for part in change.values()):
            self._warnings += unguard(self.target.netns)

    def _clean(self, changed: Collection[Identity], before: Mapping[Identity, _Ports], written: Written) -> None:
        """End the flows that nobody serves any more, now or later."""
        everywhere = itertools.chain.from_iterable(self._planner.services.values())
        found = Departures()
        for change in self.writer.going:
            found.update(departures(change))
        if self._began:
            for identity in changed:
                lost = left(before.get(identity, ()), self._planner.services.get(identity, ()))
                self._cuts += [(self._clock() + each.seconds, identity, each) for each in lost]
            concerned = (self._planner.services.get(identity, ()) for identity in changed)
            after = everywhere if written.full or written.moved else itertools.chain.from_iterable(concerned)
            ports = [port for port in after if _ends_now(port)]
            gone = [port for port in itertools.chain.from_iterable(before.values()) if _ends_now(port)]
            for change in written.changes:
                found.update(departures(change, ports, gone))
        else:
            # What went before is not known: whoever was here may have died before it came to this.
            ports = list(filter(_ends_now, everywhere))
            for change in written.changes:
                found.update(departures(change, ports))
            found.update(everything(ports))
            self._cuts += [
                (self._clock() + each.seconds, identity, each)
                for identity, ports in self._planner.services.items()
                for each in unknown(ports)
            ]
        try:
            self._cleaner.clean(found, self._settings.node_port_addresses)
            self._began = True
        except KernelError as error:
            self._began = False  # the next pass looks at everything
            written.warnings.append(_STAY % error)
        self.writer.part()


def _ends_now(port: ServicePortPlan) -> bool:
    """True if the flows of a port do not wait for their end; those of UDP would wait for ever."""
    return port.protocol == "udp" or not port.terminate_after
