"""What is written beside the code: its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
DOCUMENTS = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("netns-lab/**/*.md")])

_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def _anchors(document: Path) -> set[str]:
    """The headings of a document as links name them: small letters and dashes."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(TOP)))
def test_links_lead_somewhere(document: Path) -> None:
    """To a file or folder that is there, and to one of its headings."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", document.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), link
        assert not anchor or anchor in _anchors(place), link


def test_every_lab_to_try_is_listed() -> None:
    """netns-lab/README.md has a line for each folder beside it, and each folder a README."""
    text = (TOP / "netns-lab/README.md").read_text()
    folders = {path.parent.name for path in TOP.glob("netns-lab/*/*")}
    assert {name for name in folders if f"| [{name}]({name}) |" not in text} == set()
    assert {name for name in folders if not (TOP / "netns-lab" / name / "README.md").exists()} == set()
