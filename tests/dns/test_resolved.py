"""The drop-in for systemd-resolved, as the documentation has it, before a real systemd-resolved.

Installing that would give this machine another resolver: the test runs where it is, or where SYSTEMD_RESOLVED says
where one is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.kernel import links, netns
from tests.agents import until
from tests.dns.cluster import cluster
from tests.dns.serving import serving
from tests.dns.upstream import upstream

RESOLVED = os.environ.get("SYSTEMD_RESOLVED", "/lib/systemd/systemd-resolved")
UID = 991
LINK = "198.18.0.1"

pytestmark = [
    pytest.mark.packets,
    pytest.mark.skipif(not os.access(RESOLVED, os.X_OK), reason="needs systemd-resolved"),
]


@contextlib.contextmanager
def resolved(where: str, folder: Path, drop_in: str) -> Iterator[None]:
    """Run systemd-resolved in a network namespace and mounts of its own, with one link that has a server."""
    accounts = {"passwd": f"systemd-resolve:x:{UID}:{UID}::/:/bin/false\n", "group": f"systemd-resolve:x:{UID}:\n"}
    lines = [
        "umask 022",
        "mount -t tmpfs none /run",
        f"mkdir -p /run/systemd/resolve/netif {folder}/etc/resolved.conf.d",
    ]
    for name, line in accounts.items():
        (folder / name).write_text(f"root:x:0:0::/:/bin/sh\n{line}" if name == "passwd" else f"root:x:0:\n{line}")
        lines.append(f"mount --bind {folder}/{name} /etc/{name}")
    lines += [
        f"printf %s {shlex.quote(drop_in)} >{folder}/etc/resolved.conf.d/svcnat.conf",
        f"mount --bind {folder}/etc /etc/systemd",
        # What a DHCP client would have told it of the link.
        f"printf 'SERVERS={LINK}\\n' >/run/systemd/resolve/netif/$(cat /sys/class/net/unused/ifindex)",
        f"chown -R {UID}:{UID} /run/systemd/resolve",
        f"exec {RESOLVED}",
    ]
    # A mount of /sys shows the namespace's devices.
    script = "\n".join(["mount -t sysfs none /sys", *lines])
    with netns.entered(where):
        process = subprocess.Popen(["unshare", "-m", "sh", "-ec", script], stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def dig(where: str, *words: str) -> list[str]:
    with netns.entered(where):
        done = subprocess.run(
            ["dig", "+short", "+tries=1", "+time=5", "@127.0.0.53", *words], capture_output=True, text=True, check=False
        )
    return sorted(done.stdout.split()) if not done.returncode else ["no answer"]


def test_the_documented_drop_in(empty_netns: str, tmp_path: Path) -> None:
    """Names of the cluster come from us, all others from the link's servers, and nobody asks in circles."""
    text = Path("docs/dns.md").read_text(encoding="utf-8")
    drop_in = re.sub("^ +", "", re.search(r"```ini\n(.*?)```", text, re.S)[1], flags=re.M)  # type: ignore[index]
    assert "DNS=127.0.0.1:1053" in drop_in
    where = empty_netns
    # It asks nobody unless the machine has a link with an address and a route.
    routes = (links.Route("0.0.0.0/0", "198.18.0.2"),)
    links.build([links.Bridge(links.Device(netns.path(where), "unused", (f"{LINK}/24",), routes=routes))])
    with (
        upstream(where, LINK) as other,
        serving(where, cluster(), "127.0.0.1", port=1053),
        resolved(where, tmp_path, drop_in),
    ):
        until(lambda: dig(where, "web.default.svc.cluster.local") == ["10.96.0.20"], "systemd-resolved")
        assert dig(where, "dual.default.svc.cluster.local", "AAAA") == ["fd00:10:96::22"]
        assert dig(where, "-t", "SRV", "_http._tcp.web.default.svc.cluster.local") != []
        assert dig(where, "nobody.default.svc.cluster.local") == []
        assert not other.asked
        until(lambda: dig(where, "plain.example.com") == ["192.0.2.1"], "another name")
