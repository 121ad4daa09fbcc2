"""``import svcnat`` is the public API, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import svcnat
from svcnat import api


def test_the_package_has_every_name_of_its_api() -> None:
    """What the docs call ``svcnat.load`` is there, and no name is forgotten."""
    assert sorted(svcnat.__all__) == sorted(api.__all__)
    assert all(getattr(svcnat, name) is getattr(api, name) for name in api.__all__)


def test_importing_it_imports_nothing_else() -> None:
    """The API comes with the first name that is touched."""
    script = "import sys, svcnat; print('svcnat.api' in sys.modules); svcnat.load; print('svcnat.api' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == ["False", "True"]
