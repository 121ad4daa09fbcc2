"""Golden cases: manifests, the script they compile to, and packets that run through the interpreter and the kernel.

Each folder is a case: ``manifests.yaml``, perhaps ``config.yaml``, ``ruleset.nft`` (what we send, never what nft
lists), and ``packets.yaml``, whose rows are::

    from: pod-1 .. pod-6, node, client      to: ADDRESS:PORT/PROTOCOL
    reach: {pod-2:8080: itself}             every endpoint it may reach, and whether that sees the client itself or a
                                            node; all are equally probable, unless `shares` says otherwise
    sticky: true                            in the kernel, a client stays with the first of them that it met
    end: reset | rejected | dropped         or how it ends instead; also "passed": no rule touched it, nobody answers;
                                            "unheard": no rule touched it, and the node itself refuses it
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import yaml

from svcnat import api
from svcnat.agent.settings import Host
from svcnat.ruleset.interpreter import Outcome, Packet
from svcnat.ruleset.nouns import Ruleset
from tests.bed import ADDRESSES, NODE_ADDRESSES

FOLDER = Path(__file__).parent
HOST = Host(addresses=tuple(sorted(NODE_ADDRESSES - {"169.254.1.1"})), primary=ADDRESSES["node"])
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
    shares: dict[tuple[str, int], int]
    sticky: bool

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
            return {Outcome("passed" if self.end == "unheard" else self.end): Fraction(1)}
        if all(ADDRESSES[pod][":" in self.destination] == self.destination for pod, _ in self.reach):
            return {Outcome("passed"): Fraction(1)}  # a pod's own address: nothing to translate
        return {
            Outcome("translated", ADDRESSES[pod][":" in self.destination], port, masqueraded): Fraction(
                self.shares[pod, port], sum(self.shares.values())
            )
            for (pod, port), masqueraded in self.reach.items()
        }


def rows(case: str) -> list[Row]:
    """The packets of a case."""
    parsed = []
    for row in yaml.safe_load((FOLDER / case / "packets.yaml").read_text()):
        to = _TO.fullmatch(row["to"])
        assert to, row
        reach = {_target(text): {"node": True, "itself": False}[seen] for text, seen in row.get("reach", {}).items()}
        shares = {_target(text): share for text, share in row.get("shares", {}).items()} or dict.fromkeys(reach, 1)
        assert bool(reach) != bool(row.get("end")), row
        parsed.append(
            Row(
                row["from"],
                to["address"],
                int(to["port"]),
                to["protocol"],
                reach,
                row.get("end", ""),
                shares,
                row.get("sticky", False),
            )
        )
    return parsed


def _target(text: str) -> tuple[str, int]:
    pod, _, port = text.partition(":")
    return pod, int(port)


def compiled(case: str) -> Ruleset:
    """The ruleset of a case."""
    config = FOLDER / case / "config.yaml"
    return api.compile_ruleset(
        api.load(FOLDER / case / "manifests.yaml"),
        api.configuration(config) if config.exists() else None,
        host=HOST,
        node="node-1",
    )
