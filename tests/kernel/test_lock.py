"""The lock of an agent, which lives long: others learn at once whose it is, and never wait for it."""

from __future__ import annotations

import os
import threading
import time

import pytest

from svcnat.errors import BusyError
from svcnat.kernel import lock


@pytest.fixture
def where(make_netns):
    return make_netns()


def test_nobody_waits_for_an_agent_and_all_learn_what_it_follows(where):
    with lock.writer(where, agent="/srv/state.db"):
        begun = time.monotonic()
        with pytest.raises(BusyError, match=rf"an agent \(pid {os.getpid()}\) .* equal to /srv/state.db"):
            lock.writer(where, patience=60).__enter__()
        assert time.monotonic() - begun < 30
        found = lock.holder(where)
        assert found is not None
        assert (found.pid, found.follows) == (os.getpid(), "/srv/state.db")
    assert lock.holder(where) is None
    with lock.writer(where, patience=0):
        found = lock.holder(where)
        assert found is not None
        assert not found.follows


def test_a_name_that_would_forge_a_line_is_shown_harmless_and_cut(where):
    with lock.writer(where, agent="a\n@svcnat/agent/forged \x1b[31m" + "x" * 200):
        found = lock.holder(where)
    assert found is not None
    assert found.follows.startswith("a?@svcnat/agent/forged ?[31mxxx")
    assert len(found.follows) == 94


def test_any_number_of_askers_is_answered_while_the_holder_hangs_up_now_and_then(where):
    with lock.writer(where, agent="x") as held:
        for _ in range(3):
            assert all(lock.holder(where) for _ in range(100))
            held.hang_up()


def test_an_agent_waits_for_a_command_that_is_writing(where):
    entered, go = threading.Event(), threading.Event()

    def command():
        with lock.writer(where):
            entered.set()
            go.wait(30)

    thread = threading.Thread(target=command)
    thread.start()
    assert entered.wait(30)
    threading.Timer(0.2, go.set).start()
    with lock.writer(where, agent="x", patience=30):
        thread.join()
