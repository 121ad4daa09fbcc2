"""Pass after pass over services that change: the kernel ends where a pass over an empty namespace does."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from svcnat import api
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.manifests import Loaded
from svcnat.ruleset.nouns import Ruleset
from tests.packets.chances import short
from tests.packets.cluster import ADDRESSES
from tests.packets.journeys import CLUSTER_CIDR, SERVICE_CIDR, Declared

_STEPS = 12


def objects(services: Iterable[Declared]) -> Loaded:
    documents = [document for service in services for document in service.documents()]
    return api.load(text=msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": documents}))


def configuration(chance: random.Random) -> Configuration:
    four, six = (f"{address}/32" if "." in address else f"{address}/128" for address in ADDRESSES["node-1"])
    return Configuration(
        hostname_override="node-1",
        zone=chance.choice(["zone-1", "zone-2"]),
        cluster_cidr=chance.choice([CLUSTER_CIDR, ""]),
        service_cidr=chance.choice([SERVICE_CIDR, ""]),
        masquerade_all=chance.random() < 0.3,
        node_port_addresses=chance.choice([[four, six], [six], []]),
        localhost_node_ports=chance.random() < 0.3,
    )


def held(netns: str, want: Ruleset) -> dict[str, Mapping[str, Any]]:
    """What the kernel has: sets but for their sizes, which never shrink; chains; elements."""
    with Namespace(netns) as namespace:
        return {
            f"{family}-{part}": found
            for family, outline in namespace.read(want.values()).items()
            for part, found in (
                ("sets", {name: signature for name, (signature, _) in outline.sets.items()}),
                ("chains", outline.chains),
                ("elements", outline.elements),
            )
        }


@pytest.mark.parametrize("seed", range(2))
def test_every_pass_ends_where_a_fresh_one_does(make_netns, seed) -> None:
    """Types, policies, affinity, schedulers, limits, weights, endpoints and the configuration change under the rules.

    No pass fails, the next one has nothing to do, and what changes on the way leaves no trace.
    """
    chance = random.Random(seed)
    long_used, fresh = make_netns(), make_netns()
    for netns in (long_used, fresh):
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
    config = configuration(chance)
    services: dict[int, Declared] = {}
    for _ in range(_STEPS):
        position = chance.randrange(10, 16)
        services.pop(position, None)
        if chance.random() < 0.8:
            services[position] = Declared(f"s{position}", position, **short(chance))
        if chance.random() < 0.2:
            config = configuration(chance)
        loaded = objects(services.values())
        want = api.compile_ruleset(loaded, config)
        api.sync(loaded, long_used, config=config)
        assert not api.sync(loaded, long_used, config=config).change
        api.cleanup(fresh)
        api.sync(loaded, fresh, config=config)
        kept, made = held(long_used, want), held(fresh, want)
        # The table of a family that nobody uses any more stays, empty.
        assert {part: found for part, found in kept.items() if part in made} == made
        assert not any(any(found.values()) for part, found in kept.items() if part not in made and "elements" in part)
