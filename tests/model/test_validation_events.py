"""Events keep Kubernetes' rules: those of old ones, which name a source, and of new ones, which have an eventTime."""

from __future__ import annotations

import pytest

from svcnat.model.kinds import to_document
from svcnat.model.manifests import load
from svcnat.model.objects import Event
from tests.model.build import errors, one

OLD = """\
apiVersion: v1
kind: Event
metadata: {name: back-end.17a1, namespace: shop}
involvedObject: {kind: Service, namespace: shop, name: back-end}
type: Normal
reason: Synced
message: rules were written
source: {component: svcnat, host: node-1}
firstTimestamp: "2026-05-17T10:00:00Z"
lastTimestamp: "2026-05-17T10:01:00Z"
count: 2
"""
NEW = """\
apiVersion: v1
kind: Event
metadata: {name: node-1.17a1, namespace: default}
involvedObject: {kind: Node, name: node-1}
type: Warning
reason: Rebooted
action: Reboot
eventTime: "2026-05-17T10:00:00.123456Z"
series: {count: 2, lastObservedTime: "2026-05-17T10:01:00.000000Z"}
reportingComponent: kubelet
reportingInstance: node-1
related: {kind: Pod, name: web}
"""


@pytest.mark.parametrize("text", [OLD, NEW, NEW.replace("default}", "kube-system}")])
def test_sound_events(text: str) -> None:
    """As a cluster gives them out; nothing is lost on the way."""
    event = one(text).resource
    assert isinstance(event, Event)
    assert to_document(event)["involvedObject"]["name"] == event.involved_object.name
    assert to_document(event) == one(text).document


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            OLD.replace("kind: Service, namespace: shop", "kind: Service, namespace: other"),
            ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
        ),
        (
            OLD.replace("kind: Service, namespace: shop", "kind: Node"),
            ['involvedObject.namespace: Invalid value: "": does not match event.namespace'],
        ),
        (OLD.replace("kind: Service, namespace: shop", "kind: Node").replace("shop}", "default}"), []),
        (
            NEW.replace("namespace: default", "namespace: shop"),
            ['involvedObject.namespace: Invalid value: "": does not match event.namespace'],
        ),
        (
            OLD.replace("Normal", "Error"),
            ['type: Unsupported value: "Error": supported values: "Normal", "Warning"'],
        ),
        (OLD.replace("type: Normal\n", ""), []),
        (OLD.replace("count: 2", "count: -1"), ["count: Invalid value: -1: must be greater than or equal to 0"]),
        (
            OLD.replace('"2026-05-17T10:01:00Z"', "now"),
            ['lastTimestamp: Invalid value: "now": must be a time as RFC 3339, 2006-01-02T15:04:05Z'],
        ),
        (
            NEW.replace('lastObservedTime: "2026-05-17T10:01:00.000000Z"', "lastObservedTime: then"),
            ['series.lastObservedTime: Invalid value: "then": must be a time as RFC 3339, 2006-01-02T15:04:05Z'],
        ),
        (
            "".join(
                line for line in NEW.splitlines(keepends=True) if not line.startswith(("reason", "action", "reporting"))
            ),
            [
                "reportingComponent: Required value",
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value",
            ],
        ),
        (
            NEW.replace("Rebooted", "R" * 129).replace("related", f"message: {'m' * 1025}\nrelated"),
            [
                'reason: Invalid value: "": can have at most 128 characters',
                'message: Invalid value: "": can have at most 1024 characters',
            ],
        ),
        (NEW.replace("kubelet", "a/b/c"), ['reportingComponent: Invalid value: "a/b/c": a qualified name must']),
        (
            OLD.replace("back-end.17a1", "Back"),
            ['metadata.name: Invalid value: "Back": a lowercase RFC 1123 subdomain'],
        ),
    ],
)
def test_unsound_events(text: str, expected: list[str]) -> None:
    """What Kubernetes refuses, in its words."""
    found = [each.partition(": ")[2] for each in errors(text)] if expected else []
    if not expected:
        assert one(text).resource
    assert len(found) == len(expected), found
    for each, beginning in zip(found, expected, strict=True):
        assert each.startswith(beginning)


def test_events_of_the_newer_api_are_skipped() -> None:
    """They have other fields; a dump of a cluster may hold them."""
    text = "apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {name: a}\nnote: something\n"
    loaded = load([("file", text.encode()), ("list", b"apiVersion: events.k8s.io/v1\nkind: EventList\nitems: []\n")])
    assert loaded.manifests == ()
    assert [each.subject for each in loaded.skipped] == ["Event default/a"]
