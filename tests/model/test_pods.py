"""What a Pod's status says."""

from __future__ import annotations

from svcnat.model.objects import Condition, Pod, PodIP, PodStatus
from svcnat.model.pods import addresses_of, has_ended, is_ready


def test_only_the_condition_makes_a_pod_ready() -> None:
    """A phase does not, nor another condition."""
    assert is_ready(Pod(status=PodStatus(conditions=[Condition(type="Ready", status="True")])))
    for conditions in ([], [Condition(type="Ready", status="False")], [Condition(type="Initialized", status="True")]):
        assert not is_ready(Pod(status=PodStatus(phase="Running", conditions=conditions)))


def test_pods_that_have_ended() -> None:
    """Well or badly."""
    phases = ("", "Pending", "Running", "Succeeded", "Failed", "Unknown")
    assert [phase for phase in phases if has_ended(Pod(status=PodStatus(phase=phase)))] == ["Succeeded", "Failed"]


def test_addresses_in_either_field() -> None:
    """The list counts, and where there is none, the older field."""
    both = PodStatus(pod_ip="10.0.0.1", pod_ips=[PodIP(ip="10.0.0.1"), PodIP(ip="fd00::1")])
    assert addresses_of(Pod(status=both)) == ["10.0.0.1", "fd00::1"]
    assert addresses_of(Pod(status=PodStatus(pod_ip="10.0.0.1"))) == ["10.0.0.1"]
    assert addresses_of(Pod()) == []
