"""The pytest plugin: the fixtures ``svcnat_lab`` and ``svcnat_lab_session``.

It is loaded by every pytest run where svcnat is installed: it imports nothing until a fixture is used, and decides
nothing but whether labs are possible here. The object that the fixtures give is :class:`svcnat.testing.lab.LabFixture`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

REQUIRED = "SVCNAT_REQUIRE_LAB"
"""Set to 1, as in CI: where labs are not possible, tests that use one fail instead of being skipped."""

_PRIVILEGE = "root, in a container CAP_NET_ADMIN and CAP_SYS_ADMIN, or `pytest --svcnat-rootless`"
_FIXTURES = ("svcnat_lab", "svcnat_lab_session")
_obstacles: list[str] = []  # found out once: the reason why labs are not possible here, or ""


@pytest.fixture
def svcnat_lab() -> Iterator[LabFixture]:
    """A lab of network namespaces for one test: `apply` manifests, then ask its services; gone after the test."""
    yield from _lab()


@pytest.fixture(scope="session")
def svcnat_lab_session() -> Iterator[LabFixture]:
    """A lab that all tests of a run share; under pytest-xdist each worker has its own."""
    yield from _lab()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--svcnat-rootless``."""
    parser.getgroup("svcnat").addoption(
        "--svcnat-rootless",
        action="store_true",
        help="run all tests in a user namespace, as root there, with no network: svcnat's labs need no other root",
    )


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Become root of a user namespace if that is wanted, before there are threads; workers of xdist are there then."""
    if early_config.known_args_namespace.svcnat_rootless and os.geteuid() != 0:
        from svcnat.errors import PrivilegeError
        from svcnat.testing.possible import become_root

        try:
            become_root()
        except PrivilegeError as error:
            raise pytest.UsageError(f"--svcnat-rootless: {error}") from error


def _lab() -> Iterator[LabFixture]:
    __tracebackhide__ = True
    if not _obstacles:
        from svcnat.testing.possible import obstacle

        _obstacles.append(obstacle())
    if _obstacles[0]:
        reason = f"svcnat labs need {_PRIVILEGE}: {_obstacles[0]}"
        if os.environ.get(REQUIRED, "") not in {"", "0"}:
            pytest.fail(f"{reason} ({REQUIRED} is set)", pytrace=False)
        pytest.skip(reason)
    from svcnat.testing.lab import LabFixture

    lab = LabFixture()
    try:
        yield lab
    finally:
        lab.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show beside a failure what was in the lab."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        arguments: dict[str, Any] = getattr(item, "funcargs", {})
        report.sections += [(name, str(arguments[name])) for name in _FIXTURES if name in arguments]
