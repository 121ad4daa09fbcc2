"""Labs of people without root: the same commands, real packets, and nothing left, whatever is killed."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents import until
from tests.lab import people
from tests.lab.conftest import unused_name
from tests.lab.people import Person

pytestmark = [pytest.mark.packets]

SERVER = """
import os, socketserver
class Conversation(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"%s of user %d heard %s" % (os.uname().nodename.encode(), os.getuid(), line))
print("listening", flush=True)
socketserver.ThreadingTCPServer(("", 7000), Conversation).serve_forever()
"""

CLIENT = """
import socket, sys
with socket.create_connection(("10.96.7.7", int(sys.argv[1])), timeout=10) as connection:
    connection.sendall(b"hello\\n")
    print(connection.makefile().readline(), end="")
"""

PAGE = "import urllib.request; print(urllib.request.urlopen('http://10.96.7.7', timeout=10).read().decode(), end='')"

MANIFESTS = f"""
apiVersion: svcnat.io/v1alpha1
kind: Topology
images:
  program: {json.dumps([sys.executable, "-c", SERVER])}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: 10.96.7.7, selector: {{app: web}}, ports: [{{name: a, port: 80}}, {{name: b, port: 7000}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - {{name: page, image: any, ports: [{{containerPort: 80}}]}}
      - {{name: program, image: program, readinessProbe: {{tcpSocket: {{port: 7000}}, periodSeconds: 1}}}}
"""

TWIN = "{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {clusterIP: 10.96.7.7, ports: [{port: 1}]}}\n"

_UIDS = itertools.count(60_000 + os.getpid() % 1_000)


@pytest.fixture
def somebody() -> Iterator[Callable[[], Person]]:
    """A function that gives people, none of whom has a lab afterwards."""
    if os.geteuid() != 0 or not people.have_tools():
        pytest.skip("needs root, or `unshare -rnm`, and setpriv, unshare and mount")
    known: list[Person] = []

    def appear() -> Person:
        home = Path(tempfile.mkdtemp(prefix="svcnat-test-", dir="/tmp"))
        person = Person(None if people.one_user() else next(_UIDS), home)
        known.append(person)
        if person.uid is not None:
            os.chown(home, person.uid, person.uid)
        seen = person.run(sys.executable, "-c", "import svcnat.cli.frame")
        if seen.returncode:
            pytest.skip(f"other users cannot read this checkout: {seen.stderr}")
        return person

    yield appear
    for person in known:
        person.svcnat("lab", "down", "--all")
        assert person.processes() == []
        assert person.files() == []
        shutil.rmtree(person.home)


@pytest.fixture
def user(somebody: Callable[[], Person]) -> Person:
    """Somebody without root."""
    return somebody()


def _pods(person: Person, lab: str) -> list[str]:
    return person.svcnat("--lab", lab, "get", "pods", "-o", "name").split()


def _keeper(person: Person, lab: str) -> int:
    return int(json.loads((person.runtime / "rootless" / lab).read_bytes())["process"]["pid"])


def test_everything_works_as_for_root(user: Person) -> None:
    """Services, programs, exec, logs, changes: the same commands, which find the lab by themselves."""
    lab = unused_name()
    done = user.run(sys.executable, "-m", "svcnat", "lab", "up", lab, "--rootless", "-f", "-", given=MANIFESTS)
    assert done.stdout == f"lab {lab} is up: 1 node, 1 pod, 1 client\n", done.stderr
    assert done.stderr.startswith(f"lab {lab} has one user, root: programs that become another fail")
    assert user.svcnat("lab", "list", "--no-headers").split() == [lab, "running", "1", "1"]
    (pod,) = _pods(user, lab)
    name = pod.removeprefix("pod/")
    assert user.svcnat("lab", "exec", "client", "--", sys.executable, "-c", PAGE).startswith(name)
    asked = user.svcnat("--lab", lab, "lab", "exec", name, "--", sys.executable, "-c", CLIENT, "7000")
    assert asked == f"{name} of user 0 heard hello\n"
    assert user.svcnat("logs", name, "-c", "program") == "listening\n"
    assert user.svcnat("exec", name, "--", "hostname").strip() == name
    by_name = PAGE.replace("10.96.7.7", "web.default")
    assert user.svcnat("lab", "exec", name, "--", sys.executable, "-c", by_name).startswith(name)

    user.svcnat("--lab", lab, "scale", "deployment/web", "--replicas", "3")
    until(lambda: user.svcnat("--lab", lab, "get", "deployments").count("3/3") == 1, "three pods are ready")
    described = user.svcnat("--lab", lab, "describe", "service", "web")
    assert described.count(":7000") == 6  # each as an endpoint, and with what it got
    assert "equal to the objects" in user.svcnat("--lab", lab, "status")
    assert " in order" in user.svcnat("--lab", lab, "doctor")

    assert user.svcnat("lab", "down", lab) == f"lab {lab} is down\n"
    assert (user.processes(), user.files()) == ([], [])


def test_without_the_flag_it_is_named(user: Person) -> None:
    """Somebody without root who asks for a lab is told how to have one, in one line."""
    if user.uid is None:
        pytest.skip("everybody is root here")
    assert user.refused("lab", "up", "x") == (
        "error: labs need root; without it, `svcnat lab up --rootless` builds one that is yours\n"
    )


def test_people_do_not_meet(somebody: Callable[[], Person]) -> None:
    """Labs of the same name and addresses, of two people at once; neither gets into the other's, nor does root."""
    if people.one_user():
        pytest.skip("there is one user here")
    one, two = somebody(), somebody()
    lab = unused_name()
    for each in (one, two):
        each.svcnat("lab", "up", lab, "--rootless", "-f", "-", given=MANIFESTS)
    (mine,), (theirs,) = _pods(one, lab), _pods(two, lab)
    assert mine != theirs
    for each, pod in ((one, mine), (two, theirs)):
        assert f"pod/{each.svcnat('lab', 'exec', 'client', '--', sys.executable, '-c', PAGE)}".startswith(pod)

    root = Person(None, one.home)
    assert "is another user's" in root.refused("--lab", lab, "get", "pods")
    assert "is another user's" in root.refused("lab", "down", lab)
    assert root.svcnat("lab", "list", "--no-headers").split() == [lab, "running", "1", "1"]
    assert _pods(one, lab) == [mine]


def test_a_killed_keeper_takes_all_with_it(user: Person) -> None:
    """Whatever is killed with kill -9, no process stays; what became of the lab is said, and `lab down` tidies up."""
    lab = unused_name()
    user.svcnat("lab", "up", lab, "--rootless", "-f", "-", given=MANIFESTS)
    with user.start(sys.executable, "-m", "svcnat", "lab", "exec", "client", "--", "sleep", "1000") as visitor:
        until(lambda: len(user.processes()) > 3, "the lab runs")
        os.kill(_keeper(user, lab), signal.SIGKILL)
        visitor.wait(people.PATIENCE)
    until(lambda: user.processes() == [], "nothing runs")
    assert user.svcnat("lab", "list", "--no-headers").split() == [lab, "broken", "0", "0"]
    ended = f"error: lab {lab} has ended, with its keeper: `svcnat lab down {lab}` removes what is left\n"
    assert user.refused("--lab", lab, "get", "pods") == ended
    assert (
        user.refused("lab", "up", lab, "--rootless")
        == f"error: lab {lab} exists already: `svcnat lab down {lab}` removes it\n"
    )
    assert user.svcnat("lab", "down", lab) == f"lab {lab} is down\n"
    assert user.files() == []


def test_a_keeper_whose_file_is_gone_ends(user: Person) -> None:
    """Somebody deletes the runtime folder, or the session ends and it goes: the lab's processes end with it."""
    lab = unused_name()
    user.svcnat("lab", "up", lab, "--rootless", "-f", "-", given=MANIFESTS)
    shutil.rmtree(user.runtime)
    until(lambda: user.processes() == [], "nothing runs")
    shutil.rmtree(user.runtime, ignore_errors=True)  # an agent may have begun to listen anew before it ended


def test_what_cannot_be_built_leaves_nothing(user: Person) -> None:
    """An object that is refused, a build that is killed: no keeper stays behind."""
    lab = unused_name()
    twins = "".join(f"---\n{TWIN.replace('NAME', name)}" for name in ("one", "two"))
    done = user.run(sys.executable, "-m", "svcnat", "lab", "up", lab, "--rootless", "-f", "-", given=twins)
    assert done.returncode == 1
    assert "10.96.7.7" in done.stderr
    until(lambda: user.processes() == [], "nothing runs")
    assert user.files() == []

    with user.start(sys.executable, "-m", "svcnat", "lab", "up", lab, "--rootless") as building:
        until(lambda: (user.runtime / "labs" / lab).exists() or building.poll() is not None, "it begins")
        building.kill()
    # What was killed there and then may have been about to make this or that.
    user.run(sys.executable, "-m", "svcnat", "lab", "down", lab)
    until(lambda: user.processes() == [], "nothing runs")


def test_a_command_ends_as_what_it_runs(user: Person) -> None:
    """The exit code is the command's, also if a signal ended it, and signals reach it."""
    lab = unused_name()
    user.svcnat("lab", "up", lab, "--rootless")
    inside = (sys.executable, "-m", "svcnat", "lab", "exec", "client", "--", "sh", "-c")
    assert user.run(*inside, "exit 7").returncode == 7
    assert user.run(*inside, "kill -9 $$").returncode == 137
    script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with user.start(*inside, script) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        running.terminate()
        assert running.communicate(timeout=people.PATIENCE)[0] == "asked\n"
        assert running.returncode == 3
    where = user.run(*inside, "pwd", given="")
    assert where.stdout == f"{Path.cwd()}\n"


SCRIPT = """
import os, sys, threading
import svcnat
name = sys.argv[1]
lab = svcnat.Lab.up(name, "-", rootless=True) if len(sys.argv) > 2 else svcnat.Lab.find(name)
with lab:
    print(os.getuid(), lab.run("client", lambda: len(open("/proc/thread-self/net/dev").readlines())))
    if sys.argv[2:] == ["down"]:
        lab.down()
        print("still here")
sys.exit(5)
"""


def test_a_program_goes_on_inside(user: Person, tmp_path: Path) -> None:
    """Python programs find rootless labs as commands do, and go on in them, after the lab too; never with threads."""
    lab = unused_name()
    user.svcnat("lab", "up", lab, "--rootless")
    script = SCRIPT.replace('"-", rootless', "rootless")
    done = user.run(sys.executable, "-c", script, lab)
    assert (done.returncode, done.stdout) == (5, "0 4\n"), done.stderr
    thread = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    done = user.run(sys.executable, "-c", f"import threading, svcnat\n{thread}\nsvcnat.Lab.find({lab!r})")
    assert f"a program with threads cannot enter the rootless lab {lab}: find the lab before" in done.stderr
    user.svcnat("lab", "down", lab)

    done = user.run(sys.executable, "-c", script, lab, "down")
    assert (done.returncode, done.stdout) == (5, "0 4\nstill here\n"), done.stderr
    assert (user.processes(), user.files()) == ([], [])


TESTED = """
import os, pytest

@pytest.mark.parametrize("number", range(2))
def test_it(svcnat_lab, number):
    svcnat_lab.apply(MANIFESTS)
    assert svcnat_lab.connect("web").pod == "web"
    assert os.geteuid() == 0
"""

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
"""


def test_tests_with_labs_need_no_root_either(user: Person) -> None:
    """With --svcnat-rootless a run is in a user namespace, in every process of pytest-xdist."""
    file = user.home / "test_it.py"
    file.write_text(TESTED.replace("MANIFESTS", repr(WEB)))
    words = ("-m", "pytest", "-q", "-n", "2", "--svcnat-rootless", "-p", "no:cacheprovider", f"--rootdir={user.home}")
    done = user.run(sys.executable, *words, str(file))
    assert "2 passed" in done.stdout, f"{done.stdout}{done.stderr}"


def test_where_user_namespaces_are_off_it_says_so(user: Person) -> None:
    """The kernel's limit is named with the command that lifts it; nothing is left."""
    limit = "echo 0 >/proc/sys/user/max_user_namespaces"
    words = (sys.executable, "-m", "svcnat", "lab", "up", "x", "--rootless")
    done = user.run("unshare", "-r", "sh", "-c", f'{limit} && exec "$@"', "sh", *words)
    assert done.returncode == 1
    assert done.stderr == (
        "error: no user namespace for somebody without root: the limit is 0: "
        "as root, `sysctl -w user.max_user_namespaces=10000` allows them\n"
    )
    assert user.files() == []


def test_labs_nest(user: Person) -> None:
    """A CI job that is in a user namespace already may have rootless labs in it."""
    lab = unused_name()
    script = f"""
set -e
svcnat() {{ {sys.executable} -m svcnat "$@"; }}
svcnat lab up {lab} --rootless -f -
svcnat lab exec client -- {sys.executable} -c {shlex.quote(PAGE)}
svcnat lab down {lab}
"""
    done = user.run("unshare", "-rnm", "sh", "-c", script, given=MANIFESTS)
    assert done.returncode == 0, done.stderr
    assert f"lab {lab} is down" in done.stdout
    assert "10.244.0.2 saw 172.30.0.11" in done.stdout
