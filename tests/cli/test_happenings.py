"""Events are kubectl's: their columns, and the table at the end of a description."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from svcnat.cli.descriptions import Context, describe
from svcnat.cli.listing import Style, tables
from svcnat.cli.terminal import aligned
from svcnat.model.kinds import BY_NAME, from_document
from svcnat.model.objects import Event, Service
from svcnat.store.events import record
from svcnat.store.sqlite import Store
from tests.cli.conftest import Result
from tests.cli.test_listing import made, service
from tests.controllers import build

Run = Callable[..., Result]
NOW = datetime(2026, 5, 17, 10, 2, tzinfo=UTC)


def event(name: str, **fields: Any) -> Any:
    about = {"kind": "Service", "namespace": "default", "name": "back-end"}
    body = {"involvedObject": about, "type": "Normal", "reason": "Synced", **fields}
    return from_document({"kind": "Event", "metadata": {"name": name, "namespace": "default"}, **body})


ONCE = event(
    "back-end.1",
    message=" rules were written\n",
    firstTimestamp="2026-05-17T10:01:00Z",
    lastTimestamp="2026-05-17T10:01:00Z",
    count=1,
    source={"component": "svcnat", "host": "node-1"},
)
OFTEN = event(
    "back-end.2",
    type="Warning",
    reason="Unhealthy",
    message="no answer",
    firstTimestamp="2026-05-17T09:32:00Z",
    lastTimestamp="2026-05-17T10:00:00Z",
    count=17,
    reportingComponent="svcnat-probe",
)
SERIES = event(
    "back-end.3",
    message="a newer program",
    eventTime="2026-05-17T09:02:00.000000Z",
    series={"count": 3, "lastObservedTime": "2026-05-17T10:01:30.000000Z"},
    reportingComponent="other",
    reportingInstance="other-1",
    involvedObject={"kind": "Pod", "namespace": "default", "name": "p", "fieldPath": "spec.containers{c}"},
)
BARE = event("back-end.4", involvedObject={"kind": "Node"}, source={"host": "node-1"})
EVENTS = [ONCE, OFTEN, SERIES, BARE]


def shown(**style: bool) -> str:
    return "\n".join(tables([(BY_NAME["Event"], EVENTS)], Style(**style), NOW))


def test_the_columns_of_events() -> None:
    """When last, what, about what."""
    assert shown() == (
        "LAST SEEN   TYPE      REASON      OBJECT             MESSAGE\n"
        "60s         Normal    Synced      service/back-end   rules were written\n"
        "2m          Warning   Unhealthy   service/back-end   no answer\n"
        "30s         Normal    Synced      pod/p              a newer program\n"
        "<unknown>   Normal    Synced      node               "
    )


def test_the_wide_columns_of_events() -> None:
    """In kubectl's order, in which the message is not the last."""
    lines = [line.split("   ") for line in shown(wide=True).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == [
        "LAST SEEN", "TYPE", "REASON", "OBJECT", "SUBOBJECT", "SOURCE", "MESSAGE", "FIRST SEEN", "COUNT", "NAME",
    ]  # fmt: skip
    assert cells[1][:4] == ["60s", "Normal", "Synced", "service/back-end"]
    assert cells[1][4:] == ["svcnat, node-1", "rules were written", "60s", "1", "back-end.1"]
    assert cells[2][4:] == ["svcnat-probe", "no answer", "30m", "17", "back-end.2"]
    assert cells[3][4:] == ["spec.containers{c}", "other, other-1", "a newer program", "60m", "3", "back-end.3"]
    assert cells[4][4:] == ["node-1", "<unknown>", "1", "back-end.4"]


def test_beside_other_kinds_names_carry_theirs() -> None:
    """Where an Event's name is not shown, nothing else gets its kind in front."""
    lines = tables([(BY_NAME["Service"], [service("a")]), (BY_NAME["Event"], [ONCE])], Style(), NOW)
    assert lines[1].startswith("service/a ")
    assert lines[4].startswith("60s ")
    wide = tables([(BY_NAME["Service"], []), (BY_NAME["Event"], [ONCE])], Style(wide=True), NOW)
    assert wide[1].endswith(" event/back-end.1")


class Nothing:
    """Where nothing is found."""

    def labelled(self, *_: Any) -> list[Any]:
        return []


def described(resource: Any, *events: Event) -> list[str]:
    return aligned(describe(resource, Context(Nothing(), None, events, NOW)))


@pytest.mark.parametrize("kind", ["Service", "Pod", "Deployment", "EndpointSlice", "Endpoints", "Node"])
def test_without_events_a_description_says_so(kind: str) -> None:
    """In its last line."""
    lines = described(made(kind, "a"))
    assert lines[-1].split() == ["Events:", "<none>"]
    assert sum(line.startswith("Events:") for line in lines) == 1


def test_events_end_a_description() -> None:
    """As kubectl prints them: the last one at the end, with how often it happened in how long."""
    lines = described(service("back-end"), ONCE, OFTEN)
    assert lines[-5:] == [
        "Events:",
        "  Type     Reason     Age                From          Message",
        "  ----     ------     ----               ----          -------",
        "  Warning  Unhealthy  2m (x17 over 30m)  svcnat-probe  no answer",
        "  Normal   Synced     60s                svcnat        rules were written",
    ]  # fmt: skip


def test_a_namespace_speaks_of_events_only_if_there_are_any() -> None:
    """As kubectl never does, nobody misses the line."""
    assert not any("Events" in line for line in described(made("Namespace", "shop")))
    assert "Events:" in described(made("Namespace", "shop"), ONCE)


def test_an_event_is_described() -> None:
    """All that is known of it; control characters are harmless."""
    lines = described(event("e", message="a\x1b[2J", count=2, source={"component": "c", "host": "h"}))
    text = "\n".join(lines)
    assert [line.split(":")[0] for line in lines] == [
        "Name", "Namespace", "Labels", "Annotations", "Type", "Reason", "Object", "From", "Count", "First Seen",
        "Last Seen", "Message",
    ]  # fmt: skip
    assert "service/back-end" in text.lower()
    assert "c, h" in text
    assert "\x1b" not in text


def test_events_on_the_command_line(svcnat: Run, tmp_path: Path) -> None:
    """`get events` lists them, `get all` does not, `describe` shows those of the object."""
    state = tmp_path / "state.db"
    with Store.open(state) as store, store.transaction() as transaction:
        web: Any = transaction.create(build.service("web")).resource
        words: Any = {"type": "Warning", "reason": "Refused", "component": "svcnat", "now": datetime.now(UTC)}
        record(transaction, web, message="no room\x1b[2J", **words)
        record(transaction, web, message="no room\x1b[2J", **words)

    def run(*arguments: str) -> str:
        done = svcnat("--state", str(state), *arguments)
        assert done.code == 0, done.err
        return done.out

    assert "Refused" not in run("get", "all")
    assert "Refused" not in run("describe", "svc", "kubernetes")
    listed = run("get", "ev").splitlines()
    assert listed[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert len(listed) == 2
    assert listed[1].endswith("no room\\u001b[2J")
    assert run("get", "events", "-o", "name").startswith("event/web.")
    described = run("describe", "svc", "web").splitlines()
    assert described[-1].split()[:3] == ["Warning", "Refused", described[-1].split()[2]]
    assert "(x2 over " in described[-1]
    assert isinstance(web, Service)
