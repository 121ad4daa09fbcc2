"""Records follow changes, and end where a fresh start would."""

from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.agent.desired import Desired, Touched
from svcnat.dns.answers import Answer, Record
from svcnat.dns.records import Records
from svcnat.model.labels import SERVICE_LABEL
from svcnat.model.objects import EndpointSlice, ObjectMeta, Pod, Resource, Service
from tests.dns.cluster import endpoint, headless, piece, port, service

NAMES = ("a", "b")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")
SPACES = ("one", "two")


def of(slice_: EndpointSlice, name: str, home: str, namespace: str) -> EndpointSlice:
    return replace(slice_, metadata=ObjectMeta(name=name, namespace=namespace, labels={SERVICE_LABEL: home}))


endpoints = st.builds(
    endpoint,
    st.sampled_from(ADDRESSES[:2]),
    st.sampled_from((None, "x", "y")),
    ready=st.sampled_from((True, False, None)),
)
services = st.one_of(
    st.builds(
        lambda name, space, address: service(name, port("http", 80), namespace=space, cluster_ip=address),
        st.sampled_from(NAMES),
        st.sampled_from(SPACES),
        st.sampled_from(ADDRESSES),
    ),
    st.builds(
        lambda name, space, early: headless(name, namespace=space, publish_not_ready_addresses=early),
        st.sampled_from(NAMES),
        st.sampled_from(SPACES),
        st.booleans(),
    ),
    st.builds(
        lambda name, space: service(
            name, namespace=space, type="ExternalName", external_name="a.one.svc.cluster.local"
        ),
        st.sampled_from(NAMES),
        st.sampled_from(SPACES),
    ),
)
slices = st.builds(
    lambda found, name, home, space: of(piece("x", *found, ports=(("http", 80, "TCP"),)), name, home, space),
    st.lists(endpoints, max_size=3),
    st.sampled_from(("s", "t")),
    st.sampled_from(NAMES),
    st.sampled_from(SPACES),
)
pods = st.builds(
    lambda name, space: Pod(metadata=ObjectMeta(name=name, namespace=space)),
    st.sampled_from(NAMES),
    st.sampled_from((*SPACES, "three")),
)
written = st.one_of(services, slices, pods)
deleted = st.one_of(
    st.tuples(st.sampled_from((Service, Pod)), st.sampled_from(SPACES), st.sampled_from(NAMES)),
    st.tuples(st.just(EndpointSlice), st.sampled_from(SPACES), st.sampled_from(("s", "t"))),
)
steps = st.lists(st.tuples(st.lists(deleted, max_size=2), st.lists(written, max_size=3)), max_size=12)


def take(records: Records, desired: Desired, touched: Touched) -> None:
    for place in touched.services:
        if found := desired.services.get(place):
            records.put(found, desired.slices_of(place))
        else:
            records.remove(place)
    for place in touched.pods:
        if pod := desired.pods.get(place):
            records.put_pod(pod)
        else:
            records.remove_pod(place)


def _same_names(one: Records, other: Records) -> bool:
    """Another Pod in a namespace that has one changes no answer."""
    return (one._services, one._reverse, set(one._pods_in)) == (other._services, other._reverse, set(other._pods_in))


@settings(max_examples=300)
@given(steps)
def test_changes_end_where_a_fresh_start_does(history: list[tuple[list, list[Resource]]]) -> None:
    """The law: whatever was written and deleted, records are those of the objects that are left."""
    desired, records = Desired(), Records()
    for gone, there in history:
        before = copy.deepcopy(records)
        touched = desired.update(gone, there)
        take(records, desired, touched)
        # Encoded answers are good for as long as the serial is the same. (There and back again may move it.)
        assert records.serial != before.serial or records == before or _same_names(records, before)
        assert records.serial == before.serial or touched
    fresh = Records()
    for place, each in desired.services.items():
        fresh.put(each, list(reversed(desired.slices_of(place))))
    for pod in desired.pods.values():
        fresh.put_pod(pod)
    assert records == fresh
    for place in list(desired.services):
        records.remove(place)
    for place in list(desired.pods):
        records.remove_pod(place)
    assert records == Records()


def test_what_changes_nothing_moves_no_serial() -> None:
    """Encoded answers stay valid: an object that is written again as it was is no change."""
    records = Records()
    records.put(service("a", cluster_ip="10.0.0.1"), ())
    before = records.serial
    records.put(service("a", cluster_ip="10.0.0.1"), ())
    records.remove(("default", "b"))
    records.remove_pod(("default", "b"))
    assert records.serial == before
    assert records != Records()


def test_two_services_of_one_address_keep_apart() -> None:
    """An endpoint of two headless Services has two names, and loses the one of the Service that goes."""
    records = Records()
    for name in ("a", "b"):
        records.put(headless(name), (piece("s", endpoint("10.0.0.1", "x")),))
    name = ("1", "0", "0", "10", "in-addr", "arpa")
    found = records.answer(name, "PTR")
    assert found is not None
    assert [record.data[:2] for record in found.records] == [("x", "a"), ("x", "b")]
    records.remove(("default", "a"))
    found = records.answer(name, "PTR")
    assert found is not None
    assert [record.data[:2] for record in found.records] == [("x", "b")]


def test_another_domain() -> None:
    """The domain is the caller's, whatever its case; other names are not ours."""
    records = Records("K8s.Example.org.")
    records.put(service("a", cluster_ip="10.0.0.1"), ())
    found = records.answer(("a", "default", "svc", "k8s", "example", "org"), "A")
    assert found is not None
    assert [each.data for each in found.records] == ["10.0.0.1"]
    assert records.answer(("a", "default", "svc", "cluster", "local"), "A") is None
    assert records.answer(("example", "org"), "A") is None


def test_labels_are_compared_whole() -> None:
    """A label with a dot inside is not two labels."""
    records = Records()
    records.put(service("a", port("http", 80), cluster_ip="10.0.0.1"), ())
    odd = records.answer(("_http._tcp", "a", "default", "svc", "cluster", "local"), "SRV")
    assert odd is not None
    assert odd.outcome == "NXDOMAIN"
    pod = records.answer(("10.0.0.1", "default", "pod", "cluster", "local"), "A")
    assert pod is not None
    assert pod.outcome == "NXDOMAIN"


def test_an_external_name_that_leads_to_itself_ends() -> None:
    """A circle of CNAMEs is answered, each once, and not followed for ever."""
    records = Records()
    records.put(service("a", type="ExternalName", external_name="b.default.svc.cluster.local"), ())
    records.put(service("b", type="ExternalName", external_name="a.default.svc.cluster.local"), ())
    records.put(service("c", type="ExternalName", external_name="C.default.svc.cluster.local"), ())
    records.put(service("d", type="ExternalName", external_name="a.default.svc.cluster.local"), ())
    for name, owners in (("a", "ab"), ("c", "c"), ("d", "dab")):
        found = records.answer((name, "default", "svc", "cluster", "local"), "A")
        assert found is not None
        assert [(each.type, each.owner[0]) for each in found.records] == [("CNAME", owner) for owner in owners]


def test_turning_keeps_aliases_in_front() -> None:
    """Only what may come in any order is rotated."""
    alias = Record(("a",), "CNAME", 5, ("b",))
    rest = tuple(Record(("b",), "A", 5, f"10.0.0.{n}") for n in range(3))
    answer = Answer(records=(alias, *rest))
    assert answer.turns == 3
    assert answer.turned(4).records == (alias, rest[1], rest[2], rest[0])
    assert Answer(records=(alias,)).turned(1).records == (alias,)
