"""-f reads files, folders and standard input, each once and in order, and says everything that it cannot read."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from svcnat.errors import ManifestError, UsageError
from svcnat.store import folder
from svcnat.store.folder import read_sources


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """A folder with manifests, other files, and a folder below it."""
    (tmp_path / "below").mkdir()
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "below/d.yaml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.yaml").symlink_to("b.yaml")
    return tmp_path


def names(sources: list[tuple[str, bytes]], root: Path) -> list[str]:
    """The sources' names below `root`."""
    return [str(Path(name).relative_to(root)) for name, _ in sources]


def test_a_folder_gives_its_manifests_by_name(manifests: Path) -> None:
    """Only *.yaml, *.yml and *.json; a link to one already read adds nothing."""
    assert names(read_sources([str(manifests)]), manifests) == ["a.yml", "b.yaml", "c.json"]


def test_recursion_goes_below_but_not_through_links(manifests: Path) -> None:
    """A link to the folder itself would never end."""
    found = read_sources([str(manifests)], recursive=True)
    assert names(found, manifests) == ["a.yml", "b.yaml", "below/d.yaml", "c.json"]


def test_files_keep_the_order_given_and_any_name(manifests: Path) -> None:
    """What is named is read, whatever it is called; twice is once."""
    wanted = [str(manifests / name) for name in ("notes.txt", "b.yaml", "a.yml", "b.yaml")]
    assert read_sources(wanted) == [(name, Path(name).name.encode()) for name in wanted[:3]]


def test_standard_input_is_read_once() -> None:
    """A second - would read nothing, and is a mistake."""
    assert read_sources(["-"], stdin=io.BytesIO(b"x")) == [("<stdin>", b"x")]
    with pytest.raises(UsageError, match="only once"):
        read_sources(["-", "-"], stdin=io.BytesIO(b"x"))
    with pytest.raises(UsageError, match="no standard input"):
        read_sources(["-"])


def test_an_empty_name_is_not_this_folder(manifests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's unset variable must not apply whatever lies around."""
    monkeypatch.chdir(manifests)
    with pytest.raises(UsageError, match="not an empty name"):
        read_sources([""])


def test_everything_unreadable_is_said_at_once(tmp_path: Path) -> None:
    """Every path has its line, and nothing is read by halves."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    with pytest.raises(ManifestError) as caught:
        read_sources([str(tmp_path / "no"), "/dev/zero", str(tmp_path / "empty"), str(tmp_path), "x" * 300])
    assert [finding.reason for finding in caught.value.findings] == [
        "no such file or folder",
        "neither a file nor a folder",
        "no manifests here: their names must end in .json, .yaml, .yml; -R looks into the folders below",
        "no such file or folder",
        "file name too long",
    ]


def test_what_goes_while_its_folder_is_read_is_not_missed(tmp_path: Path) -> None:
    """Editors and programs remove files at any moment; a link that leads nowhere is another matter."""
    (tmp_path / "a.yaml").write_text("stays")
    enough = threading.Event()

    def come_and_go() -> None:
        while not enough.is_set():
            for number in range(50):
                (tmp_path / f"b{number}.yaml").write_text("goes")
            for number in range(50):
                (tmp_path / f"b{number}.yaml").unlink()

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(come_and_go)
        try:
            for _ in range(500):
                assert read_sources([str(tmp_path)])[0] == (str(tmp_path / "a.yaml"), b"stays")
        finally:
            enough.set()
        going.result()
    (tmp_path / "c.yaml").symlink_to("nowhere.yaml")
    with pytest.raises(ManifestError, match="no such file"):
        read_sources([str(tmp_path)])


def test_pipes_are_read_when_named_and_passed_over_in_folders(tmp_path: Path) -> None:
    """<(command) works; a pipe in a folder cannot make the command wait for ever."""
    reading, writing = os.pipe()
    os.write(writing, b"x")
    os.close(writing)
    try:
        assert read_sources([f"/dev/fd/{reading}"])[0][1] == b"x"
    finally:
        os.close(reading)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ManifestError, match="neither a file nor a folder"):
        read_sources([str(tmp_path)])


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk image by mistake does not fill the memory."""
    monkeypatch.setattr(folder, "MAX_BYTES", 1 << 20)
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(ManifestError, match="larger than 1 MiB"):
        read_sources([str(tmp_path)])


def test_addresses_of_the_web_are_refused() -> None:
    """What kubectl would fetch, root's tool does not."""
    with pytest.raises(UsageError, match=r"download https://example\.com/x\.yaml first"):
        read_sources(["https://example.com/x.yaml"])
