"""When a container that ended is started again: restart policies and the kubelet's back-off.

Pure: no clock, no process. Source: the kubelet's ``doBackOff`` (pkg/kubelet/kuberuntime) and client-go's
``util/flowcontrol``: the first restart comes at once, the second after 10 seconds, then twice as many each time, up to
5 minutes; a container that ran for ten minutes begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from svcnat.lab.supervision import Part

BASE_SECONDS = 10.0

_MOST = 30  # times the base: five minutes
_FORGIVEN = 60  # times the base: ten minutes


def policy_of(part: Part, policy: str) -> str:
    """The restart policy of a container in a pod of that policy: init containers are to succeed, sidecars to stay."""
    if part == "sidecar":
        return "Always"
    return "OnFailure" if part == "init" and policy == "Always" else policy


def comes_back(policy: str, code: int) -> bool:
    """Tell whether a container that ended with that exit code is started again."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long a container waits before it is started again; `next` is that of the next time."""

    base: float = BASE_SECONDS
    next: float = 0.0

    def after(self, ran: float) -> tuple[float, BackOff]:
        """The seconds to wait for a container that `ran` for so many, and what holds then."""
        wait = 0.0 if ran > _FORGIVEN * self.base else self.next
        return wait, BackOff(self.base, min(wait * 2, _MOST * self.base) if wait else self.base)
