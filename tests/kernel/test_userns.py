"""User namespaces for people without root: why there is none, in words, and which users there are in one."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from svcnat.kernel import userns

REFUSED = "no user namespace for somebody without root: "


@pytest.mark.parametrize(
    ("code", "machine", "words"),
    [
        (errno.ENOSPC, {"sys/user/max_user_namespaces": "0"}, "as root, `sysctl -w user.max_user_namespaces=10000`"),
        (errno.ENOSPC, {"sys/user/max_net_namespaces": "0"}, "as root, `sysctl -w user.max_net_namespaces=10000`"),
        (errno.EUSERS, {"sys/user/max_user_namespaces": "9"}, "`sysctl user` shows them"),
        (errno.EPERM, {"sys/kernel/unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            errno.EACCES,
            {"sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            errno.EPERM,
            {"self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1"},
            "seccomp filter, as in containers",
        ),
        (errno.EPERM, {"self/status": "Name:\tx\nSeccomp:\t0\n"}, "Operation not permitted: a chroot, or a security"),
        (errno.EINVAL, {}, "CONFIG_USER_NS"),
    ],
)
def test_the_reason_is_named(tmp_path: Path, code: int, machine: Mapping[str, str], words: str) -> None:
    """Each way in which machines keep people from user namespaces has its own words, with what lifts it."""
    for name, text in machine.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    said = userns.reason(code, tmp_path)
    assert said.startswith(REFUSED)
    assert words in said


def test_further_users_are_this_users_first_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number as by name; none without both files, or without the tools that give them."""
    tools = tmp_path / "bin"
    tools.mkdir()
    uids, gids = tmp_path / "subuid", tmp_path / "subgid"
    uids.write_text(f"stranger:1:2\n{os.geteuid()}:100000:65536\n{os.geteuid()}:1:1\n")
    monkeypatch.setenv("PATH", str(tools))
    assert userns.ranges(uids, gids) is None
    for tool in ("newuidmap", "newgidmap"):
        (tools / tool).touch(mode=0o755)
    assert userns.ranges(uids, gids) is None
    gids.write_text("nonsense\n")
    assert userns.ranges(uids, gids) is None
    gids.write_text(f"{os.geteuid()}:200000:1000\n")
    assert userns.ranges(uids, gids) == userns.Ranges(100000, 65536, 200000, 1000)
