from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.controllers.merge import LAST_APPLIED, last_applied, three_way, with_last_applied

texts = st.text("abc", min_size=1, max_size=2)
values: Any = st.recursive(
    st.integers(0, 3) | texts | st.lists(st.integers(0, 3), max_size=3),
    lambda inner: st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
documents: Any = st.dictionaries(texts, values, max_size=4)


def test_what_left_the_manifest_leaves_the_object() -> None:
    """And what somebody else set stays."""
    merged = three_way(
        {"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"x": 1}},
        {"metadata": {"labels": {"a": "2"}}},
        {"metadata": {"labels": {"a": "1", "b": "1", "theirs": "1"}}, "spec": {"x": 1}, "status": {"ok": True}},
    )
    assert merged == {"metadata": {"labels": {"a": "2", "theirs": "1"}}, "status": {"ok": True}}


def test_service_ports_merge_by_number_and_protocol() -> None:
    """DNS has port 53 twice; each keeps its own node port, and a port that left the manifest goes."""
    udp, tcp = {"port": 53, "protocol": "UDP"}, {"port": 53, "name": "tcp"}
    live = [
        {"port": 53, "protocol": "TCP", "name": "tcp", "nodePort": 30001},
        {"port": 53, "protocol": "UDP", "nodePort": 30002},
        {"port": 80, "protocol": "TCP", "nodePort": 30003},
        {"port": 90, "protocol": "TCP", "nodePort": 30004},
    ]
    merged = three_way(
        {"spec": {"ports": [udp, tcp, {"port": 80}]}},
        {"spec": {"ports": [{**udp, "name": "udp"}, tcp]}},
        {"spec": {"ports": live}},
    )
    assert merged["spec"]["ports"] == [
        {"port": 53, "protocol": "UDP", "nodePort": 30002, "name": "udp"},
        {"port": 53, "protocol": "TCP", "nodePort": 30001, "name": "tcp"},
        {"port": 90, "protocol": "TCP", "nodePort": 30004},
    ]


def test_containers_merge_by_name_and_their_ports_by_number() -> None:
    """A container somebody else added stays; env merges by name, args are replaced."""
    old = {"name": "a", "image": "1", "args": ["x"], "env": [{"name": "E", "value": "1"}]}
    live = [{**old, "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "b"}]
    new = {"name": "a", "image": "2", "args": ["y"], "ports": [{"containerPort": 80, "name": "http"}]}
    merged = three_way({"containers": [old]}, {"containers": [new]}, {"containers": live})
    assert merged["containers"] == [
        {
            "name": "a",
            "image": "2",
            "args": ["y"],
            "imagePullPolicy": "Always",
            "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
        },
        {"name": "b"},
    ]


def test_a_new_strategy_inherits_nothing() -> None:
    """RollingUpdate's parameters would be invalid under Recreate."""
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    assert three_way({}, {"spec": {"strategy": {"type": "Recreate"}}}, live) == {
        "spec": {"strategy": {"type": "Recreate"}}
    }


def test_other_lists_are_replaced() -> None:
    """Endpoints of a slice have no names."""
    merged = three_way({"ports": [{"port": 1}]}, {"ports": [{"port": 2}]}, {"ports": [{"port": 1}, {"port": 3}]})
    assert merged == {"ports": [{"port": 2}]}


def test_lists_whose_items_cannot_be_told_apart_are_replaced() -> None:
    """Items without names of their own, or two of one name."""
    live = {"volumes": [{"name": "a"}, {"name": "a"}], "taints": ["odd"]}
    new = {"volumes": [{"name": "b"}], "taints": [{"key": "k"}]}
    assert three_way({}, new, live) == new


def test_the_annotation_holds_the_document_without_itself() -> None:
    """Applied from an export, it does not grow; damaged, it counts as absent."""
    document = {"kind": "Service", "metadata": {"name": "a", "annotations": {"note": "x", LAST_APPLIED: "old"}}}
    once = with_last_applied(document)
    assert last_applied(once) == {"kind": "Service", "metadata": {"name": "a", "annotations": {"note": "x"}}}
    assert with_last_applied(once) == once
    assert last_applied({"metadata": {"annotations": {LAST_APPLIED: "{"}}}) == {}
    assert last_applied({}) == {}


@settings(derandomize=True, max_examples=100)
@given(documents, documents, documents)
def test_applying_twice_is_applying_once(original: Any, modified: Any, live: Any) -> None:
    """The second apply of a document changes nothing; the first makes the object hold all that it says."""
    once = three_way(original, modified, live)
    assert three_way(modified, modified, once) == once
    assert holds(once, modified)
    assert three_way(original, original, original) == original


def holds(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], part[key]) for key in part)
    return bool(whole == part)
