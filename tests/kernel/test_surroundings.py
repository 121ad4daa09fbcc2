"""What programs see besides their network: in threads of their own, and nothing of it in the process or the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from svcnat.errors import KernelError, MissingError
from svcnat.kernel import netns, surroundings
from svcnat.kernel.surroundings import Seen
from tests.agents import until

pytestmark = pytest.mark.packets


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_files_and_names_of_ones_own(empty_netns: str, tmp_path: Path) -> None:
    """A program sees other files at known places, another host name, its network, and no other namespaces."""
    (tmp_path / "hosts").write_text("192.0.2.7 somewhere.test\n")
    before = Path("/etc/hosts").read_text(), socket.gethostname(), Path.cwd()

    def look() -> tuple[str, ...]:
        os.chdir("/")
        return said("getent", "hosts", "somewhere.test"), said("uname", "-n"), said("readlink", "/proc/self/ns/net")

    files = {"/etc/hosts": Seen(tmp_path / "hosts"), "/etc/no-such-file": Seen(tmp_path / "hosts")}
    hosts, name, network = surroundings.call(empty_netns, files, "elsewhere", look)
    assert hosts.split() == ["192.0.2.7", "somewhere.test"]
    assert name == "elsewhere\n"
    assert network == f"net:[{netns.identity(empty_netns)[1]}]\n"
    assert not surroundings.call(empty_netns, {}, "", lambda: netns.exists(empty_netns))
    assert (Path("/etc/hosts").read_text(), socket.gethostname(), Path.cwd()) == before
    assert netns.exists(empty_netns)


def test_places_that_the_machine_does_not_have(tmp_path: Path) -> None:
    """A folder at the root, folders and files among the machine's: seen there alone, and all else as it is."""
    (tmp_path / "file").write_text("held\n")
    name = f"svcnat-{os.getpid()}-{tmp_path.name}"
    (tmp_path / "deeper").mkdir()
    files = {
        f"/{name}/a/b": Seen(tmp_path, read_only=True, make=True),
        f"/etc/{name}": Seen(tmp_path, make=True),
        f"/etc/{name}.conf": Seen(tmp_path / "file", make=True),
        f"/var/run/{name}/deep": Seen(tmp_path, make=True),  # by a symbolic link
        f"/{name}/c": Seen(tmp_path / "file", make=True),
    }
    script = f"""
        cat /{name}/a/b/file /etc/{name}/file /etc/{name}.conf /run/{name}/deep/file /{name}/c
        test -s /etc/passwd && test -d /proc/self/fd && test -c /dev/null && test -d /usr/bin && echo same
        echo new > /{name}/a/b/new 2>/dev/null || echo read-only
        echo new > /etc/{name}/new && echo written; touch /etc/{name}.other
    """

    def look() -> str:
        os.chdir("/")
        return said("sh", "-c", script)

    assert surroundings.call(None, files, "", look).split("\n") == [*["held"] * 5, "same", "read-only", "written", ""]
    assert (tmp_path / "new").read_text() == "new\n"
    assert not [each for place in ("/", "/etc", "/run") for each in Path(place).iterdir() if name in each.name]


def test_what_covers_the_way_to_others(tmp_path: Path) -> None:
    """A folder that is shown in the place of one that other sources are in does not hide those."""
    for each in ("over", "inner", "inner/deep", "outside"):
        (tmp_path / each).mkdir()
    (tmp_path / "inner/deep/file").write_text("held\n")
    files = {
        str(tmp_path): Seen(tmp_path / "over", make=True),
        str(tmp_path / "a/b"): Seen(tmp_path / "inner/deep", make=True),
        str(tmp_path / "c"): Seen(tmp_path / "inner/deep/file", read_only=True, make=True),
    }
    root, inner = f"/{tmp_path.name}-{os.getpid()}", Seen(tmp_path / "inner", make=True)
    files = {f"{root}/x": inner, **files, f"/usr/share{root}": inner}
    before = Path.cwd()
    script = f"""
        cd /usr/share{root}/deep && cat {root}/x/deep/file {tmp_path}/a/b/file {tmp_path}/c
        ls {tmp_path}; touch {tmp_path}/d
    """
    assert surroundings.call(None, files, "", lambda: said("sh", "-c", script)) == "held\nheld\nheld\na\nc\n"
    assert sorted(each.name for each in (tmp_path / "over").iterdir()) == ["a", "c", "d"]
    assert not list((tmp_path / "over/a/b").iterdir())
    assert surroundings.call(None, files, "", Path.cwd) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["inner", "outside", "over"]


def test_what_cannot_be_mounted(tmp_path: Path) -> None:
    """A file over a folder, something that is not there: the place is named."""
    with pytest.raises(KernelError, match="cannot mount on /etc: Not a directory"):
        surroundings.call(None, {"/etc": Seen(Path("/etc/passwd"), make=True)}, "", lambda: None)
    with pytest.raises(KernelError, match="cannot mount on /no-such-place: No such file or directory"):
        surroundings.call(None, {"/no-such-place": Seen(tmp_path / "none", make=True)}, "", lambda: None)


def test_a_network_that_is_not_there() -> None:
    """As elsewhere, the error names it."""
    with pytest.raises(MissingError, match='network namespace "no-such" does not exist'):
        surroundings.call("no-such", {}, "", lambda: None)


def test_nothing_outlives_the_init_of_a_pid_namespace() -> None:
    """The first process is number 1; when it is killed, what it started is gone, daemons too."""
    script = "echo $$; setsid -f sleep 1000 </dev/null >/dev/null 2>&1; echo started; read line"
    with subprocess.Popen(["true"]) as other:
        other.wait()
    init = surroundings.spawn_as_init(
        lambda: subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    with init:
        assert init.stdout is not None
        assert (init.stdout.readline(), init.stdout.readline()) == ("1\n", "started\n")
        inside = Path(f"/proc/{init.pid}/ns/pid").stat().st_ino
        assert len(in_pid_namespace(inside)) >= 2
        init.kill()
        init.wait()
    assert in_pid_namespace(inside) == []
    assert Path("/proc/self/ns/pid_for_children").stat().st_ino == Path("/proc/self/ns/pid").stat().st_ino


def in_pid_namespace(inode: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and (folder / "ns/pid").stat().st_ino == inode:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_mounts_tell_who_belongs_together() -> None:
    """A descriptor of a mount namespace finds the processes in it, from a /proc of their own PID namespace."""
    script = """
import os
import subprocess
from svcnat.kernel import surroundings
assert surroundings.begin_apart()
start = lambda: (subprocess.Popen(["sleep", "1000"]), surroundings.mounts(os.open("/proc", os.O_PATH)))
one, mounts = surroundings.call(None, {}, "", start)
two, others = surroundings.call(None, {}, "", start)
assert surroundings.processes_with(mounts) == [one.pid], surroundings.processes_with(mounts)
assert surroundings.processes_with(others) == [two.pid]
for each in (one, two):
    each.kill()
    each.wait()
print("well")
"""
    command = [sys.executable, "-c", script]
    init = surroundings.spawn_as_init(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    assert init.communicate()[0] == "well\n"


def test_without_a_proc_of_its_own_nobody_is_found() -> None:
    """Process numbers of another PID namespace would be those of strangers."""
    script = """
import os
from svcnat.kernel import surroundings
print(surroundings.processes_with(surroundings.mounts(os.open("/proc", os.O_PATH))))
"""
    command = [sys.executable, "-c", script]
    init = surroundings.spawn_as_init(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    assert init.communicate()[0] == "[]\n"


def test_a_house_shows_its_own_processes(empty_netns: str) -> None:
    """Whoever starts there sees and signals what runs there, and nothing else; orphans are taken leave of."""
    keeper = surroundings.open_house()
    house = os.pidfd_open(keeper)

    def inside(script: str) -> str:
        return surroundings.call(empty_netns, {}, "", lambda: said("sh", "-c", script), house).strip()

    try:
        folder = Path.cwd()
        assert inside("ls -d /proc/[0-9]* | wc -l; pwd").split()[1] == str(folder)
        until(lambda: inside("tr '\\0' ' ' < /proc/1/cmdline") == "sleep infinity", "it to settle")
        number = inside("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!")
        assert (
            inside(f"test -d /proc/{number} && kill {number} && sleep 0.1; test -d /proc/{number} || echo gone")
            == "gone"
        )
        inside("sleep 1000 </dev/null >/dev/null 2>&1 &")
        namespace = Path(f"/proc/{keeper}/ns/pid").stat().st_ino
        assert len(in_pid_namespace(namespace)) == 2
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        os.close(house)
    assert in_pid_namespace(namespace) == []
