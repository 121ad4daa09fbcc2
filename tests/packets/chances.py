"""Services by chance, for tests of what nobody thought of: the same generator of numbers gives the same ones."""

from __future__ import annotations

import random
from typing import Any

from tests.packets.cluster import HOME, NODES


def _endpoint(chance: random.Random) -> dict[str, Any]:
    leaving = {"ready": False, "serving": True, "terminating": True}
    fields: dict[str, Any] = {"conditions": chance.choice([{}, {}, {}, {"ready": False}, leaving])}
    if chance.random() < 0.5:
        fields["hints"] = {"forZones": [{"name": chance.choice(["zone-1", "zone-2"])}]}
    return fields


def short(chance: random.Random) -> dict[str, Any]:
    """A service in short."""

    def maybe(share: float, **fields: Any) -> dict[str, Any]:
        return fields if chance.random() < share else {}

    kind = chance.choice(["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"])
    ranges = chance.sample(
        ["192.0.2.0/24", "10.244.0.0/16", "172.30.0.11/32", "2001:db8:c::/64", "fd00:10:244::/64"], 2
    )
    places = chance.sample([*HOME, *NODES], chance.randint(0, 4))
    return {
        "spec": {
            "type": kind,
            **maybe(0.3, internalTrafficPolicy="Local"),
            **maybe(0.5 * (kind != "ClusterIP"), externalTrafficPolicy="Local"),
            **maybe(0.3 * (kind == "LoadBalancer"), loadBalancerSourceRanges=ranges),
            **maybe(0.2, sessionAffinity="ClientIP"),
        },
        "endpoints": [{place: _endpoint(chance)} for place in places],
        "weights": {place: chance.choice([0, 1, 2]) for place in places if chance.random() < 0.3},
        "annotations": {
            **maybe(0.6, **{"svcnat.io/scheduler": chance.choice(["round-robin", "source-hash", "maglev"])}),
            **maybe(0.2, **{"svcnat.io/max-connections": "1000"}),
        },
    }
