"""What /healthz asks: whether the rules keep up with what is asked of them."""

from __future__ import annotations

from svcnat.agent.freshness import Freshness, Health


class World:
    """A Freshness, and its clocks, which the test turns."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 1000.0, 5000.0
        self.freshness = Freshness(60, clock=lambda: self.monotonic, now=lambda: self.wall)

    def wait(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def health(self) -> Health:
        return self.freshness.health()


def test_idle_is_healthy() -> None:
    """Nothing is asked, so nothing is late, however long ago the last pass was; lastUpdated is now, as kube-proxy's."""
    world = World()
    assert world.health() == Health(fresh=True, updated=5000.0)
    world.freshness.requested("n1")
    world.freshness.passed("n1")
    world.wait(100_000)
    assert world.health() == Health(fresh=True, updated=105_000.0)


def test_late() -> None:
    """A request that waits longer than the grace makes it unhealthy, with the time of the last pass; a pass heals."""
    world = World()
    world.freshness.requested("n1")
    world.freshness.passed("n1")
    world.wait(10)
    world.freshness.requested("n1")
    world.wait(59)
    world.freshness.requested("n1")  # a later request does not make the first one younger
    assert world.health().fresh
    world.wait(1)
    assert world.health() == Health(fresh=False, updated=5000.0)
    world.freshness.passed("n1")
    assert world.health().fresh
    world.wait(1000)
    assert world.health().fresh


def test_a_first_pass_that_never_ends() -> None:
    """Unhealthy, too: a node that never had rules is none to send clients to."""
    world = World()
    world.freshness.requested("n1")
    world.wait(60)
    assert not world.health().fresh


def test_a_round_that_never_ends() -> None:
    """Unhealthy, although nothing was asked: it is the round that would have found out."""
    world = World()
    world.freshness.began()
    world.wait(59)
    assert world.health().fresh
    world.wait(1)
    assert world.health() == Health(fresh=False, updated=5000.0)
    assert world.freshness.under_way == 60
    world.freshness.ended()
    world.wait(1000)
    assert world.health().fresh
    assert world.freshness.under_way == 0


def test_a_pass_answers_what_came_before_it_began() -> None:
    """What was asked during a pass is not done by it."""
    world = World()
    world.freshness.requested("n1")
    world.wait(5)
    began = world.monotonic
    world.wait(10)
    world.freshness.requested("n1")
    world.wait(10)
    world.freshness.passed("n1", world.monotonic - began)
    world.wait(39)
    assert world.health().fresh
    world.wait(1)
    assert not world.health().fresh
    world.freshness.passed("n1", 0.5)
    world.wait(100)
    assert world.health().fresh


def test_each_target_counts() -> None:
    """One node that does not follow is enough, until it is none of ours any more."""
    world = World()
    for node in ("n1", "n2"):
        world.freshness.requested(node)
    world.wait(60)
    assert [world.freshness.keeps_up(node) for node in ("n1", "n2", "n3")] == [False, False, True]
    world.freshness.passed("n1")
    assert not world.health().fresh
    assert [world.freshness.keeps_up(node) for node in ("n1", "n2")] == [True, False]
    world.freshness.left("n2")
    assert world.health().fresh
    world.freshness.began()
    world.wait(60)
    assert not world.freshness.keeps_up("n1")
    world.freshness.ended()
    world.freshness.left("n2")


def test_clock_jumps() -> None:
    """The wall clock says when, never how long."""
    world = World()
    world.freshness.requested("n1")
    world.wall += 1e6
    assert world.health().fresh
    world.wall -= 2e6
    world.wait(60)
    assert not world.health().fresh
