"""docs/systemd: units that systemd understands, hardened, and no harder than svcnat can bear."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "docs" / "systemd"
SERVICES = ("svcnat.service", "svcnat-restore.service")
PROGRAM = "/usr/local/bin/svcnat"
LOOSEST = 30  # tenths of systemd's exposure level, of 100

analyzes = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, whose program is there."""
    program = tmp_path / "svcnat"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in SERVICES:
        text = (UNITS / name).read_text()
        assert PROGRAM in text
        (tmp_path / name).write_text(text.replace(PROGRAM, str(program)))
    return tmp_path


def analyze(*words: str) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def with_drop_in(units: Path) -> Path:
    folder = units / "svcnat.service.d"
    folder.mkdir()
    shutil.copy(UNITS / "namespaces.conf", folder)
    return units / "svcnat.service"


@analyzes
@pytest.mark.parametrize("name", SERVICES)
def test_understood(units: Path, name: str) -> None:
    """Every line is known to systemd, which has no complaint."""
    assert analyze("verify", str(units / name)) == (0, "")


@analyzes
def test_the_drop_in_is_understood(units: Path) -> None:
    """The same with network namespaces."""
    assert analyze("verify", str(with_drop_in(units))) == (0, "")


@analyzes
@pytest.mark.parametrize("name", SERVICES)
def test_exposure(units: Path, name: str) -> None:
    """What the service may do stays as little as it is."""
    code, said = analyze("security", "--offline=true", f"--threshold={LOOSEST}", str(units / name))
    assert code == 0, said


@analyzes
def test_exposure_with_the_drop_in(units: Path) -> None:
    """Network namespaces take CAP_SYS_ADMIN, and no other kind of namespace."""
    code, said = analyze("security", "--offline=true", f"--threshold={LOOSEST}", str(with_drop_in(units)))
    assert code == 0, said
    refused = set(re.findall(r"✗ (?:RestrictNamespaces|CapabilityBoundingSet)=~(\S+)", said))
    assert refused == {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "net"}


def test_both_units_are_hardened_alike() -> None:
    """The two run the same program: what one may not do, the other may not."""
    hardened = {}
    for name in SERVICES:
        lines = (UNITS / name).read_text().splitlines()
        start = lines.index("CapabilityBoundingSet=CAP_NET_ADMIN")
        hardened[name] = [line for line in lines[start : lines.index("[Install]")] if line and line[0] != "#"]
    assert hardened[SERVICES[0]] == hardened[SERVICES[1]]


MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.10
  ports: [{port: 80, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80, protocol: UDP}]
endpoints: [{addresses: [192.0.2.1]}]
"""

# What the units ask for, as far as a process can ask for it itself: of all capabilities one, and no memory that is
# writable and executable, where the kernel can be asked for that.
CONFINED = """
import ctypes, os, sys
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, CAP_NET_ADMIN = 24, 38, 65, 12
libc = ctypes.CDLL(None, use_errno=True)
for capability in range(64):
    if capability != CAP_NET_ADMIN:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
if os.environ.get("CONFINED"):
    import mmap
    denies = not libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3
    try:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        assert not denies
    except OSError:
        assert denies
    assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)() == 7  # libffi's way round is open
    from svcnat.__main__ import main
    sys.argv = ["svcnat", *sys.argv[1:]]
    sys.exit(main())
os.environ["CONFINED"] = "1"
os.execv(sys.executable, [sys.executable, "-c", os.environ["PROGRAM"], *sys.argv[1:]])
"""


@pytest.mark.packets
def test_confined(make_netns: Callable[[], str], tmp_path: Path) -> None:
    """CAP_NET_ADMIN is all that a command needs to write rules and the state file, and to forget flows."""
    name = make_netns()
    manifest = tmp_path / "web.yaml"
    manifest.write_text(MANIFEST)
    state = tmp_path / "state" / "state.db"
    for words in (["apply", "-f", str(manifest)], ["delete", "-f", str(manifest)], ["apply", "-f", str(manifest)]):
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", CONFINED, "--state", str(state), *words],
            env={**os.environ, "PROGRAM": CONFINED},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        ["ip", "netns", "exec", name, "nft", "list", "table", "ip", "svcnat"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "192.0.2.1 . 80" in listed.stdout
