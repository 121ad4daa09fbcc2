"""``svcnat dns``: what it follows, how soon a change is answered, and how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import pytest

from svcnat import api
from svcnat.api.naming import answering, parse_address
from svcnat.cli.frame import main
from svcnat.dns import wire
from svcnat.errors import KernelError, SvcnatError, UsageError
from svcnat.kernel import netns
from tests.agents import runtime, until
from tests.dns.serving import loopback, udp
from tests.dns.upstream import upstream

MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}
"""


@pytest.fixture
def where(empty_netns: str) -> str:
    return loopback(empty_netns)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime() as found:
        yield found


def asks(where: str, name: str) -> list[str]:
    """The IPv4 addresses of a Service."""
    question = wire.question_of((name, "default", "svc", "cluster", "local"), 1)
    with udp(where) as client:
        client.send(wire.ask(1, question, recurse=True, edns=False, do=False))
        message = dns.message.from_wire(client.recv(4096))
    return [each.address for found in message.answer for each in found]


@contextlib.contextmanager
def running(where: str, folder: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "dns.log"
    place = ("--netns", where, "--upstream", "none") if where else ()
    command = [sys.executable, "-m", "svcnat", "dns", *place, *flags]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            until(lambda: "answering" in log.read_text() or process.poll() is not None, "the server's start")
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()


@contextlib.contextmanager
def beside(machine: str, folder: Path, *flags: str) -> Iterator[None]:
    """Serve as `svcnat dns` on a machine of its own."""
    with netns.entered(machine), running("", folder, *flags):
        yield


def ask_of(where: str, *words: str) -> str:
    """The code and the first answer that dig gets at 127.0.0.1."""
    with netns.entered(where):
        done = subprocess.run(
            ["dig", "@127.0.0.1", "+tries=1", "+time=10", *words], capture_output=True, text=True, check=False
        )
    answer = done.stdout.partition("ANSWER SECTION:\n")[2].split("\n")[0].split()[-1:]
    return " ".join([done.stdout.partition("status: ")[2].partition(",")[0], *answer])


def test_nobody_asks_himself(where: str, folder: Path) -> None:
    """Who answers everywhere asks none of the host's addresses, even if its resolv.conf names them."""
    servers = folder / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\nnameserver 10.255.0.1\nnameserver 127.0.0.53\n")
    manifest = write(folder, "a", "10.96.0.31")
    flags = ("-f", manifest, "--listen", "0.0.0.0", "--listen", "::", "--upstream", str(servers))
    with beside(where, folder, *flags):
        # Of the names of addresses, "no" is said at once if there is nobody to ask.
        assert ask_of(where, "-x", "192.0.2.1") == "NXDOMAIN"
        assert ask_of(where, "other.example.com") == "SERVFAIL"
        assert ask_of(where, "a.default.svc.cluster.local") == "NOERROR 10.96.0.31"


def test_the_same_address_elsewhere_is_another_server(where: str, make_netns: Callable[[], str], folder: Path) -> None:
    """Who answers at 127.0.0.1 of one namespace may ask 127.0.0.1 of another."""
    machine = loopback(make_netns())
    manifest = write(folder, "a", "10.96.0.31")
    flags = ("-f", manifest, "--netns", where, "--listen", "127.0.0.1", "--upstream", "127.0.0.1")
    with upstream(machine, "127.0.0.1"), beside(machine, folder, *flags):
        assert ask_of(where, "plain.example.com") == "NOERROR 192.0.2.1"


def write(folder: Path, name: str, ip: str) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(MANIFEST.format(name=name, ip=ip))
    return str(file)


def test_a_state_file_is_followed(where: str, folder: Path) -> None:
    """Whatever commands do to the objects is answered, without an agent."""
    state = str(folder / "state.db")
    target = ("--state", state, "--netns", where)
    assert main(("create", *target, "-f", write(folder, "a", "10.96.0.31"))) == 0
    with running(where, folder, "--state", state):
        assert asks(where, "a") == ["10.96.0.31"]
        assert main(("create", *target, "-f", write(folder, "b", "10.96.0.32"))) == 0
        until(lambda: asks(where, "b") == ["10.96.0.32"], "the new name")
        assert main(("delete", *target, "service", "a")) == 0
        until(lambda: asks(where, "a") == [], "the end of a name")


def test_manifests_are_followed(where: str, folder: Path) -> None:
    """A file that is written, one that is wrong for a while, and one that goes."""
    manifests = folder / "manifests"
    manifests.mkdir()
    write(manifests, "a", "10.96.0.31")
    with running(where, folder, "-f", str(manifests)) as process:
        assert asks(where, "a") == ["10.96.0.31"]
        write(manifests, "a", "10.96.0.33")
        until(lambda: asks(where, "a") == ["10.96.0.33"], "the new address")
        (manifests / "b.yaml").write_text("kind: [")
        until(lambda: "cannot be read" in (folder / "dns.log").read_text(), "a line about the mistake")
        assert asks(where, "a") == ["10.96.0.33"]
        write(manifests, "b", "10.96.0.34")
        until(lambda: asks(where, "b") == ["10.96.0.34"], "the other name")
        process.send_signal(signal.SIGHUP)
        (manifests / "a.yaml").unlink()
        until(lambda: asks(where, "a") == [], "the end of a name")


def test_a_change_is_answered_soon(where: str, folder: Path) -> None:
    """The wait between two looks is a twentieth of a second: the median of changes is answered within a tenth."""
    state = str(folder / "state.db")
    took = []
    with api.Cluster.open(state=state, netns=where) as cluster, running(where, folder, "--state", state):
        for n in range(15):
            cluster.create(api.load(write(folder, f"s{n}", f"10.96.1.{n + 1}")))
            began = time.perf_counter()
            until(lambda n=n: asks(where, f"s{n}") == [f"10.96.1.{n + 1}"], "the new name")
            took.append(time.perf_counter() - began)
    print(f"change to answer: median {sorted(took)[7] * 1000:.0f} ms, most {max(took) * 1000:.0f} ms")


def test_what_cannot_begin(where: str, folder: Path, capsys) -> None:
    """No objects, an address in use, or one that is not there: a line, and nothing is left."""
    missing = str(folder / "none.db")
    assert main(("dns", "--state", missing, "--netns", where)) == 1
    assert "none.db" in capsys.readouterr().err
    assert not Path(missing).exists()
    manifest = write(folder, "a", "10.96.0.31")
    assert main(("dns", "-f", manifest, "--netns", where, "--listen", "192.0.2.1")) == 1
    assert "cannot answer at 192.0.2.1:53" in capsys.readouterr().err
    with running(where, folder, "-f", manifest):
        assert main(("dns", "-f", manifest, "--netns", where)) == 1
        assert "in use" in capsys.readouterr().err
    for flags in (("--listen", "nowhere"), ("--domain", "a..b"), ("--upstream", "example.org")):
        assert main(("dns", "-f", manifest, "--netns", where, *flags)) == 2


def test_without_dnspython(folder: Path) -> None:
    """Who has not installed the extra is told how to."""
    code = "import sys; sys.modules['dns'] = None; from svcnat.cli.frame import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "dns", "-f", write(folder, "a", "10.96.0.31"), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "error: DNS needs the library dnspython: pip install '.[dns]'\n",
    )


def test_inside_an_event_loop(where: str, folder: Path) -> None:
    """Who has an event loop, as a lab's supervisor or a test, uses the same server as a context."""
    following = api.following(paths=[write(folder, "a", "10.96.0.31")])

    async def scene() -> tuple[str, ...]:
        async with answering(following, ["127.0.0.1", "::1"], where) as service:
            assert await asyncio.to_thread(asks, where, "a") == ["10.96.0.31"]
            return service.addresses

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number is wanted
    assert asyncio.run(scene()) == ("127.0.0.1:53", "[::1]:53")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 53)),
        ("10.0.0.1:5353", ("10.0.0.1", 5353)),
        ("FD00::1", ("fd00::1", 53)),
        ("[fd00::1]", ("fd00::1", 53)),
        ("[fd00::1]:5353", ("fd00::1", 5353)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    """As people write them."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "10.0.0.1:", "10.0.0.1:99999", "[10.0.0.1", "1.2.3", "::1]:5", "fe80::1%a"]
)
def test_no_addresses(text: str) -> None:
    """What is none is the caller's mistake."""
    with pytest.raises(UsageError):
        parse_address(text)
    assert issubclass(UsageError, SvcnatError)
    assert issubclass(KernelError, SvcnatError)
