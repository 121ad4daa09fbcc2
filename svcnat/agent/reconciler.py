"""All targets of an agent and the objects that they follow: one round after another, in one thread.

A round brings the objects up to date, and then every target whose rules may differ. What goes wrong with one target or
one Service is told, tried again later, and keeps nothing else waiting. Rounds read no clock but a monotonic one, so
that a clock that jumps changes nothing. When there is a reason for a round, :mod:`svcnat.agent.agent` knows.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from svcnat import __version__
from svcnat.agent.control import AgentState, Retry, TargetState
from svcnat.agent.desired import Desired, Identity, Touched
from svcnat.agent.keeper import Keeper
from svcnat.agent.longevity import Longevity
from svcnat.agent.rounds import Member, Observer, Reasons, Round
from svcnat.agent.sources import Source
from svcnat.agent.targets import Target
from svcnat.errors import BusyError, KernelError, MissingError, StaleError, SvcnatError
from svcnat.kernel import netns
from svcnat.model.configuration import Configuration
from svcnat.ruleset.plan import HealthCheck, ServicePortPlan

_FIRST_RETRY, _LAST_RETRY = 0.2, 30.0  # seconds between tries of a target that fails, doubling
_OTHERS_RETRY = 0.5  # the last, where others keep changing or owning the tables
_DOUBLINGS = 10  # more than it takes to come to the last: of a thousand tries, the power of two is no float
_TIDY_SECONDS = 30.0  # how long a chain may stay that nothing uses: it may be needed again at once
_MOST_TOLD = 50  # Services that a state names

_log = logging.getLogger(__name__)


class Reconciler:
    """The worker's half of an agent: every method belongs to its one thread."""

    def __init__(
        self,
        source: Source,
        targets: Iterable[Target],
        config: Configuration,
        *,
        observer: Observer | None = None,
        keeping: Callable[[Target, Configuration, Source], Keeper],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keeping` makes the keeper of a target."""
        self.desired = Desired()
        self.trouble = ""
        """Why the objects cannot be read; "" if they can."""
        self._source, self._config = source, config
        self._members = [Member(target) for target in targets]
        self._observer = observer or Observer()
        self._keeping, self._clock = keeping, clock
        self._began = clock()
        self._longevity = Longevity()
        # Somebody still waits for their descriptors, whose numbers must not come to mean others meanwhile.
        self._leaving: list[Keeper] = []

    def open(self) -> None:
        """Read the objects, and become the writer of every target.

        Raises:
            SvcnatError: one of them cannot be had; nothing is open.

        """
        for member in self._members:
            if not member.target.optional:
                netns.identity(member.target.netns)  # a mistyped name shall not leave a new state file behind
        try:
            self._source.open(self._config)
            for member in self._members:
                try:
                    self._open(member)
                except MissingError as error:
                    if not member.target.optional:
                        raise
                    member.error = str(error)
            self._source.changed()
            self._source.refresh(self.desired)
        except BaseException:
            self.close()
            raise

    def close(self, *, cleanup: bool = False) -> None:
        """Let go of everything; rules stay, unless `cleanup`."""
        for member in self._members:
            if keeper := member.keeper:
                member.keeper = None
                try:
                    keeper.close(cleanup=cleanup)
                except SvcnatError as error:  # the others are to be let go all the same
                    _log.error("the rules cannot be removed: %s", error, extra={"node": member.target.node})
        self._let_go()
        self._source.close()

    def _let_go(self) -> None:
        while self._leaving:
            self._leaving.pop().close()

    def round(self, reasons: Reasons) -> Round:
        """Bring everything up to date for these reasons; it raises nothing that can be told instead."""
        done = Round(self._source.revision)
        self._let_go()
        if reasons.config:
            self._configure(reasons.config)
        self._refresh(reasons, done)
        for member in self._members:
            if reasons.look or (reasons.urgent and member.target.optional):
                done.moved |= self._look(member)
            if member.keeper:
                self._bring(member, member.keeper, reasons, done.touched)
        done.revision = self._source.revision
        return done

    def state(self, *, deep: bool = False) -> AgentState:
        """How everything fares; `deep`: after reading the kernel's rules, and looking at all objects."""
        trouble = self.trouble
        if deep and not trouble:
            try:
                self._source.examine()
            except SvcnatError as error:
                trouble = str(error)
        return AgentState(
            pid=os.getpid(),
            version=__version__,
            follows=self._source.follows,
            revision=self._source.revision,
            uptime=self._clock() - self._began,
            targets=tuple(self._tell(member, deep=deep) for member in self._members),
            troubles=tuple(trouble.splitlines()),
        )

    @property
    def due(self) -> float | None:
        """When, by the clock, there is something to do again that nobody will tell us; None if never."""
        times = []
        for member in self._members:
            if member.keeper and member.error:
                times.append(member.again)
            elif member.keeper and member.keeper.due is not None:
                times.append(member.keeper.due)
        return min(times, default=None)

    @property
    def keepers(self) -> Sequence[tuple[Target, Keeper]]:
        """The targets that are there; those that go are closed at the beginning of the next round."""
        return [(member.target, member.keeper) for member in self._members if member.keeper]

    def serving(self) -> list[tuple[Target, Mapping[Identity, tuple[ServicePortPlan, ...]]]]:
        """What each target serves, as a copy."""
        return [(target, dict(keeper.ports)) for target, keeper in self.keepers]

    def health_checks(self) -> list[tuple[Target, tuple[HealthCheck, ...], tuple[str, ...]]]:
        """The health checks of each target, and the addresses on which it answers."""
        return [(target, keeper.health_checks, keeper.settings.node_port_addresses) for target, keeper in self.keepers]

    # --- the steps of a round --------------------------------------------------------------------------------

    def _configure(self, config: Configuration) -> None:
        self._config = config
        try:
            self._source.open(config)
        except SvcnatError as error:
            self._troubled(error)
        for member in self._members:
            if (target := member.target.called_by(config)) != member.target:
                _log.info("the node is called %s now", target.node, extra={"node": member.target.node})
                self._observer.gone(replace(member.target, optional=True))  # what was counted of that name ends
                member.target = target
            if member.keeper:
                member.keeper.configure(config, target)

    def _refresh(self, reasons: Reasons, done: Round) -> None:
        try:
            if (reasons.look and self._source.changed()) or reasons.objects or self.trouble or reasons.config:
                done.touched = self._source.refresh(self.desired)
                for _, keeper in self.keepers:
                    keeper.adopt(self._source.identity)
            if self.trouble:
                self.trouble = ""
                _log.info("the objects can be read again", extra={"follows": self._source.follows})
                for member in self._members:
                    self._observer.read(member.target, well=member.state == "synced")
        except SvcnatError as error:
            self._troubled(error)
        for member in self._members:
            member.pending |= done.touched.services

    def _troubled(self, error: SvcnatError) -> None:
        if str(error) != self.trouble:
            self.trouble = str(error)
            _log.error("the objects cannot be read, so the rules stay as they are: %s", error)
            for member in self._members:
                self._observer.read(member.target, well=False)

    def _look(self, member: Member) -> bool:
        """See whether a target came or went; True if it did."""
        if member.keeper and member.keeper.is_there():
            return False
        if member.keeper:
            _log.warning("%s is gone", member.target.where, extra={"node": member.target.node})
            self._leaving.append(member.keeper)
            member.keeper, member.begun = None, False
            self._observer.gone(member.target)
            return True
        try:
            self._open(member)
        except MissingError as error:
            member.error = str(error)
            return False
        except SvcnatError as error:
            if str(error) != member.error:
                _log.error("the rules cannot be kept: %s", error, extra={"node": member.target.node})
            member.error = str(error)
            return False
        _log.info("%s is there again", member.target.where, extra={"node": member.target.node})
        return True

    def _open(self, member: Member) -> None:
        keeper = self._keeping(member.target, self._config, self._source)
        keeper.open()
        member.keeper, member.error, member.tries, member.begun = keeper, "", 0, False

    def _bring(self, member: Member, keeper: Keeper, reasons: Reasons, touched: Touched) -> None:
        """Make a target's rules equal to the objects, if there is a reason to think that they are not."""
        now = self._clock()
        try:
            self._notice(member, keeper)
            if not member.error and keeper.due is not None and keeper.due <= now:
                keeper.cut()
            host_changed = keeper.host_changed()  # read in any case, or the event loop is woken for it again and again
            wanted = (
                member.pending
                or member.error  # whatever failed, a pass that ends well is what shows that it is over
                or not member.begun
                or host_changed
                or keeper.writer.generation is None
                or member.target.node in touched.nodes
                or keeper.retries(now)
            )
            if wanted:
                self._observer.requested(member.target)
            if wanted and (not member.error or reasons.urgent or member.again <= now):
                self._pass(member, keeper)
            elif now - member.tidied > _TIDY_SECONDS:
                member.tidied = now
                keeper.writer.tidy()
        except SvcnatError as error:
            self._failed(member, error)
        except OSError as error:  # too many files are open, say: that passes, and the rules are kept again
            self._failed(member, KernelError(str(error)))

    def _notice(self, member: Member, keeper: Keeper) -> None:
        """Tell of what others did to the rules, and of what could not be told because it was too much."""
        for what in keeper.interfered():
            member.drift += 1
            _log.warning("somebody else changed the rules: %s", what, extra={"node": member.target.node})
            self._observer.drifted(member.target, what)
        for source in keeper.lost():
            self._observer.overrun(source)

    def _pass(self, member: Member, keeper: Keeper) -> None:
        began = self._clock()
        drifted = keeper.writer.generation is None and member.begun
        known = dict(keeper.refused)
        written = keeper.follow(self.desired, member.pending)
        self._notice(member, keeper)  # our own commit has been told, too: nobody need wake up for it
        added, deleted = written.counts
        member.pending = set()
        member.passed, member.took = self._clock(), self._clock() - began
        member.added, member.deleted = member.added + added, member.deleted + deleted
        for warning in written.warnings:
            if warning not in member.warnings:
                _log.warning("%s", warning, extra={"node": member.target.node})
        member.warnings = tuple(dict.fromkeys(written.warnings))
        if member.error:
            _log.info("the rules can be written again", extra={"node": member.target.node})
        member.error, member.tries = "", 0
        for identity, refusal in keeper.refused.items():
            if known.get(identity, refusal).reason != refusal.reason or identity not in known:
                _log.error(
                    "the rules cannot be had: %s",
                    refusal.reason,
                    extra={"node": member.target.node, "service": "/".join(identity)},
                )
                self._observer.refused(member.target, identity, refusal.reason)
        if written.full:
            words = "rules repaired" if drifted else "rules equal to the objects"
            _log.log(
                logging.INFO if written.swept else logging.WARNING,
                words if written.swept else f"{words}, but what others put into svcnat's table is in use and stays",
                extra={
                    "node": member.target.node,
                    "services": keeper.services,
                    "added": added,
                    "deleted": deleted,
                    "milliseconds": round(1000 * member.took, 1),
                },
            )
        if not member.begun or written.full:
            self._longevity.settle()
        member.begun = True
        self._observer.passed(member.target, full=written.full, seconds=member.took, changes=added + deleted)
        self._observer.holds(
            member.target, services=keeper.services, endpoints=keeper.tally.endpoints, far=keeper.tally.far
        )

    def _failed(self, member: Member, error: SvcnatError) -> None:
        if isinstance(error, MissingError) and member.keeper and not member.keeper.is_there():
            return  # the next look tells that it is gone
        if str(error) != member.error:
            _log.error("the rules cannot be written: %s", error, extra={"node": member.target.node})
        member.error = str(error)
        # Others who are in the way go at any moment; what the kernel refuses, it refuses again.
        last = _OTHERS_RETRY if isinstance(error, StaleError | BusyError) else _LAST_RETRY
        member.again = self._clock() + min(_FIRST_RETRY * 2 ** min(member.tries, _DOUBLINGS), last)
        member.tries += 1
        self._observer.failed(member.target)

    def _tell(self, member: Member, *, deep: bool) -> TargetState:
        keeper, error = member.keeper, member.error
        different: tuple[str, ...] = ()
        if deep and keeper and not error:
            try:
                different = tuple(f"{count} {what}" for what, count in keeper.writer.differences().items())
            except SvcnatError as failure:
                error = str(failure)
        refused = sorted(keeper.refused.items())[:_MOST_TOLD] if keeper else []
        told = {"/".join(identity): refusal for identity, refusal in refused}
        again = {name: Retry(each.tries, max(0.0, each.again - self._clock())) for name, each in told.items()}
        if keeper and member.error:
            again[""] = Retry(member.tries, max(0.0, member.again - self._clock()))
        return TargetState(
            node=member.target.node,
            netns=member.target.netns,
            state=member.state,
            generation=(keeper.writer.generation or 0) if keeper else 0,
            services=keeper.services if keeper else 0,
            endpoints=keeper.tally.endpoints if keeper else 0,
            error=error,
            refused={name: each.reason for name, each in told.items()},
            drift=member.drift,
            passed=self._clock() - member.passed if member.passed else 0.0,
            took=member.took,
            added=member.added,
            deleted=member.deleted,
            warnings=member.warnings[:_MOST_TOLD],
            different=different,
            retries=again,
        )
