"""Writing nf_tables through libnftables, in transactions, as text.

The one importer of the distribution's ``nftables`` module, which no package index carries: it is loaded by path
where this interpreter does not see it (a venv without system site packages). Reading is
:mod:`svcnat.kernel.nfnetlink`'s work. This module knows nothing of what the text means.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from svcnat.errors import KernelError, MissingError, PrivilegeError, StaleError, TooLargeError

# Debian and its kin; Fedora, Arch and SUSE; a local build.
_PLACES = ("/usr/lib/python3/dist-packages", "/usr/lib/python3*/site-packages", "/usr/local/lib/python3*/*-packages")
_ERROR = re.compile(r"(?:^|:\s)Error: (.*)", re.MULTILINE)


@functools.cache
def load() -> ModuleType:
    """The ``nftables`` module.

    Raises:
        MissingError: neither the module nor a copy in the distribution's folders can be loaded.

    """
    try:
        return importlib.import_module("nftables")
    except ImportError:
        pass
    for place in (found for pattern in _PLACES for found in sorted(Path("/").glob(pattern.lstrip("/")))):
        folder = place / "nftables"
        if not (folder / "__init__.py").is_file():
            continue
        spec = importlib.util.spec_from_file_location(
            "nftables", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["nftables"] = module  # its __init__ imports .nftables, which looks its parent up here
        try:
            spec.loader.exec_module(module)
        except (ImportError, OSError) as error:
            del sys.modules["nftables"]
            raise MissingError(f"libnftables cannot be loaded ({error}); on Debian: apt install nftables") from error
        return module
    raise MissingError(
        "the nftables module for Python is not installed; on Debian: apt install python3-nftables nftables"
    )


class Libnftables:
    """A libnftables context in the network namespace of the thread that makes it; it stays there."""

    def __init__(self) -> None:
        try:
            self._context: Any = load().Nftables()
        except OSError as error:
            raise MissingError(f"libnftables cannot be loaded ({error}); on Debian: apt install nftables") from error

    def commit(self, script: str) -> None:
        """Run the script as one transaction: all of it, or nothing.

        Raises:
            StaleError: something that it deletes is gone, or that it adds is there with other content: read again.
            PrivilegeError: CAP_NET_ADMIN is missing.
            TooLargeError: in a user namespace, net.core.wmem_max caps a transaction at some 10,000 elements.
            KernelError: any other refusal.

        """
        self._run(script)

    def check(self, script: str) -> None:
        """Ask the kernel whether it would take the script, changing nothing; raises as :meth:`commit` does."""
        before = self._context.set_dry_run(True)
        try:
            self._run(script)
        finally:
            self._context.set_dry_run(before)

    def _run(self, script: str) -> None:
        code, _, message = self._context.cmd(script)
        if code != 0:
            raise classified(message)


def classified(message: str) -> KernelError:
    """The error that libnftables' message stands for, with its first line only: the rest repeats the whole script."""
    found = _ERROR.search(message)
    reason = (found[1] if found else message.strip().partition("\n")[0]) or "no reason given"
    if "Operation not permitted" in message:
        return PrivilegeError("changing nftables needs root, or CAP_NET_ADMIN in this network namespace")
    if "Message too long" in message:
        return TooLargeError(f"nftables: {reason}")
    if re.search(r"File exists|No such file or directory|Interrupted system call", message):
        return StaleError(f"nftables: {reason}")
    if re.search(r"Operation not supported|Protocol not supported|Address family not supported", message):
        return MissingError(f"nftables: {reason}: this kernel lacks a feature that the rules need")
    return KernelError(f"nftables: {reason}")
