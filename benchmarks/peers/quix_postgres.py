"""The peer of our ingestion that archives: Quix Streams counts each user's events and writes every event to PostgreSQL.

``quix_postgres.py BROKERS TOPIC GROUP FOLDER COMMIT_EVERY`` reads the address of the database from
``FOLDER/database.json`` (host, port, dbname, user, password) and runs until it is stopped, in its own environment. The
count is kept in RocksDB with a changelog topic; the PostgreSQL sink upserts by ``event_id`` at each checkpoint. Delivery is
at least once, without user state beyond the count, quality counters or panes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from quixstreams import Application, State
from quixstreams.sinks.community.postgresql import PostgreSQLSink

TABLE = "quix_events"


def row_of(raw: bytes, state: State) -> dict[str, Any]:
    """Count the event for its user and return its row, with the columns of our archive."""
    event = orjson.loads(raw)
    count = state.get("count", 0) + 1
    state.set("count", count)
    return {
        "event_id": event["event_id"],
        "user_id": event["user_id"],
        "event_type": event["event_type"],
        "occurred_at": event["occurred_at"],
        "consent": event["consent"],
        "source": event["source"],
        "payload": raw.decode(),
        "user_count": count,
    }


def sink_of(database: dict[str, Any]) -> PostgreSQLSink:
    """Return the sink; its table exists already, with its primary key."""
    return PostgreSQLSink(
        **database,
        table_name=TABLE,
        schema_auto_update=False,
        primary_key_columns="event_id",
        upsert_on_primary_key=True,
        include_metadata=False,
    )


def main() -> None:
    """Run the application."""
    brokers, topic_name, group, folder, commit_every = sys.argv[1:]
    application = Application(
        broker_address=brokers,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=Path(folder) / "state",
        commit_every=int(commit_every),
        loglevel="WARNING",
    )
    topic = application.topic(topic_name, value_deserializer="bytes", key_deserializer="bytes")
    frame = application.dataframe(topic).apply(row_of, stateful=True)
    frame.sink(sink_of(orjson.loads((Path(folder) / "database.json").read_bytes())))
    application.run()


if __name__ == "__main__":
    main()
