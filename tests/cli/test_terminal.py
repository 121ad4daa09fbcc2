"""Nothing that a user prints can drive the terminal, and tables line up."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from svcnat.cli.formats import as_json, as_yaml
from svcnat.cli.terminal import aligned, table, visible


def test_control_characters_become_visible() -> None:
    """Escape sequences, newlines, bidirectional overrides and lone surrogates are shown, not obeyed."""
    assert visible("a\x1b[31m\n\u202e\x9b\ud800b") == r"a\u001b[31m\u000a\u202e\u009b\ud800b"
    assert visible("\U000e0001") == r"\udb40\udc01"
    assert visible("back-end é 后端") == "back-end é 后端"


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_table_has_one_printable_line_a_row(rows: list[list[str]]) -> None:
    """No cell can add a line to a table."""
    lines = table(rows)
    assert len(lines) == len(rows)
    assert all(line.isprintable() for line in lines)


def test_tables_have_kubectls_gaps() -> None:
    """Three spaces between columns, none narrower than six, nothing after the last."""
    assert table([["N", "TYPE", "AGE"], ["a", "ClusterIP", "2m"]]) == [
        "N     TYPE        AGE",
        "a     ClusterIP   2m",
    ]


def test_rows_of_different_lengths_align_in_runs() -> None:
    """As Go's tabwriter, which kubectl describe uses: a row without a cell to its right ends the column."""
    assert aligned([["Name:", "x"], ["Namespace:", "y"], ["Ports:"], ["  A", "B", "C"], ["  long", "b", "c"]]) == [
        "Name:       x",
        "Namespace:  y",
        "Ports:",
        "  A     B  C",
        "  long  b  c",
    ]


@given(
    st.recursive(
        st.text() | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_json_and_yaml_print_and_mean_the_same(value: object) -> None:
    """Escaping what does not print loses nothing: the documents read back as they were."""
    import yaml

    text = as_json(value)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
    document = as_yaml(value)
    assert document.replace("\n", "").isprintable()
    assert yaml.safe_load(document) == value
