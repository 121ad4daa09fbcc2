"""How frontends of UDP go: refused first, and away when their flows have ended.

A flow of UDP outlives its frontend in connection tracking for as long as its client sends. Ending it comes after the
change of the rules, when no new one can begin, and whoever was to do so may be killed in between. So what went is not
forgotten before that: until then the frontend is there and refuses, as one without endpoints does. To whoever compares
next it is one too many, whose flows are to be ended.

This module commits nothing, and ends no flows (:mod:`svcnat.agent.flows` does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from svcnat.ruleset.diff import Change, Outline, TableChange
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.layout import SMALLEST_SIZE
from svcnat.ruleset.nouns import Data, Elements, Key, Ruleset, Verdict

_MAPS = ("frontends", "nodeports")
_MOST = SMALLEST_SIZE // 4
"""At once, of a map: it has room for so many more than are wanted (:func:`svcnat.ruleset.diff.is_tight`)."""


def in_two(
    change: Change, have: Mapping[Family, Outline] | None = None, want: Ruleset | None = None
) -> tuple[Change, Change]:
    """A change that refuses what `change` takes away of UDP, and the one that takes it away.

    `have` is what the kernel has, and `want` what it is to have, where that is known: a table that is made anew says
    nothing of what it had, and an address that answers node ports no more nothing of these. A map that is replaced by a
    larger one, and one that loses more than it has room for, take theirs away at once.
    """
    first, second = dict(change), {}
    for family, part in change.items():
        before = have[family].elements if have and family in have else part.stale
        held = before if part.remake else part.stale
        stale, fresh, gone = dict(part.stale), dict(part.fresh), {}
        for name in _MAPS:
            wanted = want[family].elements.get(name, {}) if want else part.fresh.get(name, {})
            going = {
                key: data._replace(action="goto", chain="refuse")
                for key, data in held.get(name, {}).items()
                if key[-2] == "udp" and key not in wanted and isinstance(data, Verdict)
                if not (want and _answers(key, want[family].elements))
            }
            if name == "frontends" and want:
                for key in _silenced(before, want[family].elements):
                    if key not in wanted:
                        going.setdefault(key, Verdict("goto", "refuse"))
            if not going or len(going) > _MOST or name in part.regrow:
                continue
            gone[name] = going
            # One that has no endpoints refuses already, and so does one that was to be taken away before.
            there = {} if part.remake else held.get(name, {})
            new = {key: data for key, data in going.items() if there.get(key) != data}
            stale[name] = {key: data for key, data in stale.get(name, {}).items() if key not in going or key in new}
            fresh[name] = {**part.fresh.get(name, {}), **new}
        if gone:
            first[family] = replace(part, stale=_some(stale), fresh=_some(fresh))
            second[family] = TableChange(family, stale=gone)
    return first, second


def _silenced(have: Elements, want: Elements) -> Iterator[Key]:
    """The node ports of the node's addresses that answer them no more."""
    ports = {key for elements in (have, want) for key in elements.get("nodeports", {}) if key[0] == "udp"}
    for address in have.get("nodeport-ips", {}).keys() - want.get("nodeport-ips", {}).keys():
        for port in ports:
            yield (*address, *port)


def _answers(key: Key, want: Elements) -> bool:
    """True if a node port is served where this element refuses it: whoever left it died, and the address is back."""
    return key[:1] in want.get("nodeport-ips", {}) and key[1:] in want.get("nodeports", {})


def _some(elements: Mapping[str, Mapping[Key, Data]]) -> dict[str, Mapping[Key, Data]]:
    return {name: held for name, held in elements.items() if held}
