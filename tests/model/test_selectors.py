"""Selectors pick what kubectl's and Kubernetes' would."""

import pytest

from svcnat.errors import UsageError
from svcnat.model.objects import LabelSelector, SelectorRequirement
from svcnat.model.selectors import Selector, matches

LABELS = {"app": "web", "tier": "front", "age": "7", "empty": ""}


def test_equality() -> None:
    """All pairs must be there; an empty selector asks for none."""
    assert matches({"app": "web"}, LABELS)
    assert matches({"app": "web", "tier": "front"}, LABELS)
    assert matches({}, LABELS)
    assert not matches({"app": "db"}, LABELS)
    assert not matches({"zone": "a"}, LABELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("  ", True),
        ("app=web", True),
        ("app==web", True),
        (" app = web , tier = front ", True),
        ("app=db", False),
        ("empty=", True),
        ("app!=web", False),
        ("zone!=a", True),
        ("app in (db, web)", True),
        ("app in (db)", False),
        ("app notin (db),tier", True),
        ("zone notin (a)", True),
        ("app", True),
        ("zone", False),
        ("!zone", True),
        ("! app", False),
        ("age>6", True),
        ("age<6", False),
        ("app>6", False),
        ("zone<6", False),
        ("a.b/c!=x", True),
    ],
)
def test_text_form(text: str, expected: bool) -> None:
    """Every operator of ``kubectl -l``, with white space anywhere."""
    assert Selector.parse(text).matches(LABELS) is expected


@pytest.mark.parametrize("text", ["=web", "app=web,", "app=we b", "app in web", "!app=web", "app>x", "a,,b", "-a"])
def test_nonsense_is_one_clear_error(text: str) -> None:
    """What is no selector is the user's error, not a crash and not a silent match."""
    with pytest.raises(UsageError, match="unable to parse requirement"):
        Selector.parse(text)


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["web", "db"], True),
        ("NotIn", ["web"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_deployment_selectors(operator: str, values: list[str], expected: bool) -> None:
    """Labels and expressions must all match."""
    expression = SelectorRequirement(key="app", operator=operator, values=values)
    selector = LabelSelector(match_labels={"tier": "front"}, match_expressions=[expression])
    assert Selector.of(selector).matches(LABELS) is expected
    assert not Selector.of(selector).matches({**LABELS, "tier": "back"})
