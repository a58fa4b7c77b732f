"""The peer that archives: Quix Streams with its PostgreSQL sink, in its own environment, on the same topic."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from benchmarks import environments
from benchmarks.environments import PEERS
from benchmarks.plan import Say
from benchmarks.services import BenchmarkError, Services, connected, log_tail, running
from benchmarks.topic import Loaded
from schemas.topics import BEHAVIORAL_EVENTS

if TYPE_CHECKING:
    import asyncpg

REQUIREMENTS = PEERS / "quix-requirements.txt"
SCRIPT = PEERS / "quix_postgres.py"
# Our own worker commits as many at once when it reads a backlog.
COMMIT_EVERY = 5_000
_RUN_SECONDS = 180.0
_POLL_SECONDS = 0.02
# The columns of our archive, with one index instead of three.
_TABLE = """
CREATE TABLE quix_events (
    event_id uuid PRIMARY KEY, user_id uuid NOT NULL, event_type text NOT NULL, occurred_at timestamptz NOT NULL,
    consent boolean NOT NULL, source text NOT NULL, payload jsonb NOT NULL, user_count bigint NOT NULL
)
"""


async def environment(say: Say) -> Path:
    """Return the folder of Quix Streams' environment.

    Raises:
        PeerMissingError: it could not be installed.
    """
    return await environments.environment("Quix Streams", REQUIREMENTS, say)


async def quix_rate(services: Services, installed: Path, loaded: Loaded, *, name: str) -> float:
    """Let Quix Streams read the topic into a fresh database; return events per second from its first to its last commit.

    Raises:
        BenchmarkError: it ended early, or its table does not hold every event.
    """
    folder = services.folder / name
    folder.mkdir()
    log = folder / "quix.log"
    async with services.database() as url, connected(url) as connection:
        await connection.execute(_TABLE)
        (folder / "database.json").write_bytes(_named(url))
        command = (str(installed / "bin" / "python"), str(SCRIPT), services.brokers, BEHAVIORAL_EVENTS.name, name)
        async with running(*command, str(folder), str(COMMIT_EVERY), environment={}, log=log) as process:
            try:
                rate = await _rate(connection, loaded, process)
            except TimeoutError:
                raise BenchmarkError(f"Quix Streams did not reach the end:\n{await log_tail(log)}") from None
        archived, counted = await connection.fetchrow(
            "SELECT count(*), (SELECT sum(most) FROM (SELECT max(user_count) AS most FROM quix_events GROUP BY user_id) AS users)"
            " FROM quix_events"
        )
        if archived != loaded.events or counted < loaded.events:
            raise BenchmarkError(f"Quix Streams wrote {archived} and counted {counted} of {loaded.events} events")
        return rate


async def _rate(connection: asyncpg.Connection, loaded: Loaded, process: asyncio.subprocess.Process) -> float:
    first: tuple[float, int] | None = None
    async with asyncio.timeout(_RUN_SECONDS):
        while process.returncode is None:
            # Index look-ups only: repeated counts of the table would slow it down.
            if first is None and await connection.fetchval("SELECT EXISTS (SELECT FROM quix_events)"):
                now = time.perf_counter()
                first = now, await connection.fetchval("SELECT count(*) FROM quix_events")
            if first is not None and await _has_all(connection, loaded):
                return (loaded.events - first[1]) / (time.perf_counter() - first[0])
            await asyncio.sleep(_POLL_SECONDS)
    raise TimeoutError


async def _has_all(connection: asyncpg.Connection, loaded: Loaded) -> bool:
    found = await connection.fetchval(
        "SELECT count(*) FROM quix_events WHERE event_id = ANY($1)", list(loaded.last_ids)
    )
    return int(found) == len(loaded.last_ids)


def _named(url: str) -> bytes:
    parts = urlsplit(url)
    return msgspec.json.encode(
        {
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "password": parts.password,
            "dbname": parts.path.lstrip("/"),
        }
    )
