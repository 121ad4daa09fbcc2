"""Learning that objects changed from the agent that follows them: it tells of every revision, when its rules are there.

What changed is for the reader to find out. Without an agent nobody tells, and the reader has to look by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from svcnat.agent.control import Client, Watch
from svcnat.errors import KernelError


class News:
    """The word of whoever listens at an agent's socket, also if that is another agent later; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._agent: Client | None = None

    def wait(self, seconds: float) -> bool:
        """Wait until there may be something new, or for about `seconds`; False if there is no agent that tells.

        True may be a false alarm, and after False nothing is known: it is for the reader to look.
        """
        try:
            if self._agent:
                self._agent.receive(seconds)
                return True
            self._agent = Client.find(self._path, patience=seconds)
            if self._agent is None:
                return False
            self._agent.ask(Watch())
        except TimeoutError:
            return True  # an agent that hangs tells nothing
        except (KernelError, OSError):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Listen no more."""
        agent, self._agent = self._agent, None
        if agent:
            agent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
