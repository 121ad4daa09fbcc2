"""Messages stay one line, whatever people put into names."""

from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.model.quoting import child, entry, printable, quoted, steps


@settings(max_examples=200, derandomize=True)
@given(st.text())
def test_nothing_breaks_a_line(text: str) -> None:
    """Control characters, line separators and direction marks are escaped, lengths are bounded."""
    for shown in (printable(text), quoted(text), child("a", text), entry("a", text), quoted({text: [text]})):
        assert shown.isprintable()
        assert len(shown.splitlines()) <= 1
    assert len(quoted(text * 1000)) < 1600


@settings(max_examples=200, derandomize=True)
@given(st.text(max_size=50), st.text(max_size=50))
def test_paths_can_be_taken_apart(name: str, key: str) -> None:
    """The steps of a path are the names it was made of."""
    found = steps(f"{entry(child('spec', name), key)}[3]")
    assert [step for step, _ in found] == ["spec", name, key, "3"]


def test_values() -> None:
    """Values read as JSON; long ones are cut."""
    assert quoted("a\x7f\U0001d173") == '"a\\u007f\\ud834\\udd73"'
    assert quoted({"a": [1, None, True]}) == '{"a":[1,null,true]}'
    assert quoted(list(range(200))).endswith("...")
