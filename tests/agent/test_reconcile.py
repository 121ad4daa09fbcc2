"""One pass against a kernel that does not stand still."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from svcnat.agent.reconcile import reconcile
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.diff import Outline
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Ruleset, Table
from svcnat.ruleset.plan import Settings, plan
from tests.ruleset.build import service, slice_of


def affine(*addresses: str) -> Ruleset:
    one = service("web", "10.96.0.10", session_affinity="ClientIP")
    return {"ip": compile_plan(plan([one], [slice_of("web", *addresses)], Settings()))["ip"]}


class Forgetful(Namespace):
    """A namespace in which a client is remembered when it is read, and forgotten right after."""

    def read(self, tables: Iterable[Table]) -> dict[Family, Outline]:
        tables = tuple(tables)
        (memory,) = tables[0].learned[0].maps
        self.commit(f"add element ip svcnat {memory} {{ 192.0.2.1 timeout 300ms : 10.0.0.1 . 8080 }}")
        found = super().read(tables)
        assert found["ip"].elements[memory]
        time.sleep(0.35)
        return found


@pytest.mark.packets
def test_clients_whose_time_runs_out_do_not_stop_a_pass(empty_netns) -> None:
    """What packets have learned expires at any moment: deleting what has just gone must not undo the change."""
    with Namespace(empty_netns) as namespace:
        reconcile(namespace, affine("10.0.0.1", "10.0.0.2"))
    with Forgetful(empty_netns) as namespace:
        assert reconcile(namespace, affine("10.0.0.2")).change["ip"].forgotten
