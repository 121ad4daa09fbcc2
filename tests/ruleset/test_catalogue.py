"""The catalogue knows every set that svcnat writes elements of, as rulesets declare it."""

from __future__ import annotations

import pytest

from svcnat.ruleset import layout
from svcnat.ruleset.catalogue import declared
from svcnat.ruleset.plan import FAMILIES
from svcnat.ruleset.selectors import Learner


@pytest.mark.parametrize("family", FAMILIES)
def test_sets_are_found_by_name(family) -> None:
    """The constant ones, and the memories of any service port."""
    memories = Learner("1f2e3d", "udp", 60, local=True).sets(family)
    for each in (*layout.sets(family), *memories):
        assert declared(family, each.name) == each


@pytest.mark.parametrize("name", ["affinity", "rates-1f2e3d-5-second", "backends", "", "local-cluster-ips"])
def test_other_names_are_an_error(name) -> None:
    """What svcnat writes no element of has no declaration here."""
    with pytest.raises(KeyError):
        declared("ip", name)
