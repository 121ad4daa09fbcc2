"""Names for objects that controllers make: a prefix and five characters, as Kubernetes' ``generateName`` does."""

from __future__ import annotations

from itertools import count

from svcnat.controllers.world import World
from svcnat.model.objects import Resource

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""apimachinery's rand.SafeEncodeString: no vowels, so no words."""

_SUFFIX = 5
_LONGEST = 63


def safe_text(number: int, length: int) -> str:
    """Return `length` characters that stand for a number."""
    characters = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    return "".join(characters)


def fresh_name(world: World, kind: type[Resource], namespace: str, prefix: str) -> str:
    """Return a name that no object of this kind and namespace has; a long prefix is cut to fit 63 characters."""
    prefix = prefix[: _LONGEST - _SUFFIX]
    for attempt in count():
        drawn = world.draw(f"{kind.__name__}/{namespace}/{prefix}/{attempt}", len(ALPHABET) ** _SUFFIX)
        name = prefix + safe_text(drawn, _SUFFIX)
        if world.get(kind, namespace, name) is None:
            return name
    raise AssertionError("count() ends")  # pragma: no cover
