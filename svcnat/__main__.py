"""Where the program starts: ``svcnat`` and ``python -m svcnat``; :mod:`svcnat.cli.frame` does the rest."""

from __future__ import annotations

import sys

from svcnat.cli.frame import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
