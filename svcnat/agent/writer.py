"""What the kernel holds of one ruleset, remembered, and how a change of some Services gets there.

While nobody else commits, the ruleset's generation proves that the kernel holds what was written last: a change is the
difference to that, and its elements are written as a compare-and-swap on the generation. Somebody else's commit that
left our tables alone moves the generation on; every other one, a refusal, and a lost event make the next write a full
pass, which reads the tables (:mod:`svcnat.agent.reconcile`). It decides nothing about Services: they come compiled.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from svcnat.agent.hearing import after, doubts, strangers, touches_structure, words
from svcnat.agent.reconcile import reconcile, sweep
from svcnat.agent.report import Report, Written
from svcnat.errors import BusyError, KernelError, PrivilegeError, StaleError, TooLargeError
from svcnat.kernel.batch import elements_only
from svcnat.kernel.events import Commit, Overrun, RulesetEvents
from svcnat.kernel.nfnetlink import following, is_newer
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset import farewell, nftables, regrowth
from svcnat.ruleset.assembly import Assembly, Fragment
from svcnat.ruleset.diff import Change, TableChange, diff, forget
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Ruleset
from svcnat.ruleset.plan import Identity, Settings

_LARGE = 2_000  # elements: beyond, somebody who listens to the commit makes it slow, and is overrun by it
_ROUNDS = 20  # full passes in a row that others interrupt
_TRIES = 20  # commits in a row that others, who leave our tables alone, come before

_log = logging.getLogger(__name__)
_Fragments = Mapping[Identity, tuple[Fragment, ...]]
_WHOLE = (StaleError, TooLargeError, PrivilegeError, BusyError)  # what no single Service can be blamed for


class Writer:
    """The writer of one namespace's tables; its lock is somebody else's business."""

    def __init__(self, namespace: Namespace, events: RulesetEvents, origin: str) -> None:
        """`origin` is what the ``about`` chain says."""
        self.namespace, self.events = namespace, events
        self.generation: int | None = None
        """At which the kernel holds what was written last; None if that is not known."""
        self.origin = origin
        self.going: list[Change] = []
        """What is still to be taken away by :meth:`part`, when its flows have ended."""
        self._unheard: list[str] = []
        self._deaf = False  # nobody listened to a commit of the pass that goes on
        self._distrust = False  # somebody may have put a rule in the place of one of ours, with its comment
        self._retuned = False  # elements of the node itself may wait to be written
        self._assembly = Assembly(Settings(), origin)

    def retune(self, settings: Settings) -> bool:
        """Take other settings, which the next write follows; False if it takes a restart, and nothing has changed."""
        if not self._assembly.retune(settings):
            return False
        self._settings, self._retuned = settings, True
        return True

    def restart(self, settings: Settings) -> None:
        """Forget every Service: all are written again, with other settings, in the next write."""
        self._assembly = Assembly(settings, self.origin)
        self._settings, self._retuned = settings, False
        self.generation = None

    # --- what others do --------------------------------------------------------------------------------------

    def interfered(self) -> list[str]:
        """Read what was committed meanwhile, by anybody; the answer is what others did to our tables, in words."""
        foreign, self._unheard = self._unheard, []
        for event in self.events.read():
            if isinstance(event, Overrun):
                if self.generation is not None and self.namespace.generation() != self.generation:
                    self.generation, self._distrust = None, True
                    foreign.append("more happened than could be read")
            elif self.generation is None:
                self._distrust |= touches_structure(event)  # whoever it was: a full pass is due
                foreign += map(words, strangers([event]))
            elif self._is_next(event):
                if event.ours:
                    self.generation = None
                    self._distrust |= touches_structure(event)
                    foreign.append(words(event))
                else:
                    self.generation = event.generation
        return foreign

    def _is_next(self, event: Commit) -> bool:
        """True if a commit came after what is known; our own, and older ones, did not."""
        assert self.generation is not None
        if not is_newer(event.generation, self.generation):
            return False
        if event.generation != following(self.generation):
            self.generation, self._distrust = None, True  # what came between was lost
            return False
        return True

    # --- writing ---------------------------------------------------------------------------------------------

    def write(self, fragments: _Fragments) -> Written:
        """Give Services these fragments, and make the kernel's tables equal to all that were given.

        Services that the kernel refuses keep what they had, or get nothing; the others do not wait for them.

        Raises:
            KernelError: the kernel refuses, whatever the Services; the rules are as they were.

        """
        written, wanted = Written(), dict(fragments)
        if self.going:
            self.generation = None  # whoever was to end those flows did not come to it: they are found once more
            self.going.clear()
        try:
            with contextlib.suppress(StaleError, TooLargeError):
                self._write_some(list(fragments), fragments, written)
                if self._retuned and self.generation is not None:
                    self._commit(written)
                    self._retuned = False
                if self.generation is not None:
                    return written
            self.generation = None
            for identity in fragments.keys() - written.refused.keys():
                self._assembly.put(identity, fragments[identity])
            self._write_all(written, wanted)
        except BaseException:
            # The next write is a full pass, and tries all of it: nobody has been told of any refusal.
            self.generation = None
            for identity, each in wanted.items():
                self._assembly.put(identity, each)
            raise
        return written

    def _write_some(self, group: Sequence[Identity], fragments: _Fragments, written: Written) -> None:
        """Commit the Services of a group together; if that is refused, each half by itself."""
        if not group or self.generation is None:
            return  # what is left is for a full pass
        for identity in group:
            self._assembly.put(identity, fragments[identity])
        try:
            self._commit(written)
        except _WHOLE:
            self._assembly.undo()
            raise
        except KernelError as error:
            self._assembly.undo()
            if len(group) == 1:
                written.refused[group[0]] = str(error)
                return
            middle = len(group) // 2
            self._write_some(group[:middle], fragments, written)
            self._write_some(group[middle:], fragments, written)

    def _commit(self, written: Written) -> None:
        """Commit what the assembly has that the kernel has not; sweeping is left to :meth:`tidy`."""
        memories = self._assembly.learned()
        change = {
            family: replace(part, sweep=(), sweep_sets=())
            for family, part in self._with_forgotten(self._assembly.change(), memories).items()
            if not part.sweeps_only
        }
        if not change:
            self._assembly.settle(swept=False)
            return
        silenced = any("nodeport-ips" in part.stale for part in change.values())
        first, going = farewell.in_two(change, want=self._assembly.ruleset() if silenced else None)
        large = sum(part.size for part in first.values()) > _LARGE
        with self._quietly(first):
            self._send_all(first, large=large)
        self._assembly.settle(swept=False)
        written.changes.append(change)
        if going:
            self.going.append(going)
        if large and self.namespace.generation() != self.generation:
            self.generation, self._distrust = None, True  # while nobody listened, somebody came
        if memories and self.generation is not None:
            try:
                self._forget_late(memories, written)
            except KernelError:
                self.generation = None  # the change is there: a full pass looks at what was learned

    @contextlib.contextmanager
    def _quietly(self, change: Change) -> Iterator[None]:
        """Do not listen to a commit of our own if it is large."""
        if sum(part.size for part in change.values()) <= _LARGE:
            yield
            return
        self._deaf = True
        self.events.pause()
        try:
            yield
        finally:
            self.events.resume()

    def _send_all(self, change: Change, *, large: bool) -> None:
        """Commit a change, in the steps that it takes; `generation` is None after it if others came between.

        Raises:
            KernelError: the kernel refuses, and nothing has changed.
            StaleError: somebody else came before, or between two steps.

        """
        assert self.generation is not None
        mark = str(self.generation)
        twins = regrowth.twins(change, mark)
        for position, step in enumerate((*regrowth.steps(change, mark), *([twins] if twins else []))):
            if self.generation is None:
                raise StaleError("somebody else changed the rules")
            try:
                generation = self._retrying(partial(self._send, step))
            except KernelError as error:
                if not position or isinstance(error, StaleError):
                    raise
                raise StaleError(f"a set cannot be replaced: {error}") from error
            self.generation = generation if large or elements_only(step) else self._heard(self.generation)

    def _send(self, change: Change) -> int:
        """Commit a change, if the kernel holds what it was computed from; the answer is the generation after it."""
        assert self.generation is not None
        if elements_only(change):
            return self.namespace.commit_elements(change, generation=self.generation)
        if self.namespace.generation() != self.generation:
            raise StaleError("somebody else changed the rules")
        self.namespace.commit(nftables.render_change(change) or nftables.render_sweep(change))
        return following(self.generation)

    def _heard(self, since: int) -> int | None:
        """The generation after a commit of ours that was no compare-and-swap; None if it was not the only one."""
        heard = self.events.read()
        if (generation := after(heard, since)) is None:
            self._unheard += map(words, strangers(heard))
            self._distrust = True
        return generation

    def _retrying(self, commit: Callable[[], int]) -> int:
        """Commit, again if others came before who left our tables alone."""
        for _ in range(_TRIES):
            known = self.generation
            try:
                return commit()
            except StaleError:
                self._unheard += self.interfered()
                if self.generation in (None, known):
                    raise
        raise StaleError("other programs keep changing nftables in this network namespace")

    def _with_forgotten(self, change: Change, memories: Ruleset) -> Change:
        """The change, and what clients remember that they must not."""
        whole = dict(change)
        for family, table in memories.items():
            part = whole.get(family, TableChange(family))
            if not part.remake and (found := forget(self.namespace.remembered(table), table)):
                whole[family] = replace(part, forgotten=found.forgotten)
        return whole

    def _forget_late(self, memories: Ruleset, written: Written) -> None:
        """Look once more: a packet that was translated before the commit is learned after it."""
        late = self._with_forgotten({}, memories)
        if late:
            self.generation = self._retrying(partial(self._send, late))
            written.changes.append(late)

    def part(self) -> None:
        """Take away the frontends of UDP whose flows have ended; if that fails, the next write is a full pass."""
        going, self.going = self.going, []
        for change in going:
            if self.generation is None:
                return
            try:
                self.generation = self._retrying(partial(self._send, change))
            except KernelError:
                self.generation = None

    def tidy(self) -> None:
        """Remove chains and sets that nothing uses any more; nobody's packets meet them."""
        change = self._assembly.change()
        if self.generation is None or not change:
            return
        if not nftables.render_sweep(change) or self.namespace.generation() != self.generation:
            return
        if sweep(self.namespace, change):
            self.generation = self._heard(self.generation)
            self._assembly.settle()
        elif self.namespace.generation() != self.generation:
            self.generation = None

    # --- full passes -----------------------------------------------------------------------------------------

    def _write_all(self, written: Written, wanted: dict[Identity, tuple[Fragment, ...]]) -> None:
        """Read the tables, and make them equal, until nobody came between; `wanted` gets what is set apart.

        Nobody listens while one writes a lot. If others came then, whatever they did, the next one has little to write,
        and listens: others who do not touch our tables, but never stop, do not disturb it.
        """
        written.full = True
        for _ in range(_ROUNDS):
            self._deaf = False
            report = self._pass(written, wanted)
            written.changes.append(report.change)
            self.going = [report.going] if report.going else []
            written.warnings += report.warnings
            self._assembly.adopt(report.had, report.change, swept=report.swept)
            known, doubtful = self._overheard(report)
            if known is not None and (self._distrust or not doubtful):
                self.generation, self._distrust, written.swept = known, False, report.swept
                return
            self._distrust |= doubtful
        raise StaleError("other programs keep changing svcnat's tables in this network namespace")

    def _overheard(self, report: Report) -> tuple[int | None, bool]:
        """The generation that a pass ended at, None if it was not alone; and if what it read may only look right."""
        heard = self.events.read()
        self._unheard += map(words, strangers(heard))
        doubtful = doubts(heard, report.commits)
        if self.namespace.generation() == following(report.since, report.commits):
            return report.generation, doubtful
        return (None, True) if self._deaf else (after(heard, report.since, report.commits), doubtful)

    def _pass(self, written: Written, wanted: dict[Identity, tuple[Fragment, ...]]) -> Report:
        make = partial(reconcile, self.namespace, distrust=self._distrust, quietly=self._quietly)
        try:
            return make(self._assembly.ruleset())
        except _WHOLE:
            raise
        except KernelError as error:
            self._set_apart(error, written, wanted)
            return make(self._assembly.ruleset())

    def _set_apart(self, error: KernelError, written: Written, wanted: dict[Identity, tuple[Fragment, ...]]) -> None:
        """Find the Services because of which the kernel refuses everything, and go on without them.

        Raises:
            KernelError: `error`, if it is none of them.

        """
        needed = [family for family, table in self._assembly.ruleset().items() if any(table.elements.values())]
        if all(map(self._refuses_empty, needed)):
            raise error
        found = dict(self._culprits(list(self._assembly.fragments)))
        if not found:
            raise error
        _log.warning("the kernel refuses all rules because of those of %d Services", len(found))
        for identity, reason in found.items():
            wanted.setdefault(identity, self._assembly.fragments[identity])
            self._assembly.drop(identity)
            written.refused[identity] = str(reason)

    def _refuses_empty(self, family: Family) -> bool:
        """True if the kernel would not take a table without any Service."""
        bare = {family: Assembly(self._settings, self.origin).ruleset()[family]}
        try:
            self.namespace.check(nftables.render_change(diff({}, bare)))
        except _WHOLE:
            raise
        except KernelError:
            return True
        return False

    def _culprits(self, group: Sequence[Identity]) -> list[tuple[Identity, KernelError]]:
        refusal = self._refusal(group) if group else None
        if refusal is None:
            return []
        if len(group) == 1:
            return [(group[0], refusal)]
        middle = len(group) // 2
        return [*self._culprits(group[:middle]), *self._culprits(group[middle:])]

    def _refusal(self, group: Sequence[Identity]) -> KernelError | None:
        """What the kernel would say to the rules of these Services alone; it is only asked."""
        trial = Assembly(self._settings, self.origin)
        for identity in group:
            trial.put(identity, self._assembly.fragments[identity])
        try:
            reconcile(self.namespace, trial.ruleset(), dry_run=True)
        except _WHOLE:
            raise
        except KernelError as error:
            return error
        return None

    def differences(self) -> dict[str, int]:
        """Read the tables, and count what is too much and too little of them: nothing, if nobody interfered."""
        self.tidy()
        report = reconcile(self.namespace, self._assembly.ruleset(), dry_run=True)
        return {what: count for what, count in report.counts.items() if count}
