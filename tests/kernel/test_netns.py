"""Network namespaces: names that ``ip netns`` shares, threads that come back, errors that say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat.errors import KernelError, MissingError, SvcnatError, UsageError
from svcnat.kernel import errands, netns


def run_python(script: str, *around: str) -> str:
    """What a script prints in a process of its own; `around` is the command that it runs under."""
    done = subprocess.run(
        [*around, sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_entering_is_for_the_block_only(empty_netns: str) -> None:
    """The thread is in the namespace inside the block, and where it was after it, even when the block fails."""
    before = netns.identity()
    with netns.entered(empty_netns):
        assert netns.identity() == netns.identity(empty_netns) != before
    assert netns.identity() == before
    with pytest.raises(ZeroDivisionError), netns.entered(empty_netns):
        _ = 1 / 0
    assert netns.identity() == before


def test_other_threads_stay_where_they_are(empty_netns: str) -> None:
    """Only the calling thread enters: the main thread, which /proc/self shows, stays."""
    main = netns.call(empty_netns, lambda: Path("/proc/self/ns/net").stat().st_ino)
    assert main == Path("/proc/self/ns/net").stat().st_ino != netns.identity(empty_netns)[1]


def test_none_means_here() -> None:
    """entered(None) changes nothing."""
    before = netns.identity()
    with netns.entered(None):
        assert netns.identity() == before


def test_processes_belong_to_the_namespace_they_were_started_in(empty_netns: str) -> None:
    """What is started in the block runs there, and can be entered by its /proc path."""
    with netns.entered(empty_netns):
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with process:
        with netns.entered(f"/proc/{process.pid}/ns/net"):
            assert netns.identity() == netns.identity(empty_netns)
        process.communicate()


def test_call_returns_and_raises_what_the_function_does(empty_netns: str) -> None:
    """call() runs a function in a thread inside the namespace; its result and its errors are the caller's."""
    before = netns.identity()
    assert netns.call(empty_netns, netns.identity) == netns.identity(empty_netns)
    with pytest.raises(ZeroDivisionError):
        netns.call(empty_netns, lambda: 1 / 0)
    assert netns.identity() == before


def test_names_are_those_of_ip_netns(make_netns: Callable[[], str]) -> None:
    """`ip netns` lists and removes our namespaces, and we see and remove its own."""
    ours, theirs = make_netns(), f"svcnat-test-{uuid.uuid4().hex[:12]}"
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    assert ours in listed
    subprocess.run(["ip", "netns", "add", theirs], check=True)
    assert netns.exists(theirs)
    assert theirs in netns.names()
    netns.delete(theirs)
    assert not netns.exists(theirs)
    subprocess.run(["ip", "netns", "delete", ours], check=True)
    assert not netns.exists(ours)
    netns.create(ours)  # for the fixture to remove


def test_a_name_is_given_once(empty_netns: str) -> None:
    """A second create fails, and the first namespace stays what it was."""
    before = netns.identity(empty_netns)
    with pytest.raises(KernelError, match=f'network namespace "{empty_netns}" exists already'):
        netns.create(empty_netns)
    assert netns.identity(empty_netns) == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../etc/passwd", "a\0b", "a\nb", "\x1b[31m", "x" * 256, "/a\0b"]
)
def test_untrusted_names_are_refused(name: str) -> None:
    """What could leave /run/netns, or upset a terminal, is no name."""
    for function in (netns.path, netns.create, netns.delete, netns.exists):
        with pytest.raises(UsageError, match="cannot be the name of a network namespace"):
            function(name)


def test_paths_are_entered_but_neither_made_nor_removed(tmp_path: Path) -> None:
    """create() and delete() take names only."""
    for function in (netns.create, netns.delete):
        with pytest.raises(UsageError, match="is a path"):
            function(str(tmp_path / "x"))


def test_what_is_missing_is_named() -> None:
    """A name that nobody has is an error with kubectl-like words; nothing is created."""
    for function in (lambda name: netns.call(name, netns.names), netns.delete, netns.identity):
        with pytest.raises(MissingError, match=r'^network namespace "svcnat-nowhere" does not exist$'):
            function("svcnat-nowhere")
    assert not netns.exists("svcnat-nowhere")
    assert "svcnat-nowhere" not in netns.names()


def test_a_file_that_is_no_namespace_is_told_apart(tmp_path: Path) -> None:
    """A plain file, or the namespace of another kind, is not entered."""
    file = tmp_path / "file"
    file.touch()
    for path in (str(file), "/proc/self/ns/mnt"):
        assert not netns.exists(path)
        with pytest.raises(MissingError, match="is not a network namespace"), netns.entered(path):
            pass


def test_a_failed_create_leaves_nothing() -> None:
    """When the kernel refuses another namespace, its name is not left behind."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    script = """
from pathlib import Path
from svcnat.errors import KernelError
from svcnat.kernel import netns
assert netns.isolate_run()
Path("/proc/sys/user/max_net_namespaces").write_text("0")
try:
    netns.create("refused")
except KernelError as error:
    print(type(error).__name__, error, netns.names())
"""
    said = run_python(script, "unshare", "-rnm")
    assert said == 'KernelError cannot create network namespace "refused": No space left on device []\n'


def test_without_privilege_the_message_says_what_to_do() -> None:
    """Neither creating nor entering is tried in vain: one line, no trace."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give it up")
    script = """
import ctypes, os
from svcnat.errors import PrivilegeError
from svcnat.kernel import netns
os.setresuid(65534, 65534, 65534)
for action in (lambda: netns.create("refused"), lambda: netns.entered("/proc/self/ns/net").__enter__()):
    try:
        action()
    except PrivilegeError as error:
        print(error)
"""
    if Path("/proc/self/uid_map").read_text().split()[2] == "1":
        pytest.skip("this user namespace has no second user to become")
    lines = run_python(script).splitlines()
    assert len(lines) == 2
    assert all(line.endswith("run as root, or inside unshare -rnm") for line in lines)


@pytest.mark.parametrize(
    "before",
    [
        "true",
        "mount -t tmpfs none /run && (cd /run && mkdir -p user/0/there && echo kept >file && ln -s user/0/there there)",
    ],
    ids=["run-as-it-is", "no-run-netns"],
)
def test_a_user_namespace_gets_a_run_netns_of_its_own(before: str) -> None:
    """Under `unshare -rnm` isolate_run() hides the machine's names, once; names work in it, whatever /run was like.

    What else is in /run, such as the runtime folder of a session, stays.
    """
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    script = """
from pathlib import Path
from svcnat.kernel import netns
assert netns.isolate_run() and netns.isolate_run()
assert netns.names() == []
netns.create("mine")
mounts = Path("/proc/self/mountinfo").read_bytes()
assert netns.isolate_run() and Path("/proc/self/mountinfo").read_bytes() == mounts
assert netns.names() == ["mine"] and netns.exists("mine")
if Path("/run/there").exists():
    Path("/run/there/new").touch()
    assert Path("/run/user/0/there/new").exists() and Path("/run/file").read_text() == "kept\\n"
netns.delete("mine")
"""
    around = ("unshare", "-rnm", "sh", "-c", f'{before} && exec "$@"', "sh")
    run_python(script, *around)
    if Path("/proc/self/uid_map").read_text().split()[2] != "1":
        assert not netns.isolate_run()


def test_every_error_is_ours() -> None:
    """The CLI prints SvcnatErrors in one line: nothing else may come out."""
    assert issubclass(MissingError, SvcnatError)
    with pytest.raises(SvcnatError), netns.entered("/nonexistent/path"):
        pass


def test_errands_are_done_at_home(make_netns: Callable[[], str]) -> None:
    """A function that entered namespaces, one within the other, has things done where all began; errors come back."""
    one, two = make_netns(), make_netns()
    home = netns.identity()

    def within() -> tuple[object, ...]:
        with pytest.raises(ZeroDivisionError):
            errands.at_home(lambda: 1 / 0)
        return netns.identity(), errands.at_home(netns.identity), netns.identity()

    here = netns.identity(two)
    assert netns.call(one, lambda: netns.call(two, within)) == (here, home, here)
    assert errands.at_home(netns.identity) == home
