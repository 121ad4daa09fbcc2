"""Rewrite every case's ruleset.nft from the compiler; the diff is for a person to read before it is committed."""

from __future__ import annotations

from svcnat import api
from tests.golden import CASES, FOLDER, compiled

for case in CASES:
    (FOLDER / case / "ruleset.nft").write_text(api.render(compiled(case)))
print(f"{len(CASES)} cases written; read `git diff tests/golden` before you commit")
