"""Every golden case: the text, the interpreter and the kernel say the same."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from svcnat import api
from svcnat.agent.reconcile import reconcile
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.interpreter import outcomes
from tests.bed import ADDRESSES, NODE_ADDRESSES, Bed, temporary_bed
from tests.golden import CASES, FOLDER, Row, compiled, rows

# The chance that a good ruleset fails is at most (number of endpoints) * (1 - 1/N)^tries: below 1e-9 for N <= 6.
_TRIES = 130
NODE = frozenset(NODE_ADDRESSES)


def test_there_are_enough_cases() -> None:
    """At least 25 cases, each with packets."""
    assert len(CASES) >= 25
    assert all(rows(case) for case in CASES)


@pytest.mark.parametrize("case", CASES)
def test_text(case: str) -> None:
    """What we send is what a person reviewed; `make golden` rewrites it."""
    assert api.render(compiled(case)) == (FOLDER / case / "ruleset.nft").read_text()


@pytest.mark.parametrize("case", CASES)
def test_interpreter(case: str) -> None:
    """Every row ends as it says, with exact probabilities."""
    ruleset = compiled(case)
    for row in rows(case):
        assert outcomes(ruleset, row.packet, NODE) == row.outcomes, row


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        yield made


@pytest.mark.packets
@pytest.mark.parametrize("case", CASES)
def test_kernel(case: str, bed: Bed) -> None:
    """Every row ends so with real packets, too; the rules of the case before are replaced by the smallest change."""
    with Namespace(bed.netns("node")) as namespace:
        reconcile(namespace, compiled(case))
    for row in rows(case):
        _check(row, bed)


def _check(row: Row, bed: Bed) -> None:
    for _, port in row.reach:
        bed.listen(row.protocol, port, 6 if ":" in row.destination else 4)
    itself = ADDRESSES[row.source][":" in row.destination]
    if row.end:
        seen = bed.probe(row.source, row.destination, row.port, row.protocol)
        assert seen.what == ("silence" if row.end in ("passed", "dropped") else "refused"), row
        return
    reached: set[tuple[str, int]] = set()
    for _ in range(_TRIES):
        seen = bed.probe(row.source, row.destination, row.port, row.protocol)
        assert seen.what == "reached", (row, seen)
        assert (seen.pod, seen.port) in row.reach, (row, seen)
        masqueraded = row.reach[seen.pod, seen.port]
        assert seen.source in (NODE_ADDRESSES if masqueraded else {itself}), (row, seen)
        reached.add((seen.pod, seen.port))
        if reached == set(row.reach) and not row.sticky:
            return
    assert row.sticky, f"{row}: only {reached} in {_TRIES} tries"
    assert len(reached) == 1, f"{row}: wandered over {reached}"
