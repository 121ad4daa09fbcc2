"""Whether labs are possible in this process, found out by making what they are made of; and where they are kept.

Nothing is left of the attempt.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from svcnat.errors import MissingError, PrivilegeError
from svcnat.kernel import links, netns, sysctl, userns

_RUNTIME = "SVCNAT_RUNTIME_DIR"
_USUAL = Path("/run/svcnat")


def become_root() -> None:
    """Be root of a user namespace from now on, as under ``unshare -rnm``.

    Raises:
        PrivilegeError: the kernel refused, and why.

    """
    # The folders of pytest's tmp_path go by the user's name, which would be root's.
    os.environ.setdefault("LOGNAME", os.environ.get("USER") or f"user-{os.geteuid()}")
    userns.become_root()
    netns.come_home()
    links.bring_up("lo")


def obstacle() -> str:
    """The reason why no lab is possible here, "" if there is none.

    Under ``unshare -rnm`` the process gets a ``/run/netns`` of its own, and a runtime folder, if it has no usable one.

    Raises:
        KernelError: the kernel refused for another reason than privilege, or for want of a feature.

    """
    if os.geteuid() != 0:
        return f"this is user {os.geteuid()}"
    try:
        netns.isolate_run()
        _choose_runtime_folder()
        _try_out()
    except (PrivilegeError, MissingError) as error:
        return str(error)
    return ""


def _try_out() -> None:
    """Make a namespace, forward packets in it, and look at its rules."""
    from svcnat.kernel.nftables import Namespace

    name = f"svcnat-try-{secrets.token_hex(6)}"
    file = netns.create(name)
    try:
        with netns.entered(file):
            sysctl.write({"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
        Namespace(str(file)).close()
    finally:
        netns.delete(name)


def _choose_runtime_folder() -> None:
    """Root's usual folder, unless the caller chose one or it is another's, as for root of a user namespace."""
    if os.environ.get(_RUNTIME) or _is_writable(_USUAL / "labs"):
        return
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"svcnat-{_owner()}"
    if not _is_writable(own / "labs"):
        raise PrivilegeError(f"{own}: Permission denied: set {_RUNTIME} to a folder of yours")
    os.environ[_RUNTIME] = str(own)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    # A folder in /tmp that a stranger made first is not ours, whatever its mode says.
    return status.st_uid == os.geteuid() and os.access(folder, os.W_OK | os.X_OK)


def _owner() -> str:
    """The user who this process is outside of its user namespace."""
    return Path("/proc/self/uid_map").read_text(encoding="utf-8").split()[1]
