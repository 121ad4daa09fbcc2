"""Kernel settings: those of the namespace that the thread is in, and clear words when they cannot be set."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from svcnat.errors import KernelError, MissingError
from svcnat.kernel import netns, sysctl


def test_settings_are_the_namespaces_own(empty_netns: str) -> None:
    """What is written inside a namespace changes nothing outside."""
    here = sysctl.read("net/ipv4/ip_default_ttl")
    with netns.entered(empty_netns):
        sysctl.write({"net/ipv4/ip_default_ttl": 33, "net/ipv6/conf/all/forwarding": 1})
        assert sysctl.read("net/ipv4/ip_default_ttl") == "33"
        assert sysctl.read("net/ipv6/conf/all/forwarding") == "1"
    assert sysctl.read("net/ipv4/ip_default_ttl") == here


def test_unknown_settings_and_bad_values_are_named(empty_netns: str) -> None:
    """The message names the setting."""
    with netns.entered(empty_netns):
        with pytest.raises(MissingError, match=r"^sysctl net/ipv4/no_such: this kernel has no such setting$"):
            sysctl.write({"net/ipv4/no_such": 1})
        with pytest.raises(KernelError, match=r"^sysctl net/ipv4/ip_default_ttl=x: Invalid argument$"):
            sysctl.write({"net/ipv4/ip_default_ttl": "x"})


READ_ONLY = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
"""What container engines do to /proc/sys."""

WRITE = """
import os
from svcnat.errors import PrivilegeError
from svcnat.kernel import netns, sysctl

def write(settings):
    try:
        sysctl.write(settings)
        print(*(f"{key}={sysctl.read(key)}" for key in settings))
    except PrivilegeError as error:
        print(error)

write({"net/ipv4/ip_forward": sysctl.read("net/ipv4/ip_forward")})
write({"net/ipv4/ip_default_ttl": 33})
netns.isolate_run()
with netns.entered(netns.create("other")):
    write({"net/ipv6/conf/all/forwarding": 1})
    write({"vm/stat_interval": int(sysctl.read("vm/stat_interval")) + 1})
print(sysctl.read("net/ipv6/conf/all/forwarding"), bool(os.statvfs("/proc/sys").f_flag & os.ST_RDONLY))
"""
REFUSED = "/proc/sys is read-only: in a container, run it privileged or with /proc/sys writable"


def in_container(*command: str) -> list[str]:
    """What the script says where /proc/sys is read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root, or `unshare -rnm`")
    script = [*command, sys.executable, "-c", WRITE]
    done = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", READ_ONLY, "sh", *script], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_a_read_only_proc_sys_does_not_concern_namespaces_of_our_own() -> None:
    """A container with CAP_SYS_ADMIN can run labs, and nobody else sees /proc/sys writable.

    What it was given stays protected: the settings of its own namespace, and the whole machine's.
    """
    same, own, other, whole, at_last = in_container()
    assert same.startswith("net/ipv4/ip_forward=")
    assert own == f"sysctl net/ipv4/ip_default_ttl=33: {REFUSED}"
    assert other == "net/ipv6/conf/all/forwarding=1"
    assert re.fullmatch(f"sysctl vm/stat_interval=[0-9]+: {REFUSED}", whole)
    assert at_last == "0 True"


def test_a_read_only_proc_sys_that_cannot_be_mounted_anew_is_a_clear_word() -> None:
    """In a user namespace further down, the mount of the one above is locked."""
    same, own, other, *_ = in_container("unshare", "-rn", "-m")
    assert same.startswith("net/ipv4/ip_forward=")
    assert own == f"sysctl net/ipv4/ip_default_ttl=33: {REFUSED}"
    assert other == f"sysctl net/ipv6/conf/all/forwarding=1: {REFUSED}"
