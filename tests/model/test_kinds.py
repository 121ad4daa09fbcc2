"""Kinds are found by every name that people give them."""

from __future__ import annotations

import pytest

from svcnat.model import kinds
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
    ],
)
def test_words(word: str, name: str) -> None:
    """Singular, plural, short and qualified, in any case."""
    found = kinds.find(word)
    assert found is not None
    assert found.name == name


def test_unknown_words() -> None:
    """What is no kind is None."""
    assert kinds.find("secrets") is None


def test_documents() -> None:
    """An object's document says its kind and loads to the same object."""
    resource = one(COURSE).resource
    document = kinds.to_document(resource)
    assert (document["apiVersion"], document["kind"]) == ("v1", "Service")
    assert kinds.from_document(document) == resource
    assert kinds.kind_of(resource).qualified == "service"
