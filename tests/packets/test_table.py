"""Every row of table.yaml ends as it says, by the interpreter and by the kernel of two nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from svcnat.model.configuration import Configuration
from tests.packets import rows
from tests.packets.cluster import Cluster, temporary_cluster
from tests.packets.journeys import CLUSTER_CIDR, SERVICE_CIDR, compiled, declare

GROUPS = yaml.safe_load(Path(__file__).with_name("table.yaml").read_text())
SERVICES = declare({name: short for group in GROUPS for name, short in group["services"].items()})
ROWS = [row for group in GROUPS for row in rows.parse(group["rows"])]
CONFIGURATION = Configuration(cluster_cidr=CLUSTER_CIDR, service_cidr=SERVICE_CIDR)
RULES = compiled(SERVICES, CONFIGURATION)
_AT_ONCE = 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    names = list(SERVICES)
    with temporary_cluster() as made:
        # In parts: in a user namespace net.core.wmem_max limits what one transaction can hold.
        for part in range(_AT_ONCE, len(names) + _AT_ONCE, _AT_ONCE):
            made.program(compiled({name: SERVICES[name] for name in names[:part]}, CONFIGURATION))
        yield made


def test_there_are_enough_rows() -> None:
    """At least 150, no two of them the same, over both protocols and both families."""
    assert len(ROWS) >= 150
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({(row.protocol, row.version) for row in ROWS}) == 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_interpreter(row) -> None:
    """Through the rules of each node on its way, with exact probabilities; translated once, it is not so again."""
    rows.check_interpreter(row, SERVICES, RULES, bridged=False)


@pytest.mark.packets
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_kernel(row, cluster) -> None:
    """With real packets."""
    rows.check_kernel(row, SERVICES, cluster)
