"""`run -f`: an agent, as a process of its own, follows files, however they are changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.kernel import netns
from tests.agents import Agent, runtime, until

pytestmark = pytest.mark.packets


def web(last: int, name: str = "web") -> str:
    """A Service of which one endpoint tells it from others."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [192.0.2.{last}]}}]
"""


class Followed:
    """A namespace, and an agent that follows files there."""

    def __init__(self, where: str, agent: Agent) -> None:
        self.where, self.agent = where, agent

    def endpoints(self) -> set[int]:
        """The last numbers of the endpoints' addresses that the rules have."""
        with netns.entered(self.where):
            done = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True)
        return {number for number in range(1, 100) if f": 192.0.2.{number} . 8080" in done.stdout}

    def wait_for(self, *numbers: int) -> None:
        """Wait until these endpoints have rules, and no others."""
        until(lambda: self.endpoints() == set(numbers), f"endpoints {numbers}")


@pytest.fixture(scope="module")
def where() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    name = f"svcnat-test-{uuid.uuid4().hex[:12]}"
    netns.create(name)
    yield name
    netns.delete(name)


@pytest.fixture(scope="module")
def home(where: str) -> Iterator[tuple[Path, Followed]]:
    """One agent for all tests, which follows a folder, a file in another, and what a link means."""
    with runtime() as made:
        folder, other = made / "manifests", made / "other"
        for each in (folder, other, made / "v1", made / "v2"):
            each.mkdir()
        (folder / "web.yaml").write_text(web(1))
        (other / "named.manifest").write_text(web(50, "named"))
        (made / "v1/linked.yaml").write_text(web(60, "linked"))
        (made / "v2/linked.yaml").write_text(web(61, "linked"))
        (made / "current").symlink_to("v1")
        paths = [str(folder), str(other / "named.manifest"), str(made / "current")]
        flags = [word for path in paths for word in ("-f", path)]
        with Agent(made, where, *flags, "-R") as agent:
            yield made, Followed(where, agent)


@pytest.fixture
def followed(home: tuple[Path, Followed]) -> Iterator[Followed]:
    """The agent, with everything as it was at its beginning."""
    made, found = home
    found.wait_for(1, 50, 60)
    yield found
    shutil.rmtree(made / "manifests", ignore_errors=True)
    (made / "manifests").mkdir()
    (made / "manifests/web.yaml").write_text(web(1))
    (made / "other/named.manifest").write_text(web(50, "named"))
    replace_link(made / "current", "v1")


@pytest.fixture
def folder(home: tuple[Path, Followed]) -> Path:
    return home[0] / "manifests"


def replace_link(link: Path, target: str | Path) -> None:
    """As `ln -sfn` with a rename does: the link is there all the time."""
    new = link.with_name("..new")
    new.symlink_to(target)
    new.rename(link)


def test_files_are_written_and_replaced(followed: Followed, folder: Path) -> None:
    """In place, as scripts do; by a rename over it, as editors do, also by way of a backup; more files, and fewer."""
    file = folder / "web.yaml"
    file.write_text(web(2))
    followed.wait_for(2, 50, 60)
    draft = folder / ".web.yaml.swp"
    draft.write_text(web(3))
    draft.rename(file)
    followed.wait_for(3, 50, 60)
    # vim's way: the file is moved away, and another one takes its name.
    file.rename(folder / "web.yaml~")
    file.write_text(web(4))
    (folder / "web.yaml~").unlink()
    followed.wait_for(4, 50, 60)
    (folder / "more.yml").write_text(web(5, "more"))
    followed.wait_for(4, 5, 50, 60)
    file.unlink()
    followed.wait_for(5, 50, 60)


def test_a_file_that_is_named_is_replaced(followed: Followed, home: tuple[Path, Followed]) -> None:
    """The file is another one then, of which nobody was told before."""
    file = home[0] / "other/named.manifest"
    for number in (51, 52):
        draft = home[0] / "draft"
        draft.write_text(web(number, "named"))
        draft.rename(file)
        followed.wait_for(1, number, 60)
    file.write_text(web(53, "named"))
    followed.wait_for(1, 53, 60)


def test_links_are_exchanged(followed: Followed, home: tuple[Path, Followed], folder: Path) -> None:
    """One that is followed; the one of a volume that kubelet updates; and what one means is written, far away."""
    made = home[0]
    replace_link(made / "current", "v2")
    followed.wait_for(1, 50, 61)
    (made / "v2/linked.yaml").write_text(web(62, "linked"))
    followed.wait_for(1, 50, 62)
    replace_link(made / "current", "v1")
    followed.wait_for(1, 50, 60)
    for number, version in ((7, "..1"), (8, "..2")):
        (folder / version).mkdir()
        (folder / version / "volume.yaml").write_text(web(number, "volume"))
    (folder / "..data").symlink_to("..1")
    (folder / "volume.yaml").symlink_to("..data/volume.yaml")
    # -R reads what is in the folders, too, where it is the same Service twice: that is a mistake, and told.
    until(lambda: followed.agent.said("the objects cannot be read", "volume.yaml"), "a line about the second one")
    shutil.rmtree(folder / "..2")
    followed.wait_for(1, 7, 50, 60)
    elsewhere = made / "elsewhere.yaml"
    elsewhere.write_text(web(9, "elsewhere"))
    (folder / "elsewhere.yaml").symlink_to(elsewhere)
    followed.wait_for(1, 7, 9, 50, 60)
    elsewhere.write_text(web(10, "elsewhere"))
    followed.wait_for(1, 7, 10, 50, 60)


def test_a_mistake_keeps_the_rules(followed: Followed, folder: Path) -> None:
    """It is told with its file and line, once, and `status` has it; every other file waits until it is corrected."""
    since = len(followed.agent.lines())
    file = folder / "web.yaml"
    file.write_text(web(2).replace("port: 80}", "port: 99999}"))
    said = until(lambda: followed.agent.said("the objects cannot be read", since=since), "a line about the mistake")
    assert f"{file}:5" in said
    assert "spec.ports[0].port" in said
    (folder / "more.yaml").write_text(web(5, "more"))
    assert followed.agent.ask()
    assert followed.endpoints() == {1, 50, 60}
    state = followed.agent.ask()
    assert state
    assert "spec.ports[0].port" in state.troubles[0]
    file.write_text("{ this is : no : manifest")
    until(lambda: followed.agent.said("the objects cannot be read", f"{file}:1", since=since), "a line about no YAML")
    file.write_text(web(2))
    followed.wait_for(2, 5, 50, 60)
    assert followed.agent.said("the objects can be read again", since=since)
    told = [line for line in followed.agent.lines()[since:] if "spec.ports[0].port" in line]
    assert len(told) == 1


def test_the_folder_goes_and_comes_again(followed: Followed, folder: Path) -> None:
    """The rules stay meanwhile; what is then in the new folder is followed, and what happens there later."""
    since = len(followed.agent.lines())
    shutil.rmtree(folder)
    until(lambda: followed.agent.said("the objects cannot be read", since=since), "a line about the folder")
    assert followed.endpoints() == {1, 50, 60}
    for number in (2, 4):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "below").mkdir()
        (folder / "below/web.yaml").write_text(web(number))
        followed.wait_for(number, 50, 60)
        (folder / "below/web.yaml").write_text(web(number + 1))
        followed.wait_for(number + 1, 50, 60)
    # Another folder takes its place in one step.
    draft = folder.with_name("draft.d")
    draft.mkdir()
    (draft / "web.yaml").write_text(web(6))
    folder.rename(folder.with_name("old.d"))
    draft.rename(folder)
    followed.wait_for(6, 50, 60)
    shutil.rmtree(folder.with_name("old.d"))
    (folder / "web.yaml").write_text(web(7))
    followed.wait_for(7, 50, 60)
