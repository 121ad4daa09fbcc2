"""Slots: a frontend's endpoints as a table of equal chances, from which the kernel picks one by number.

A weight is a number of slots. Maglev's table is Google's (Eisenbud et al., NSDI 2016, section 3.4): each endpoint
fills slots in an order of its own, taking turns, so that most slots keep their endpoint when another comes or goes.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from math import gcd

from svcnat.model.extensions import Scheduler
from svcnat.ruleset.endpoints import Backend, Pool

MOST = 1024
"""Slots of a service port with weights (or as many as it has endpoints, if these are more)."""

# Primes: the size of a maglev table. A hundred slots an endpoint keep shares within about a percent of each other, and
# the disruption near the 1/N that must be.
# The size follows the number of endpoints in few, large steps, because a new size moves every client.
_MAGLEV_SIZES = ((10, 1021), (160, 16381), (65535, 65521))


def slots(pool: Pool, scheduler: Scheduler) -> tuple[Backend, ...]:
    """The table: slot number to endpoint. Every slot has the same chance; empty if the pool is."""
    if not pool:
        return ()
    if scheduler == "maglev":
        return _maglev(pool.backends, pool.weights)
    if len(set(pool.weights)) == 1:
        return pool.backends
    return tuple(
        backend for backend, count in zip(pool.backends, shares(pool.weights), strict=True) for _ in range(count)
    )


def shares(weights: tuple[int, ...]) -> tuple[int, ...]:
    """How many slots each weight gets: exactly in proportion if that fits, else scaled by largest remainder.

    Nobody with a weight gets nothing: a share that rounds to 0 becomes 1.
    """
    divisor = gcd(*weights)
    reduced = [weight // divisor for weight in weights]
    total, room = sum(reduced), max(MOST, len(weights))
    if total <= room:
        return tuple(reduced)
    exact = [weight * room / total for weight in reduced]
    counts = [max(1, int(share)) for share in exact]
    spare = room - sum(counts)
    by_remainder = sorted(range(len(exact)), key=lambda index: (int(exact[index]) - exact[index], index))
    for index in by_remainder[: max(spare, 0)]:
        counts[index] += 1
    for _ in range(-spare):  # the ones that were lifted to 1 are paid for by the largest
        counts[max(range(len(counts)), key=lambda index: (counts[index], index))] -= 1
    return tuple(counts)


def is_exact(weights: tuple[int, ...]) -> bool:
    """True if the shares are exactly the weights'; if not, the user is warned."""
    return sum(weights) // gcd(*weights) <= max(MOST, len(weights)) if weights else True


@lru_cache(maxsize=1024)
def _maglev(backends: tuple[Backend, ...], weights: tuple[int, ...]) -> tuple[Backend, ...]:
    size = next(size for most, size in _MAGLEV_SIZES if len(backends) <= most)
    orders = [_order(backend, size) for backend in backends]
    table: list[Backend | None] = [None] * size
    turns = [weight / max(weights) for weight in weights]  # how many slots an endpoint takes a round, at most 1
    credit = [0.0] * len(backends)
    position = [0] * len(backends)
    filled = 0
    while True:
        for index, backend in enumerate(backends):
            credit[index] += turns[index]
            if credit[index] < 1:
                continue
            credit[index] -= 1
            offset, skip = orders[index]
            while table[slot := (offset + position[index] * skip) % size] is not None:
                position[index] += 1
            position[index] += 1
            table[slot] = backend
            filled += 1
            if filled == size:
                return tuple(each for each in table if each is not None)


def _order(backend: Backend, size: int) -> tuple[int, int]:
    """Where an endpoint begins, and by how much it goes on: a permutation of the slots, since the size is prime."""
    raw = blake2b(f"{backend[0]} {backend[1]}".encode(), digest_size=16).digest()
    return int.from_bytes(raw[:8], "big") % size, int.from_bytes(raw[8:], "big") % (size - 1) + 1
