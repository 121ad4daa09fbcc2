"""Who a process is, in words that are safe to print and never guessed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from svcnat.kernel.process import describe, printable
from tests.processes import ending


def test_a_process_is_its_name_its_number_and_its_command_line() -> None:
    """Enough to find who did it."""
    command = [sys.executable, "-c", "print(flush=True); input()", "a\nb\x1b[31m", "x" * 500]
    with ending(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as running:
        assert running.stdout is not None
        running.stdout.readline()  # it runs its own program by now
        name = Path(f"/proc/{running.pid}/comm").read_text().strip()
        said = describe(running.pid)
        assert said.startswith(
            f"{name} (pid {running.pid}, {sys.executable} -c print(flush=True); input() a?b?[31m xxx"
        )
        assert said.endswith("xxx...)")
        assert said.isprintable()
        assert len(said) < 200
        assert describe(running.pid, name) == said
        running.communicate(b"\n")
    assert describe(running.pid, "nft") == f"nft (pid {running.pid})"


def test_a_number_that_means_another_process_now_is_not_believed() -> None:
    """Numbers are used again: the name that came with it is what is known."""
    assert describe(os.getpid(), "nft") == f"nft (pid {os.getpid()})"
    assert describe(0, "nft") == "nft"
    assert describe(0) == "an unknown process"
    assert describe(2**30) == f"pid {2**30}"


def test_a_thread_is_known_by_its_process() -> None:
    """The kernel names threads."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(describe(threading.get_native_id())))
    thread.start()
    thread.join()
    assert sys.executable.rpartition("/")[2][:6] in found[0]


def test_what_a_terminal_acts_upon_becomes_a_question_mark() -> None:
    """And nothing else."""
    assert printable("a\x1b\n\0é\u202e") == "a???é?"
