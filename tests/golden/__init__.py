"""Golden cases: manifests, the script they compile to, and packets that run through the interpreter and the kernel.

Each folder is a case: ``manifests.yaml``, perhaps ``config.yaml``, ``ruleset.nft`` (what we send, never what nft
lists), and ``packets.yaml``, whose rows are::

    from: pod-1 .. pod-6, node, client      to: ADDRESS:PORT/PROTOCOL
    reach: {pod-2:8080: itself}             every endpoint it may reach, and whether that sees the client itself or a
                                            node; all are equally probable
    end: reset | rejected | passed          or how it ends instead; "passed": no rule touched it
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import yaml

from svcnat import api
from svcnat.ruleset.interpreter import Outcome, Packet
from svcnat.ruleset.nouns import Ruleset
from tests.bed import ADDRESSES

FOLDER = Path(__file__).parent
CASES = sorted(file.parent.name for file in FOLDER.glob("*/manifests.yaml"))
_TO = re.compile(r"\[?(?P<address>[^]]+?)\]?:(?P<port>\d+)/(?P<protocol>TCP|UDP|SCTP)")


@dataclass(frozen=True)
class Row:
    """One packet and what becomes of it; `reach` maps (pod, port) to True if the pod sees a node's address."""

    source: str
    destination: str
    port: int
    protocol: str
    reach: dict[tuple[str, int], bool]
    end: str

    @property
    def packet(self) -> Packet:
        """The row's packet for the interpreter."""
        return Packet(
            ADDRESSES[self.source][":" in self.destination],
            self.destination,
            self.protocol.lower(),
            self.port,
            local=self.source == "node",
        )

    @property
    def outcomes(self) -> dict[Outcome, Fraction]:
        """What the interpreter must say, exactly."""
        if self.end:
            return {Outcome(self.end): Fraction(1)}
        if all(ADDRESSES[pod][":" in self.destination] == self.destination for pod, _ in self.reach):
            return {Outcome("passed"): Fraction(1)}  # a pod's own address: nothing to translate
        return {
            Outcome("translated", ADDRESSES[pod][":" in self.destination], port, masqueraded): Fraction(
                1, len(self.reach)
            )
            for (pod, port), masqueraded in self.reach.items()
        }


def rows(case: str) -> list[Row]:
    """The packets of a case."""
    parsed = []
    for row in yaml.safe_load((FOLDER / case / "packets.yaml").read_text()):
        to = _TO.fullmatch(row["to"])
        assert to, row
        reach = {
            (pod, int(port)): {"node": True, "itself": False}[seen]
            for target, seen in row.get("reach", {}).items()
            for pod, _, port in [target.partition(":")]
        }
        assert bool(reach) != bool(row.get("end")), row
        parsed.append(Row(row["from"], to["address"], int(to["port"]), to["protocol"], reach, row.get("end", "")))
    return parsed


def compiled(case: str) -> Ruleset:
    """The ruleset of a case."""
    config = FOLDER / case / "config.yaml"
    return api.compile_ruleset(
        api.load(FOLDER / case / "manifests.yaml"), api.configuration(config) if config.exists() else None
    )
