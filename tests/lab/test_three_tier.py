"""The example of a whole application: what its demonstration tells is so, and it leaves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.conftest import namespaces_of
from tests.lab.test_real_software import require_programs

pytestmark = [pytest.mark.packets, pytest.mark.slow]

PROJECT = Path(__file__).parents[2]
TIERS = ("front-end", "back-end", "redis", "mysql")


def test_each_tier_is_scaled_and_killed_alone(runtime: Path) -> None:
    """No visit fails while a pod of each tier is left; without a database they do, until there is another."""
    require_programs("redis-cli", "mariadbd", "mariadb-install-db")
    demo = [sys.executable, "netns-lab/three-tier/demo.py"]
    done = subprocess.run(demo, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    counts = [(int(visits), int(vain)) for visits, vain in re.findall(r"(\d+) visits, (\d+) in vain", said)]
    assert len(counts) == 2 + len(TIERS) + 1
    assert not any(vain for _, vain in counts[:-1]), said
    assert counts[-1][1] > 0, said  # it says so
    answered = {tier: re.findall(rf"(?m)^  {tier} +(\w.*)$", said) for tier in TIERS}
    assert [len(answered[tier][1].split()) // 2 for tier in TIERS] == [3, 3, 2, 2]  # who answered once all were scaled
    (name,) = re.findall(r"(?m)^lab (\S+) is up", said)
    assert not namespaces_of(name)
    assert not (runtime / "labs" / name).exists()
