"""What an Event must keep.

Source: core/v1 legacyValidateEvent, and for the type and the times what events.k8s.io/v1 asks for: Kubernetes lets
clients of core/v1 write anything there.
"""

from __future__ import annotations

from svcnat.model.objects import Event
from svcnat.model.validation.metadata import check_metadata, check_times
from svcnat.model.validation.names import check, check_choice, check_counts, dns_subdomain, qualified_name
from svcnat.model.validation.problems import Problem, invalid, required

TYPES = ("Normal", "Warning")
LONGEST_WORD = 128
LONGEST_MESSAGE = 1024


def check_event(event: Event) -> list[Problem]:
    """Return the problems of an Event."""
    problems = check_metadata(event.metadata, "Event", dns_subdomain)
    problems += _check_new(event) if event.event_time else _check_old(event)
    problems += check_choice("type", event.type or None, TYPES)
    series = event.series
    problems += check_counts({"count": event.count, "series.count": series.count if series else None})
    return problems + check_times(
        {
            "firstTimestamp": event.first_timestamp,
            "lastTimestamp": event.last_timestamp,
            "eventTime": event.event_time,
            "series.lastObservedTime": series.last_observed_time if series else None,
        }
    )


def _check_old(event: Event) -> list[Problem]:
    """Events without ``eventTime`` lie where their object does."""
    about = event.involved_object.namespace
    where = event.metadata.namespace
    return [] if where == about or (not about and where == "default") else [_elsewhere(about)]


def _check_new(event: Event) -> list[Problem]:
    problems = []
    about = event.involved_object.namespace
    if not about and event.metadata.namespace not in ("default", "kube-system"):
        problems.append(_elsewhere(about))
    needed = {
        "reportingComponent": event.reporting_component,
        "reportingInstance": event.reporting_instance,
        "action": event.action,
        "reason": event.reason,
    }
    problems += [required(name) for name, value in needed.items() if not value]
    if event.reporting_component:
        problems += check("reportingComponent", event.reporting_component, qualified_name)
    bounded = {name: (value, LONGEST_WORD) for name, value in needed.items() if name != "reportingComponent"}
    for name, (value, longest) in {**bounded, "message": (event.message, LONGEST_MESSAGE)}.items():
        if len(value) > longest:
            problems.append(invalid(name, "", f"can have at most {longest} characters"))
    return problems


def _elsewhere(namespace: str) -> Problem:
    return invalid("involvedObject.namespace", namespace, "does not match event.namespace")
