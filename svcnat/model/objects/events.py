"""core/v1 Event: what happened to an object, and how often."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from svcnat.model.objects.metadata import ObjectReference, Resource


class EventSource(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 EventSource: the program that reports, and the node on which it runs."""

    component: str = ""
    host: str = ""


class EventSeries(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 EventSeries: how newer programs count."""

    count: int | None = None
    last_observed_time: str | None = None


class Event(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Event; it lies in the namespace of the object that it is about, or in ``default`` if that has none."""

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    source: EventSource = EventSource()
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    count: int | None = None
    type: str = ""
    event_time: str | None = None
    series: EventSeries | None = None
    action: str = ""
    related: Any = None
    reporting_component: str = ""
    reporting_instance: str = ""
