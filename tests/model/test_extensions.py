"""The svcnat.io annotations have one grammar, for validation and for whoever acts on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from svcnat.model import extensions
from svcnat.model.extensions import Rate, Removal


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (extensions.parse_scheduler, "maglev", "maglev"),
        (extensions.parse_weight, "0", 0),
        (extensions.parse_weight, "1000", 1000),
        (extensions.parse_weights, '{"10.0.0.1": 3, "FD00::1": 0}', {"10.0.0.1": 3, "fd00::1": 0}),
        (extensions.parse_probe_results, '{"10.0.0.1": true, "FD00::1": false}', {"10.0.0.1": True, "fd00::1": False}),
        (extensions.parse_removal, "keep", Removal(None)),
        (extensions.parse_removal, "terminate", Removal(0)),
        (extensions.parse_removal, "terminate=30", Removal(30)),
        (extensions.parse_max_connections, "100", 100),
        (extensions.parse_rate, "10/second", Rate(10, 1)),
        (extensions.parse_rate, "5/day", Rate(5, 86400)),
    ],
)
def test_what_they_mean(parse: Callable[[str], object], text: str, value: object) -> None:
    """Every form that the documentation names."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (extensions.parse_scheduler, "Random"),
        (extensions.parse_weight, "-1"),
        (extensions.parse_weight, "1001"),
        (extensions.parse_weight, "01"),
        (extensions.parse_weight, "1" * 5000),
        (extensions.parse_weights, "{"),
        (extensions.parse_weights, "[" * 100_000),
        (extensions.parse_weights, "[]"),
        (extensions.parse_weights, '{"web": 1}'),
        (extensions.parse_weights, '{"10.0.0.1": true}'),
        (extensions.parse_weights, '{"10.0.0.1": 1001}'),
        (extensions.parse_weights, '{"10.0.0.1": "1"}'),
        (extensions.parse_probe_results, "[]"),
        (extensions.parse_probe_results, '{"web": true}'),
        (extensions.parse_probe_results, '{"10.0.0.1": 1}'),
        (extensions.parse_removal, "drop"),
        (extensions.parse_removal, "terminate="),
        (extensions.parse_removal, "terminate=soon"),
        (extensions.parse_max_connections, "0"),
        (extensions.parse_max_connections, "9999999999"),
        (extensions.parse_max_connections, "many"),
        (extensions.parse_rate, "10"),
        (extensions.parse_rate, "0/second"),
        (extensions.parse_rate, "10/week"),
    ],
)
def test_what_they_cannot_say(parse: Callable[[str], object], text: str) -> None:
    """Nonsense is a ValueError whose message says what is allowed."""
    with pytest.raises(ValueError, match=r"must be|is no IP address"):
        parse(text)
