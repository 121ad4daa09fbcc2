"""What probes found out about objects of manifests, for an agent that has no state file to write it into.

It is kept in memory, and in a file that the next agent reads: or endpoints that work would be unready from an agent's
start to their first success, and those that fail would be back until they have failed again. What such a file says
only bridges that time; one that is damaged, somebody else's, or of other manifests, is as good as none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from svcnat.agent.probes import Result
from svcnat.controllers.readiness import endpoint_addresses, with_result
from svcnat.kernel import files
from svcnat.model.addresses import canonical
from svcnat.model.objects import Endpoints, EndpointSlice, Pod, Resource
from svcnat.model.pods import addresses_of

_log = logging.getLogger(__name__)
_Place = tuple[str, str, str]  # kind, namespace and name


class _Finding(Struct, frozen=True):
    kind: str
    namespace: str
    name: str
    part: str
    address: str
    ready: bool


class _File(Struct, frozen=True):
    follows: str
    findings: list[_Finding]


class Findings:
    """The newest result of each probe, as long as it is about what the object says."""

    def __init__(self, follows: str, file: Path | None = None) -> None:
        """Begin with what is in `file`, if that was written for an agent that followed the same."""
        self._follows, self._file = follows, file
        self._found: dict[_Place, dict[str, _Finding]] = {}
        self._trouble = ""
        for each in self._read():
            self._add(each)

    def _read(self) -> Sequence[_Finding]:
        if self._file is None:
            return ()
        try:
            read = msgspec.json.decode(files.read(self._file, own=True), type=_File)
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            _log.warning("what probes found out before is not known: %s: %s", self._file, error)
            return ()
        return read.findings if read.follows == self._follows else ()

    def _add(self, one: _Finding) -> None:
        self._found.setdefault((one.kind, one.namespace, one.name), {})[one.part] = one

    def take(self, results: Iterable[Result]) -> None:
        """Remember what probes found out; that it cannot be written is told, and no reason to forget it."""
        for each in results:
            key = each.key
            self._add(_Finding(key.kind, key.namespace, key.name, key.part, each.address, each.ready))
        if self._file is None:
            return
        every = [each for parts in self._found.values() for each in parts.values()]
        trouble = ""
        try:
            files.replace(self._file, msgspec.json.encode(_File(self._follows, every)))
        except OSError as error:
            trouble = f"{self._file}: {error.strerror}"
        if trouble and trouble != self._trouble:
            _log.warning("the next agent will not know what probes found out: %s", trouble)
        self._trouble = trouble

    def keep(self, resources: Iterable[Resource]) -> None:
        """Forget what was found out about all other objects, and about what these do not say any more."""
        found = {}
        for resource in resources:
            place = _place(resource)
            parts = {part: each for part, each in self._found.get(place, {}).items() if _concerns(each, resource)}
            if parts:
                found[place] = parts
        self._found = found

    def added_to(self, resource: Resource, now: str) -> Resource:
        """The object with what probes found out about it; `now` is RFC 3339."""
        for each in self._found.get(_place(resource), {}).values():
            if _concerns(each, resource):
                resource = with_result(resource, each.part, each.ready, now)
        return resource


def _place(resource: Resource) -> _Place:
    return type(resource).__name__, resource.metadata.namespace, resource.metadata.name


def _concerns(one: _Finding, resource: Resource) -> bool:
    """False of a Pod that has another address now: it is another one, of which nothing is known; so for endpoints."""
    match resource:
        case Pod():
            return one.address in map(canonical, addresses_of(resource)[:1])
        case EndpointSlice() | Endpoints():
            return one.part in endpoint_addresses(resource)
    return False
