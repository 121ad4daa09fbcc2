"""AGE is kubectl's, to the letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from svcnat.cli.ages import age, human_duration

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR = 365 * DAY


# The cases of k8s.io/apimachinery/pkg/util/duration, and both sides of every step.
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3600, "<invalid>"),
        (-2, "<invalid>"),
        (-1.5, "0s"),
        (-1, "0s"),
        (0, "0s"),
        (0.9, "0s"),
        (1, "1s"),
        (70, "70s"),
        (119, "119s"),
        (120, "2m"),
        (190, "3m10s"),
        (599, "9m59s"),
        (600, "10m"),
        (10 * MINUTE + 30, "10m"),
        (70 * MINUTE, "70m"),
        (179 * MINUTE + 59, "179m"),
        (180 * MINUTE, "3h"),
        (3 * HOUR + 10 * MINUTE, "3h10m"),
        (8 * HOUR - 1, "7h59m"),
        (8 * HOUR, "8h"),
        (10 * HOUR + 30 * MINUTE, "10h"),
        (48 * HOUR - 1, "47h"),
        (48 * HOUR, "2d"),
        (2 * DAY + 5 * HOUR, "2d5h"),
        (8 * DAY - 1, "7d23h"),
        (8 * DAY, "8d"),
        (16 * DAY, "16d"),
        (100 * DAY, "100d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 22 * HOUR, "2y"),
        (4 * YEAR + 10 * DAY, "4y10d"),
        (8 * YEAR - 1, "7y364d"),
        (8 * YEAR, "8y"),
        (10 * YEAR + 100 * DAY, "10y"),
    ],
)
def test_durations_read_as_kubectls(seconds: float, text: str) -> None:
    """Two or three significant figures, with kubectl's thresholds."""
    assert human_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2026-05-17T10:00:00Z", "2m"),
        ("2026-05-17T12:00:00+02:00", "2m"),
        (None, "<unknown>"),
        ("", "<unknown>"),
        ("yesterday", "<invalid>"),
        ("2026-05-17T10:00:00", "<invalid>"),
        ("2026-05-17T11:00:00Z", "<invalid>"),
    ],
)
def test_an_age_is_told_for_any_timestamp(created: str | None, text: str) -> None:
    """What is no time, or none yet, is named and never a traceback."""
    assert age(created, datetime(2026, 5, 17, 10, 2, tzinfo=UTC)) == text
