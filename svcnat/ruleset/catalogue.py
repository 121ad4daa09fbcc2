"""What is declared under a name: every set whose elements svcnat itself adds or deletes.

A change names sets and does not repeat their declarations; whoever writes elements as bytes needs them. Sets that
packets alone fill (limits) are not here, and sizes and counters are a ruleset's own affair.
"""

from __future__ import annotations

from functools import cache, lru_cache

from svcnat.ruleset import layout
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Set
from svcnat.ruleset.selectors import Learner


@lru_cache(maxsize=16384)
def declared(family: Family, name: str) -> Set:
    """The declaration of a set by its name.

    Raises:
        KeyError: svcnat has no such set.

    """
    if name in (constant := _constant(family)):
        return constant[name]
    ident = name.removeprefix("local-").removeprefix("affinity-").removeprefix("port-")
    memories = Learner(ident, "tcp", 0, local=True).sets(family)
    return {memory.name: memory for memory in memories}[name]


@cache
def _constant(family: Family) -> dict[str, Set]:
    return {each.name: each for each in layout.sets(family)}
