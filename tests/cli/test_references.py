"""KIND, KIND/NAME, commas and all are read as kubectl reads them."""

from __future__ import annotations

import pytest

from svcnat.cli.references import Selection, parse
from svcnat.errors import UsageError
from svcnat.model.kinds import BY_NAME

SERVICE, POD, DEPLOYMENT = BY_NAME["Service"], BY_NAME["Pod"], BY_NAME["Deployment"]
APPS = [BY_NAME[name] for name in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")]


@pytest.mark.parametrize(
    ("words", "selections"),
    [
        (["svc"], [Selection(SERVICE)]),
        (["Services"], [Selection(SERVICE)]),
        (["deployments.apps"], [Selection(DEPLOYMENT)]),
        (["deployment.apps"], [Selection(DEPLOYMENT)]),
        (["svc,po,svc"], [Selection(SERVICE), Selection(POD)]),
        (["svc", "a", "b", "a"], [Selection(SERVICE, ("a", "b"))]),
        (["svc,po", "a"], [Selection(SERVICE, ("a",)), Selection(POD, ("a",))]),
        (["svc/a", "pod/b"], [Selection(SERVICE, ("a",)), Selection(POD, ("b",))]),
        (["all"], [Selection(POD), Selection(SERVICE), *map(Selection, APPS)]),
    ],
)
def test_words_become_selections(words: list[str], selections: list[Selection]) -> None:
    """Each way of naming objects."""
    assert parse(words) == selections


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "you must say which kind of object"),
        (["servises"], "svcnat has no kind 'servises'; did you mean 'services'"),
        (["job"], "svcnat has no kind 'job'"),
        (["services.apps"], "svcnat has no kind 'services.apps'"),
        (["svc/a", "b"], "no need to give a kind"),
        (["svc/"], "must have a kind and a name"),
    ],
)
def test_mistakes_say_what_was_meant(words: list[str], message: str) -> None:
    """An unknown kind gets a suggestion."""
    with pytest.raises(UsageError, match=message):
        parse(words)
