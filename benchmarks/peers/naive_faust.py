"""The peer of our ingestion: a Faust agent as in the tutorial, which only counts in a table.

``naive_faust.py BROKERS TOPIC EVENTS APP_ID`` prints as JSON how many events it counted between the first and the last one
and how many seconds that took, and exits. It archives nothing, ignores duplicates, and counts twice after a crash.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import faust
import msgspec

PARTITIONS = 4


class Event(faust.Record, serializer="json"):
    """The fields that the count uses; Faust keeps the others as they are."""

    event_id: str
    user_id: str
    event_type: str
    occurred_at: str


def build(brokers: str, topic_name: str, *, events: int, app_id: str) -> faust.App:
    """Return the app; after ``events`` events, it reports and ends the process."""
    app = faust.App(
        app_id,
        broker=f"kafka://{brokers}",
        store="memory://",
        topic_partitions=PARTITIONS,
        topic_allow_declare=False,  # the benchmark creates the changelog, small and compacted
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    topic = app.topic(topic_name, key_type=bytes, key_serializer="raw", value_type=Event)
    table = app.Table("counts", default=int, partitions=PARTITIONS)

    async def count(stream: faust.StreamT[Event]) -> None:
        seen, started = 0, 0.0
        async for event in stream:
            table[event.user_id] += 1
            seen += 1
            if seen == 1:
                started = time.perf_counter()
            elif seen == events:
                report(seen - 1, time.perf_counter() - started)

    app.agent(topic, name="count")(count)
    return app


def report(events: int, seconds: float) -> None:
    """Print the measurement and exit without Faust's shutdown, which takes seconds."""
    # Write to the descriptor: Faust turns writes to sys.stdout into log lines.
    os.write(sys.__stdout__.fileno(), msgspec.json.encode({"events": events, "seconds": seconds}) + b"\n")
    os._exit(0)


def main() -> None:
    """Run the app."""
    brokers, topic, events, app_id = sys.argv[1:]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = build(brokers, topic, events=int(events), app_id=app_id)
    faust.Worker(app, loglevel="WARN", loop=loop).execute_from_commandline()


if __name__ == "__main__":
    main()
