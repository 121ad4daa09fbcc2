"""Rows of packet tables: read them, and say how each ends by the interpreter and by the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from svcnat.ruleset.nouns import Ruleset
from tests.bed import PATIENCE
from tests.packets.cluster import ADDRESSES, BRIDGE_ADDRESSES, NODES, TARGET, Cluster
from tests.packets.journeys import KEPT, Declared, End, journey

# The chance that a good ruleset fails is at most (number of endpoints) * (1 - 1/N)^tries: below 1e-9 for N <= 6.
_TRIES = 130
_SILENCE = 0.1  # seconds without any answer that mean that there will be none: answers take a thousandth of that
_FLAVOURS = tuple((protocol, version) for protocol in ("TCP", "UDP") for version in (4, 6))


@dataclass(frozen=True)
class Row:
    """One packet and its end: `endpoints` and whom each of them sees, or, if there are none, ``drop`` or ``refuse``.

    The answers of those that are `astray` do not find back: they see a client that never asked them.
    """

    source: str
    frontend: str
    protocol: str
    version: int
    end: str
    endpoints: tuple[tuple[str, str], ...] = ()
    astray: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for the test of this row."""
        return f"{self.source}>{self.frontend}-{self.protocol}{self.version}"

    def destination(self, services: Mapping[str, Declared]) -> tuple[str, int]:
        """Address and port."""
        if self.frontend in ADDRESSES:
            return ADDRESSES[self.frontend][self.version == 6], TARGET
        name, slash, frontend = self.frontend.partition("/")
        name, colon, port = name.partition(":")
        return services[name].address(frontend if slash else colon + port, self.version)

    @property
    def ends(self) -> dict[End, Fraction]:
        """What the interpreter must say: all endpoints are equally probable."""
        if self.endpoints:
            return {End("reached", name, sees): Fraction(1, len(self.endpoints)) for name, sees in self.endpoints}
        refused = "reset" if self.protocol == "TCP" else "rejected"
        return {End(refused if self.end == "refuse" else "dropped"): Fraction(1)}


def parse(lines: Iterable[str]) -> Iterator[Row]:
    """Read rows, ``source | frontend | endpoints | sees``, each for TCP and UDP over both families.

    A fifth cell, ``IPv4`` or ``IPv6``, confines a row to that family.
    """
    for line in lines:
        source, frontend, reaches, sees, only = ([cell.strip() for cell in line.split("|")] + ["", ""])[:5]
        ended = reaches in ("drop", "refuse")
        pairs = [] if ended else [each.partition("@") for each in reaches.split()]
        assert ended or sees in (KEPT, *NODES), line
        for protocol, version in _FLAVOURS:
            if only in ("", f"IPv{version}"):
                yield Row(
                    source,
                    frontend,
                    protocol,
                    version,
                    reaches if ended else "",
                    tuple((name, own or sees) for name, _, own in pairs),
                )


def check_interpreter(
    row: Row, services: Mapping[str, Declared], rules: Mapping[str, Ruleset], *, bridged: bool
) -> None:
    """The interpreter must say exactly what the row says."""
    address, port = row.destination(services)
    assert journey(rules, row.source, address, port, row.protocol, bridged=bridged) == row.ends


def check_kernel(row: Row, services: Mapping[str, Declared], cluster: Cluster) -> None:
    """Real packets must end as the row says: every endpoint is met, no other is, and each sees whom it should."""
    address, port = row.destination(services)
    if not row.endpoints:
        seen = cluster.probe(row.source, address, port, row.protocol, **_patience(row.end == "refuse"))
        assert seen.what == {"drop": "silence", "refuse": "refused"}[row.end]
        return
    missing = dict(row.endpoints)
    if row.astray and row.protocol == "TCP":
        missing = {name: sees for name, sees in row.endpoints if name not in row.astray}
    for _ in range(_TRIES):
        seen = cluster.probe(
            row.source, address, port, row.protocol, answered=not row.astray, **_patience(not row.astray)
        )
        if seen.what == "silence" and row.astray and row.protocol == "TCP":
            continue
        assert seen.what == "reached", seen
        assert seen.pod in dict(row.endpoints), seen
        sees = dict(row.endpoints)[seen.pod]
        assert seen.source in _addresses(row.source if sees == KEPT else sees), seen
        # A node that masquerades itself shows only by the port. That moves without it where a flow of before had it,
        # and stays with it once in 64,512 times: whoever is met once as it should be is all right.
        if row.source in NODES and seen.moved == (sees == KEPT):
            continue
        missing.pop(seen.pod, None)
        if not missing:
            return
    raise AssertionError(f"not reached as they should be: {missing}")


def _patience(answered: bool) -> dict[str, float]:
    return {"patience": PATIENCE if answered else _SILENCE}


def _addresses(name: str) -> tuple[str, ...]:
    return (*ADDRESSES[name], *BRIDGE_ADDRESSES.get(name, ()))
