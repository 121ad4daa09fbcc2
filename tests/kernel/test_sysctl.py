"""Kernel settings: those of the namespace that the thread is in, and clear words when they cannot be set."""

from __future__ import annotations

import os
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


def test_a_read_only_proc_sys_is_a_problem_only_when_something_must_change() -> None:
    """In a container with /proc/sys read-only, settings that are right already pass, others say what is wrong."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root, or `unshare -rnm`")
    script = """
from svcnat.errors import PrivilegeError
from svcnat.kernel import sysctl
sysctl.write({"net/ipv4/ip_forward": sysctl.read("net/ipv4/ip_forward")})
try:
    sysctl.write({"net/ipv4/ip_default_ttl": 33})
except PrivilegeError as error:
    print(error)
"""
    mounts = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", mounts, "sh", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "/proc/sys is read-only: in a container, run it privileged" in done.stdout, done.stderr
