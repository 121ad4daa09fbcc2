"""Events: told once and counted, few, young, found by what they are about, and never the reason of a failure."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.errors import ManifestError, NotFoundError
from svcnat.model.objects import Event, EventSeries, Namespace, Node, ObjectMeta, ObjectReference, Resource, Service
from svcnat.model.validation import validate
from svcnat.store.events import KEPT_SECONDS, MOST_EVENTS, record, reference_to
from svcnat.store.index import seconds
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store
from svcnat.store.transaction import Transaction
from tests.controllers.build import service

NOW = datetime(2026, 5, 17, 10, 0, 0, tzinfo=UTC)


def tell(transaction: Transaction, about: Resource | ObjectReference, message: str = "it is so", **more: Any) -> Event:
    words: dict[str, Any] = {"type": "Normal", "reason": "Told", "component": "svcnat", "host": "a", "now": NOW, **more}
    return record(transaction, about, message=message, **words)


@pytest.fixture
def web(store: Store) -> Service:
    with store.transaction() as transaction:
        return transaction.create(service("web")).resource  # type: ignore[return-value]


def test_an_event_says_what_happened_to_whom(store: Store, web: Service) -> None:
    """In the fields of core/v1, in the namespace of its object, named as Kubernetes' clients name them."""
    with store.transaction() as transaction:
        event = tell(transaction, web, "rules were written", now=NOW + timedelta(microseconds=123456))
    nanoseconds = int(NOW.timestamp()) * 10**9 + 123456000
    assert (event.metadata.namespace, event.metadata.name) == ("default", f"web.{nanoseconds:x}")
    assert event.involved_object == reference_to(web)
    assert event.involved_object.uid == web.metadata.uid
    assert (event.type, event.reason, event.message) == ("Normal", "Told", "rules were written")
    assert (event.source.component, event.source.host, event.reporting_component) == ("svcnat", "a", "svcnat")
    assert event.first_timestamp == event.last_timestamp == "2026-05-17T10:00:00Z"
    assert event.count == 1
    assert validate(event) == []
    with store.read() as snapshot:
        assert snapshot.events_about(web) == [event]


def test_the_same_again_only_counts(store: Store, web: Service) -> None:
    """Also when the object has changed meanwhile; first and last time are kept."""
    with store.transaction() as transaction:
        first = tell(transaction, web)
        changed: Any = transaction.replace(service("web", ports=(81,))).resource
        second = tell(transaction, changed, now=NOW + timedelta(minutes=5))
    assert second.metadata.uid == first.metadata.uid
    assert second.count == 2
    assert (second.first_timestamp, second.last_timestamp) == ("2026-05-17T10:00:00Z", "2026-05-17T10:05:00Z")
    with store.read() as snapshot:
        assert snapshot.list(Event) == [second]


@pytest.mark.parametrize(
    "other",
    [{"type": "Warning"}, {"reason": "Other"}, {"message": "other"}, {"host": "b"}, {"component": "other"}],
)
def test_something_else_is_another_event(store: Store, web: Service, other: dict[str, str]) -> None:
    """Also of the same second."""
    with store.transaction() as transaction:
        one, two = tell(transaction, web), tell(transaction, web, **other)
        assert one.metadata.name != two.metadata.name
        assert transaction.events_about(web) == [one, two]


def test_a_name_stands_for_an_object(store: Store, web: Service) -> None:
    """Another one of the same name has Events of its own; an Event without uid is about whoever has the name."""
    with store.transaction() as transaction:
        tell(transaction, web)
        unknown = tell(transaction, ObjectReference(kind="Service", namespace="default", name="web"))
        transaction.delete(Service, "default", "web")
        again = transaction.create(service("web")).resource
        mine = tell(transaction, again)
        assert transaction.events_about(again) == [unknown, mine]
        assert len(transaction.list(Event)) == 3
        other = transaction.create(service("other")).resource
        assert transaction.events_about(other) == []


def test_events_of_what_has_no_namespace_are_in_default(store: Store) -> None:
    """As in a cluster: Nodes and Namespaces."""
    with store.transaction() as transaction:
        for kind in (Node, Namespace):
            made = transaction.create(kind(metadata=ObjectMeta(name="thing"))).resource
            event = tell(transaction, made)
            assert event.metadata.namespace == "default"
            assert validate(event) == []
            assert transaction.events_about(made) == [event]


def test_a_namespace_takes_its_events_with_it(store: Store) -> None:
    """They neither keep it alive nor bring it back, and what was told of the Namespace itself stays."""
    with store.transaction() as transaction:
        space = transaction.create(Namespace(metadata=ObjectMeta(name="shop"))).resource
        inside = transaction.create(service("web", namespace="shop")).resource
        tell(transaction, inside)
        own = tell(transaction, space)
    with store.transaction() as transaction:
        transaction.delete(Namespace, "", "shop")
    with store.transaction() as transaction:
        assert transaction.list(Event) == [own]
        tell(transaction, inside, "too late")
        assert list(transaction.namespaces()) == ["default"]
        with pytest.raises(NotFoundError):
            transaction.delete(Namespace, "", "shop")


def test_a_namespace_that_nobody_declared_takes_its_events_too(store: Store) -> None:
    """It exists by its objects, and goes with them."""
    with store.transaction() as transaction:
        tell(transaction, transaction.create(service("web", namespace="shop")).resource)
    with store.transaction() as transaction:
        transaction.delete(Namespace, "", "shop")
    with store.read() as snapshot:
        assert snapshot.list(Event) == []


def test_old_events_go(store: Store, web: Service) -> None:
    """An hour after they happened last, when the next one is written; the same after that begins anew."""
    with store.transaction() as transaction:
        tell(transaction, web, "once")
        tell(transaction, web, "often")
    with store.transaction() as transaction:
        tell(transaction, web, "often", now=NOW + timedelta(seconds=KEPT_SECONDS))
        assert len(transaction.list(Event)) == 2
        tell(transaction, web, "new", now=NOW + timedelta(seconds=KEPT_SECONDS + 1))
        assert sorted(each.message for each in transaction.list(Event)) == ["new", "often"]
        again = tell(transaction, web, "once", now=NOW + timedelta(seconds=KEPT_SECONDS + 1))
        assert again.count == 1


def test_there_are_never_many(store: Store, web: Service) -> None:
    """The newest stay, by the order in which they were written: a clock that jumped back loses no new ones."""
    with store.transaction() as transaction:
        tell(transaction, web, "kept by counting", now=NOW)
        for number in range(MOST_EVENTS):
            tell(transaction, web, f"message {number}", now=NOW)
            if number % 100 == 0:
                tell(transaction, web, "kept by counting", now=NOW)
        assert len(transaction.list(Event)) == MOST_EVENTS
    with store.transaction() as transaction:
        back = NOW - timedelta(days=1)
        tell(transaction, web, "after the jump", now=back)
        messages = {each.message for each in transaction.list(Event)}
        assert len(messages) == MOST_EVENTS
        assert {"after the jump", "kept by counting", f"message {MOST_EVENTS - 1}"} <= messages
        assert "message 0" not in messages


def steps(snapshot: Snapshot, about: Resource) -> int:
    """How many instructions of SQLite's machine an answer takes."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    snapshot._connection.set_progress_handler(tick, 1)
    assert len(snapshot.events_about(about)) == 1
    snapshot._connection.set_progress_handler(None, 0)
    return count


def test_events_are_found_by_what_they_are_about(store: Store, web: Service) -> None:
    """It costs the same among few and among many of others."""
    with store.transaction() as transaction:
        tell(transaction, web)
        few = steps(transaction, web)
        other = transaction.create(service("other")).resource
        for number in range(300):
            tell(transaction, other, f"message {number}")
        assert steps(transaction, web) == few


def test_nothing_follows_from_an_event(store: Store, web: Service) -> None:
    """The controllers are not asked: an Event that claims to be owned, or to own, moves nothing."""
    about = reference_to(web)
    labels = {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "x"}
    event = Event(metadata=ObjectMeta(namespace="default", name="e", labels=labels), involved_object=about)
    with store.transaction() as transaction:
        transaction.create(event)
        transaction.apply(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"namespace": "default", "name": "f"},
                "involvedObject": {"kind": "Service", "namespace": "default", "name": "web"},
            }
        )
        assert transaction._changes == []
        transaction.delete(Event, "default", "e")
        assert transaction._changes == []
        assert [each.metadata.name for each in transaction.events_about(web)] == ["f"]


def test_an_event_that_somebody_writes_is_validated(store: Store) -> None:
    """As any other object."""
    wrong = Event(
        metadata=ObjectMeta(namespace="default", name="e"),
        involved_object=ObjectReference(kind="Service", namespace="other", name="web"),
    )
    with store.transaction() as transaction, pytest.raises(ManifestError, match=r"does not match event\.namespace"):
        transaction.create(wrong)


odd = st.text(st.characters(exclude_categories=()), max_size=40) | st.text("\x00\x1b\ud800\n€x", max_size=3000)


@settings(max_examples=60, database=None)
@given(st.tuples(odd, odd, odd, odd, odd))
def test_no_text_is_refused(texts: tuple[str, ...]) -> None:
    """Whatever it holds: it is cut, made visible, and can be read again."""
    message, reason, component, host, name = texts
    reference = ObjectReference(kind="Service", namespace="default", name=name)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder, "state.db")) as store:
        with store.transaction() as transaction:
            for about in (service("web"), reference):
                words: Any = {"reason": reason, "component": component, "host": host}
                told = tell(transaction, about, message, **words)
                assert tell(transaction, about, message, **words).metadata.uid == told.metadata.uid
        with store.read() as snapshot:
            events = snapshot.list(Event)
    assert len(events) == 2
    for event in events:
        assert event.count == 2
        assert len(event.message) <= 1024
        assert event.message.isprintable()
        assert event.reason.isprintable()
        assert event.source.host.isprintable()
        assert validate(event) == []


def test_a_long_message_is_cut_and_control_characters_are_seen(store: Store, web: Service) -> None:
    """A terminal does not obey them, and the store stays small."""
    with store.transaction() as transaction:
        assert tell(transaction, web, "x" * 5000).message == "x" * 1024
        assert tell(transaction, web, "a\x1b[2Jb\nc").message == "a\\u001b[2Jb\\u000ac"


def test_a_name_that_is_too_long_for_more_gets_another(store: Store) -> None:
    """As Kubernetes' clients do it."""
    with store.transaction() as transaction:
        event = tell(transaction, ObjectReference(kind="Service", namespace="default", name="n" * 250))
    assert validate(event) == []
    assert len(event.metadata.name) == 36


def test_any_zone_of_the_clock_will_do(store: Store, web: Service) -> None:
    """Times are written in UTC."""
    east = datetime(2026, 5, 17, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    with store.transaction() as transaction:
        assert tell(transaction, web, now=east).last_timestamp == "2026-05-17T10:00:00Z"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"last_timestamp": "1970-01-01T00:01:00Z", "first_timestamp": "1970-01-01T00:00:01Z"}, 60),
        ({"event_time": "1970-01-01T01:00:02.500000+01:00"}, 2),
        ({"series": EventSeries(last_observed_time="1970-01-01T00:00:03"), "event_time": "1970-01-01T00:00:02Z"}, 3),
        ({"series": EventSeries(count=2), "first_timestamp": "1970-01-01T00:00:02Z"}, 2),
        ({"last_timestamp": "yesterday"}, 0),
        ({}, 0),
    ],
)
def test_when_an_event_happened_last(fields: dict[str, Any], expected: int) -> None:
    """In whichever field it is written; what cannot be read is old."""
    assert seconds(replace(Event(), **fields)) == expected


def test_events_survive_reopening(path: Path) -> None:
    """They are objects like any other."""
    with Store.open(path) as store, store.transaction() as transaction:
        told = tell(transaction, service("web"))
    with Store.open(path) as store, store.read() as snapshot:
        assert snapshot.get(Event, "default", told.metadata.name) == told
