"""Labs for tests: each under a name of its own, in a runtime folder of its own, gone when its test ends."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat.kernel import netns
from svcnat.lab import labs, names
from svcnat.lab.labs import Lab
from svcnat.lab.topology import Topology

NAMELESS = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
dns: false
---
"""
"""For tests that have nothing to do with names."""

BuildLab = Callable[..., Lab]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runtime folder that only this module's labs are in."""
    if os.geteuid() != 0:
        pytest.skip("labs need root, or `unshare -rnm`")
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVCNAT_RUNTIME_DIR", str(folder))
        yield folder


def unused_name() -> str:
    """A name that no other lab has, in this test run or another at the same time."""
    return f"t-{uuid.uuid4().hex[:12]}"


def namespaces_of(name: str) -> list[str]:
    """The network namespaces of a lab."""
    return [each for each in netns.names() if each.startswith(names.prefix_of(name))]


@pytest.fixture(scope="module")
def module_labs(runtime: Path) -> Iterator[BuildLab]:
    """A function that builds labs, which are taken down after the module's last test."""
    yield from _builder()


@pytest.fixture
def build_lab(runtime: Path) -> Iterator[BuildLab]:
    """A function that builds labs, which are taken down after the test."""
    yield from _builder()


def _builder() -> Iterator[BuildLab]:
    built: list[Lab] = []

    def build(plan: Topology | None = None) -> Lab:
        lab = Lab.up(unused_name(), plan)
        built.append(lab)
        return lab

    yield build
    for lab in built:
        lab.close()
        if lab.folder.exists() or namespaces_of(lab.name):
            labs.down(lab.name)
        assert not namespaces_of(lab.name)
        assert not lab.folder.exists()
