"""Slots: exact shares, and a maglev table that hardly moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcnat.ruleset.endpoints import Pool
from svcnat.ruleset.slots import MOST, is_exact, shares, slots


def pool(*weights: int) -> Pool:
    return Pool(tuple((f"10.0.{n // 250}.{n % 250 + 1}", 80) for n in range(len(weights))), weights)


def test_no_endpoints_no_slots() -> None:
    """An empty pool has no table, whatever the scheduler."""
    assert slots(Pool(), "random") == slots(Pool(), "maglev") == ()


@pytest.mark.parametrize(
    ("weights", "counts"),
    [((1, 2, 7), (1, 2, 7)), ((10, 20, 70), (1, 2, 7)), ((5, 5), (1, 1)), ((1000, 1000, 1), (512, 511, 1))],
)
def test_a_weight_is_a_number_of_slots(weights, counts) -> None:
    """Exactly in proportion while that fits, as few slots as possible."""
    assert tuple(Counter(slots(pool(*weights), "random")).values()) == counts


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=1500).map(tuple))
def test_shares_always_fit_and_nobody_gets_nothing(weights) -> None:
    """At most 1,024 slots, or one an endpoint; largest remainder where they must be scaled."""
    counts = shares(weights)
    assert min(counts) >= 1
    assert sum(counts) <= max(MOST, len(weights))
    if is_exact(weights):
        assert all(count * sum(weights) == weight * sum(counts) for count, weight in zip(counts, weights, strict=True))


@pytest.mark.parametrize(("heavy", "light"), [((1000, 900), 1), ((1000,), 1100)])
def test_the_largest_pay_for_those_that_are_lifted(heavy, light) -> None:
    """A share that rounds to nothing becomes one slot, and the sum still fits."""
    got = shares((*heavy, *[1] * light))
    assert set(got[len(heavy) :]) == {1}
    assert sum(got) <= max(MOST, len(got))


def test_nothing_is_exact_enough() -> None:
    """No weights, no warning."""
    assert is_exact(())


def test_maglev_spreads_evenly() -> None:
    """Shares differ by little (the paper's section 5.3: about a percent at a hundred slots an endpoint)."""
    counts = Counter(slots(pool(*[1] * 10), "maglev"))
    assert sum(counts.values()) == 1021
    assert max(counts.values()) - min(counts.values()) <= 2


def test_maglev_knows_weights() -> None:
    """An endpoint takes turns in proportion."""
    counts = [count for _, count in sorted(Counter(slots(pool(1, 2, 7), "maglev")).items())]
    assert [round(10 * count / 1021) for count in counts] == [1, 2, 7]


@pytest.mark.parametrize("size", [3, 10, 50])
def test_maglev_moves_under_two_nths_when_one_endpoint_goes(size) -> None:
    """Disruption: 1/N of the slots must move, a few more do."""
    everyone = pool(*[1] * size)
    before = slots(everyone, "maglev")
    for gone in range(size):
        fewer = Pool(everyone.backends[:gone] + everyone.backends[gone + 1 :], (1,) * (size - 1))
        after = slots(fewer, "maglev")
        moved = sum(old != new for old, new in zip(before, after, strict=True))
        assert moved < 2 / size * len(before)
