"""Kinds are found by every name that people give them."""

from __future__ import annotations

import pytest

from svcnat.model import kinds
from svcnat.model.objects import Node, ObjectMeta
from tests.model.build import COURSE, one


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("svc", "Service"),
        ("Services", "Service"),
        ("service", "Service"),
        ("po", "Pod"),
        ("deploy", "Deployment"),
        ("deployment.apps", "Deployment"),
        ("ep", "Endpoints"),
        ("endpoints", "Endpoints"),
        ("endpointslices", "EndpointSlice"),
        ("no", "Node"),
        ("ns", "Namespace"),
        ("ev", "Event"),
        ("events", "Event"),
        ("cm", "ConfigMap"),
        ("configmaps", "ConfigMap"),
        ("secret", "Secret"),
    ],
)
def test_words(word: str, name: str) -> None:
    """Singular, plural, short and qualified, in any case."""
    found = kinds.find(word)
    assert found is not None
    assert found.name == name


def test_unknown_words() -> None:
    """What is no kind is None."""
    assert kinds.find("jobs") is None


def test_documents() -> None:
    """An object's document says its kind and loads to the same object."""
    resource = one(COURSE).resource
    document = kinds.to_document(resource)
    assert (document["apiVersion"], document["kind"]) == ("v1", "Service")
    assert kinds.from_document(document) == resource
    assert kinds.kind_of(resource).qualified == "service"


def test_how_messages_name_objects() -> None:
    """Errors as kubectl does, findings by kind and place; what has no namespace shows none."""
    assert kinds.BY_NAME["Deployment"].quote("web") == 'deployments.apps "web"'
    assert kinds.BY_NAME["Service"].quote("web") == 'services "web"'
    assert kinds.subject(one(COURSE).resource) == "Service default/back-end"
    assert kinds.subject(Node(metadata=ObjectMeta(name="node-1"))) == "Node node-1"
