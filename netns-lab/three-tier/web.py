"""A small web server, for the front ends and the back ends: each request is answered by a function.

When it is told to end, its service has already taken it out; it answers what was on its way, and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

NAME = os.environ["HOSTNAME"]
"""The pod's name."""


LAST = 0.2
"""Seconds in which a connection that was made before may still have to be accepted."""


class Answer(NamedTuple):
    """A status code and what is to be told."""

    code: int
    told: dict[str, Any]


def serve(tier: str, visit: Callable[[], Answer]) -> None:
    """Answer requests with what `visit` tells and this pod's name, at port 80, until SIGTERM."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = Answer(200, {}) if self.path == "/healthz" else visit()
            body = json.dumps({tier: NAME, **answer.told}).encode() + b"\n"
            self.send_response(answer.code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            if code != 200:
                super().log_request(code, size)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6  # and IPv4
        request_queue_size = 128
        daemon_threads = False

    with Server(("::", 80), Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(LAST, server.shutdown).start())
        server.serve_forever(poll_interval=0.05)
