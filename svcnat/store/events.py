"""Events: what svcnat tells about an object, where ``describe`` and ``get events`` show it.

The same again only counts, old ones go, and there are never many: an Event is a hint for a person, not a log. Nothing
follows from one, neither a controller's work nor a change that the agent would read.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Literal

from msgspec.structs import replace

from svcnat.model.kinds import kind_of
from svcnat.model.objects import Event, EventSource, ObjectMeta, ObjectReference, Resource
from svcnat.model.quoting import printable
from svcnat.model.validation.names import dns_subdomain
from svcnat.store.transaction import Transaction

MOST_EVENTS = 1000
"""How many are kept, the newest of them."""

KEPT_SECONDS = 3600
"""For how long after it happened last, as kube-apiserver does."""

LONGEST_MESSAGE = 1024
_LONGEST_WORD = 128


def record(
    transaction: Transaction,
    about: Resource | ObjectReference,
    *,
    type: Literal["Normal", "Warning"],  # noqa: A002 - the API's name of the field
    reason: str,
    message: str,
    component: str,
    host: str = "",
    now: datetime,
) -> Event:
    """Write down that something happened to an object, and return the Event as stored.

    `reason` is one word in CamelCase for machines, `message` a sentence for people: cut to 1,024 characters, with what
    does not print escaped. `component` is the program, `host` the node that it runs on; `now` should know its zone.
    The same from the same program on the same node within the hour is one Event whose count grows, as client-go does
    it. It refuses no text: a transaction does not fail because of what is told about it.
    """
    reference = about if isinstance(about, ObjectReference) else reference_to(about)
    reference = replace(
        reference,
        **{name: printable(getattr(reference, name)) for name in reference.__struct_fields__},
    )
    stamp = now.astimezone(UTC)
    at = stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
    new = Event(
        metadata=ObjectMeta(namespace=reference.namespace or "default"),
        involved_object=reference,
        type=_cut(type, _LONGEST_WORD),
        reason=_cut(reason, _LONGEST_WORD),
        message=_cut(message, LONGEST_MESSAGE),
        source=EventSource(component=_cut(component, _LONGEST_WORD), host=_cut(host, _LONGEST_WORD)),
        reporting_component=_cut(component, _LONGEST_WORD),
        first_timestamp=at,
        last_timestamp=at,
        count=1,
    )
    transaction.forget_events(before=int(stamp.timestamp()) - KEPT_SECONDS, most=MOST_EVENTS)
    if same := transaction.event_like(new):
        return transaction.put(replace(same, count=(same.count or 1) + 1, last_timestamp=at))
    named = replace(new, metadata=replace(new.metadata, name=_name(transaction, new, stamp)))
    stored = transaction.put(named)
    transaction.forget_events(before=0, most=MOST_EVENTS)
    return stored


def reference_to(resource: Resource) -> ObjectReference:
    """Return what an Event says of the object that it is about."""
    metadata, kind = resource.metadata, kind_of(resource)
    return ObjectReference(
        api_version=kind.group_version,
        kind=kind.name,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )


def _name(transaction: Transaction, event: Event, stamp: datetime) -> str:
    """Return a name that no Event has: the object's and the time in hexadecimal nanoseconds, as client-go does it."""
    nanoseconds = int(stamp.timestamp()) * 10**9 + stamp.microsecond * 1000
    namespace = event.metadata.namespace
    while True:
        name = f"{event.involved_object.name}.{nanoseconds:x}"
        if dns_subdomain(name):
            return str(uuid.uuid4())
        if transaction.get(Event, namespace, name) is None:
            return name
        nanoseconds += 1


def _cut(text: str, longest: int) -> str:
    # Escapes make text longer; what is cut off anyway need not be escaped first.
    text = printable(text[:longest])
    return text if len(text) <= longest else text[:longest]
