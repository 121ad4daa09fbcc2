"""The application: counts a visit in redis, and writes it down in the database.

Each visit makes connections of its own, so that the services choose anew; one that breaks off, as its server ends, is
made once more. It answers with one line of JSON, 503 if redis or the database could not be asked.
"""

from __future__ import annotations

import os

import pymysql
import redis
import web
from redis.backoff import NoBackoff
from redis.retry import Retry

TABLE = "CREATE TABLE IF NOT EXISTS visits (id INT AUTO_INCREMENT PRIMARY KEY, back_end TEXT, hits INT)"


def visit() -> web.Answer:
    """Note a visit; the answer names who did it."""
    try:
        server, hits = count()
    except redis.RedisError as error:
        return web.Answer(503, {"error": f"redis: {error}"})
    try:
        database, rows = write_down(hits)
    except pymysql.Error as error:
        return web.Answer(503, {"error": f"mysql: {error}"})
    return web.Answer(200, {"redis": server, "mysql": database, "hits": hits, "rows": rows})


def count() -> tuple[str, int]:
    """The redis-server that counted, and what it counted."""
    with redis.Redis(
        "redis",
        socket_timeout=1,
        socket_connect_timeout=1,
        decode_responses=True,
        retry=Retry(NoBackoff(), 1),
    ) as client:
        hits, about = client.pipeline(transaction=False).incr("hits").config_get("syslog-ident").execute()
        return about["syslog-ident"], hits


def write_down(hits: int) -> tuple[str, int]:
    """The database that has a row for this visit now, and how many rows it has."""
    try:
        return insert(hits)
    except pymysql.OperationalError:
        return insert(hits)


def insert(hits: int) -> tuple[str, int]:
    """As :func:`write_down`, on one connection."""
    connection = pymysql.connect(
        host="mysql",
        user=os.environ["MYSQL_USER"],
        password=os.environ["MYSQL_PASSWORD"],
        database=os.environ["MYSQL_DATABASE"],
        connect_timeout=1,
        read_timeout=2,
        ssl_disabled=True,
        autocommit=True,
    )
    with connection, connection.cursor() as cursor:
        try:
            cursor.execute("INSERT INTO visits (back_end, hits) VALUES (%s, %s)", (web.NAME, hits))
        except pymysql.ProgrammingError:  # this database is new
            cursor.execute(TABLE)
            cursor.execute("INSERT INTO visits (back_end, hits) VALUES (%s, %s)", (web.NAME, hits))
        cursor.execute("SELECT @@hostname, COUNT(*) FROM visits")
        name, rows = cursor.fetchone()
        return name, rows


web.serve("back-end", visit)
