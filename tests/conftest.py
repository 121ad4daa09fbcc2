"""What all tests share: network namespaces of their own, under names of their own, gone when they end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from svcnat.kernel import netns

# How long something takes is the machine's affair, as in all tests.
settings.register_profile("svcnat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("svcnat")


def pytest_configure(config: pytest.Config) -> None:
    """Give a run under ``unshare -rnm`` a /run/netns of its own; a run as root keeps the machine's."""
    if os.geteuid() == 0:
        netns.isolate_run()


@pytest.fixture(scope="session", autouse=True)
def _own_lock_of_iptables(tmp_path_factory: pytest.TempPathFactory) -> None:
    """iptables-legacy has one lock for all network namespaces, and does not wait for it (iptables(8))."""
    os.environ["XTABLES_LOCKFILE"] = str(tmp_path_factory.getbasetemp() / "xtables.lock")


@pytest.fixture
def make_netns() -> Iterator[Callable[[], str]]:
    """A function that makes network namespaces, each removed after the test."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    made: list[str] = []

    def make() -> str:
        name = f"svcnat-test-{uuid.uuid4().hex[:12]}"
        netns.create(name)
        made.append(name)
        return name

    yield make
    for name in made:
        netns.delete(name)


@pytest.fixture
def empty_netns(make_netns: Callable[[], str]) -> str:
    """The name of a network namespace that holds nothing."""
    return make_netns()
