"""Where a probe goes: the address, the port and the URL that it names, or else the endpoint's own, and a socket there.

No name is resolved: where a probe names a host, that is an address.
"""

from __future__ import annotations

import re
import socket
import urllib.parse
from collections.abc import Callable

from svcnat.agent.probes import Probed, Where
from svcnat.kernel import netns
from svcnat.model.addresses import canonical
from svcnat.model.objects import HTTPGetAction, TCPSocketAction
from svcnat.model.quoting import quoted

_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


class Unusable(Exception):  # noqa: N818 - it is no error of the endpoint's, nor one of ours: nobody can probe this
    """Why a probe cannot be carried out; whoever makes the attempt says so."""


def target(probed: Probed, action: HTTPGetAction | TCPSocketAction) -> tuple[str, int]:
    """Return the address and the port that a probe goes to.

    Raises:
        Unusable: there is no such place (so for all here).

    """
    host = "127.0.0.1" if action.host == "localhost" else action.host or probed.address
    address = canonical(host.strip("[]"))
    if address is None:
        raise Unusable(f"the host {quoted(host)} is no IP address, and probes resolve no names")
    return address, port_of(probed, action.port)


def port_of(probed: Probed, port: int | str | None) -> int:
    """Return the number of a probe's port: its own, the one that it names, or else the endpoint's."""
    if isinstance(port, str):
        if port in probed.ports:
            return probed.ports[port]
        raise Unusable(f"there is no port of the name {quoted(port)}")
    number = port or probed.port
    if number is None:
        raise Unusable("the endpoint has no port to probe")
    return number


def place(address: str, port: int) -> str:
    """Return an address and a port in one word."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def url_of(probed: Probed, action: HTTPGetAction) -> str:
    """Return the URL that a probe asks for."""
    scheme, path = (action.scheme or "HTTP").lower(), _escaped(action.path)
    return f"{scheme}://{place(*target(probed, action))}{path if path.startswith('/') else '/' + path}"


def _escaped(path: str) -> str:
    """A path and query without what no request may hold; all else stays as it is written, dots and escapes too."""
    text = _NO_ESCAPE.sub("%25", path.partition("#")[0])
    return urllib.parse.quote(text, safe="%/?:@!$&'()*+,;=[]", errors="surrogatepass")


def open_socket(where: Where, address: str, kind: Callable[[int, int], socket.socket] = socket.socket) -> socket.socket:
    """Return a TCP socket of a network namespace; nothing is awaited while the thread is in there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(where):
        return kind(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
