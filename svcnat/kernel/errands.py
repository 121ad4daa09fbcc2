"""Functions in threads of their own, and what they have done by the thread that waits for them.

A thread that entered namespaces cannot always go back: that takes capabilities that entering did not. The thread that
waits for it is still where it was. Which namespaces those are is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from svcnat.errors import KernelError

T = TypeVar("T")

_LOOK_SECONDS = 1.0
_here = threading.local()


class _Caller:
    """Who waits for a thread, and does its errands meanwhile."""

    def __init__(self) -> None:
        self.errands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.gone = False


def call(function: Callable[[], T]) -> T:
    """The result of `function`, called in a thread of its own; what it asks of :func:`at_home` is done here."""
    results: list[T] = []
    failures: list[BaseException] = []
    caller = _Caller()

    def work() -> None:
        _here.caller = caller
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller, whatever it is
            failures.append(error)
        finally:
            caller.errands.put(None)

    thread = threading.Thread(target=work, name="svcnat-netns")
    thread.start()
    try:
        while errand := caller.errands.get():
            errand()
    except BaseException:
        caller.gone = True
        raise
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def at_home(function: Callable[[], T]) -> T:
    """The result of `function`, called where the thread was before :func:`call` made it, however often that did.

    Raises:
        KernelError: whoever waited for the thread was interrupted.

    """
    caller: _Caller | None = getattr(_here, "caller", None)
    if caller is None:
        return function()
    results: list[T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def errand() -> None:
        try:
            results.append(at_home(function))
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that asked
            failures.append(error)
        finally:
            done.set()

    caller.errands.put(errand)
    while not done.wait(_LOOK_SECONDS):
        if caller.gone:
            raise KernelError("whoever waited for this was interrupted")
    if failures:
        raise failures[0]
    return results[0]
