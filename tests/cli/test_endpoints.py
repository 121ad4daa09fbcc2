"""`get endpoints` shows what people expect of it, although nothing of it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat.model.objects import EndpointAddress, Endpoints, EndpointSlicePort, EndpointSubset, ObjectMeta
from svcnat.store.sqlite import Store
from tests.cli.conftest import Result
from tests.controllers.build import pod, service

Run = Callable[..., Result]


@pytest.fixture
def here(svcnat: Run, tmp_path: Path) -> Run:
    """``svcnat`` with a state file: two Services with a selector, one with Endpoints written by hand."""
    path = tmp_path / "state.db"
    subset = EndpointSubset(addresses=[EndpointAddress(ip="192.0.2.1")], ports=[EndpointSlicePort(port=6379)])
    by_hand = Endpoints(metadata=ObjectMeta(name="redis", namespace="default"), subsets=[subset])
    with Store.open(path) as store:
        for one in (service("web"), service("idle"), service("redis", selector={}), service("far", namespace="other")):
            with store.transaction() as transaction:
                transaction.create(one)
        with store.transaction() as transaction:
            for one in (*(pod(f"p{number}", f"10.0.0.{number}") for number in (2, 1)), by_hand):
                transaction.create(one)
    return lambda *arguments: svcnat("--state", str(path), *arguments)


def test_get_endpoints_lists_services_with_a_selector(here: Run) -> None:
    """A line for each, as kubectl has it, beside those written by hand."""
    listed = here("get", "endpoints")
    assert (listed.code, listed.err) == (0, "")
    header, *lines = [line.split()[:2] for line in listed.out.splitlines()]
    assert header == ["NAME", "ENDPOINTS"]
    assert sorted(lines) == [["idle", "<none>"], ["redis", "192.0.2.1:6379"], ["web", "10.0.0.1:80,10.0.0.2:80"]]
    everywhere = here("get", "ep", "-A", "--no-headers").out.splitlines()
    assert (len(everywhere), everywhere[-1].split()[:2]) == (4, ["other", "far"])
    assert here("get", "ep", "-n", "nowhere").err == "No resources found in nowhere namespace.\n"


def test_one_is_found_by_name(here: Run) -> None:
    """As a line, as a document and described; what has none is not found, in kubectl's words."""
    assert here("get", "ep/web", "-o", "name").out == "endpoints/web\n"
    document = json.loads(here("get", "ep", "web", "-o", "json").out)
    assert (document["apiVersion"], document["kind"], document["metadata"]["name"]) == ("v1", "Endpoints", "web")
    assert [each["ip"] for each in document["subsets"][0]["addresses"]] == ["10.0.0.1", "10.0.0.2"]
    assert document["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    described = here("describe", "endpoints", "web").out.splitlines()
    assert described[0].split() == ["Name:", "web"]
    assert ["Addresses:", "10.0.0.1,10.0.0.2"] in [line.split() for line in described]
    missing = here("get", "ep", "kubernetes")
    assert (missing.code, missing.err) == (1, 'error: endpoints "kubernetes" not found\n')


def test_labels_select_them(here: Run) -> None:
    """They have those of their Service."""
    assert here("get", "ep", "-l", "app=web").err == "No resources found in default namespace.\n"
    managed = here("get", "ep", "-l", "endpoints.kubernetes.io/managed-by", "-o", "name").out
    assert sorted(managed.split()) == ["endpoints/idle", "endpoints/web"]


def test_deleting_all_means_those_that_are_stored(here: Run) -> None:
    """What follows from Pods cannot be deleted, and is no reason to fail."""
    assert here("delete", "endpoints", "--all", "--dry-run").out == 'endpoints "redis" deleted (dry run)\n'
    assert here("delete", "endpoints", "--all", "-n", "other").err == "No resources found\n"
