"""When a container is started again: the kubelet's policies and delays."""

from __future__ import annotations

import pytest

from svcnat.lab.restarts import BackOff, comes_back


@pytest.mark.parametrize(
    ("policy", "code", "back"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 137, True), ("Never", 1, False)],
)
def test_restart_policies(policy: str, code: int, back: bool) -> None:
    """Always, OnFailure and Never mean what they do in Kubernetes."""
    assert comes_back(policy, code) is back


def test_delays_double_up_to_five_minutes() -> None:
    """At once, after 10 seconds, then twice as long each time, never longer than 5 minutes."""
    back_off, waits = BackOff(), []
    for _ in range(8):
        wait, back_off = back_off.after(1.0)
        waits.append(wait)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_container_that_ran_for_long_begins_anew() -> None:
    """After ten minutes without an end the delays are forgotten; they scale with the topology's base."""
    back_off = BackOff(0.1)
    for _ in range(4):
        _, back_off = back_off.after(0.0)
    assert back_off.after(6.0)[0] > 0
    wait, back_off = back_off.after(6.1)
    assert wait == 0
    assert back_off.after(0.0)[0] == 0.1
