"""The web server of the course's application: it asks a back end for everything, and adds who it is.

It answers with one line of JSON, 502 if there was no back end. It knows neither redis nor the database.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import web

BACK_END = "http://back-end/"


def visit() -> web.Answer:
    """Have a back end note the visit."""
    try:
        with urllib.request.urlopen(BACK_END, timeout=5) as response:
            return web.Answer(200, json.load(response))
    except urllib.error.HTTPError as error:
        with error:
            return web.Answer(error.code, json.load(error))
    except OSError as error:
        return web.Answer(502, {"error": f"back-end: {error}"})


web.serve("front-end", visit)
