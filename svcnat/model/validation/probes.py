"""What a readiness probe must keep, on a container and in the annotation ``svcnat.io/probe``.

Source: core/v1 validateReadinessProbe and validateHandler. Liveness and startup probes are nobody's business here, so
they are not looked at. Whether a named port exists is found out when the probe runs, as the kubelet does.
"""

from __future__ import annotations

import re

from svcnat.model.extensions import parse_probe
from svcnat.model.objects import HTTPGetAction, Probe
from svcnat.model.validation.names import PORT_TEXT, check, check_choice, check_counts, check_port, port_name
from svcnat.model.validation.problems import Problem, forbidden, invalid, required

SCHEMES = ("HTTP", "HTTPS")

_HEADER = re.compile("[-A-Za-z0-9]+")
_HEADER_TEXT = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
    "validation is '[-A-Za-z0-9]+')"
)


def check_readiness_probe(probe: Probe, path: str, *, needs_port: bool = True) -> list[Problem]:
    """Return the problems of a probe that has its defaults; `path` is "" for one that stands alone.

    Without `needs_port`, a probe of no port has one to fall back on.
    """
    at = f"{path}." if path else ""
    problems: list[Problem] = []
    handlers = [name for name, given in _handlers(probe).items() if given]
    if not handlers:
        problems.append(required(path, "must specify a handler type"))
    problems += [forbidden(f"{at}{name}", "may not specify more than 1 handler type") for name in handlers[1:]]
    if handlers[:1] == ["exec"] and probe.exec and not probe.exec.command:
        problems.append(required(f"{at}exec.command"))
    action = probe.http_get or probe.tcp_socket or probe.grpc
    if action and handlers[0] != "exec" and (needs_port or action.port is not None):
        problems += _check_port(f"{at}{handlers[0]}.port", action.port)
    if handlers[:1] == ["httpGet"] and probe.http_get:
        problems += _check_http(probe.http_get, f"{at}httpGet")
    problems += check_counts(
        {
            f"{at}initialDelaySeconds": probe.initial_delay_seconds,
            f"{at}timeoutSeconds": probe.timeout_seconds,
            f"{at}periodSeconds": probe.period_seconds,
            f"{at}successThreshold": probe.success_threshold,
            f"{at}failureThreshold": probe.failure_threshold,
        }
    )
    grace = probe.termination_grace_period_seconds
    if grace is not None:
        problems.append(invalid(f"{at}terminationGracePeriodSeconds", grace, "must not be set for readinessProbes"))
    return problems


def _handlers(probe: Probe) -> dict[str, object]:
    return {"exec": probe.exec, "httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "grpc": probe.grpc}


def _check_port(path: str, port: int | str | None) -> list[Problem]:
    if isinstance(port, str):
        return check(path, port, port_name) if port else [invalid(path, port, PORT_TEXT)]
    return check_port(path, port or 0)


def _check_http(action: HTTPGetAction, path: str) -> list[Problem]:
    problems = check_choice(f"{path}.scheme", action.scheme, SCHEMES)
    for index, header in enumerate(action.http_headers):
        if not _HEADER.fullmatch(header.name):
            problems.append(invalid(f"{path}.httpHeaders", header.name, _HEADER_TEXT))
        if not header.value.replace("\t", " ").isprintable():
            text = "must not contain control characters"
            problems.append(invalid(f"{path}.httpHeaders[{index}].value", header.value, text))
    return problems


def check_annotation(text: str) -> None:
    """Check the annotation ``svcnat.io/probe``.

    Raises:
        ValueError: it is no probe of hand-written endpoints; the message says what is wrong.

    """
    probe = parse_probe(text)
    problems = [f"{each}" if each.field else each.reason for each in check_readiness_probe(probe, "", needs_port=False)]
    if probe.exec:
        problems.append("exec: Forbidden: there is no container to run a command in")
    if problems:
        raise ValueError("; ".join(problems))
