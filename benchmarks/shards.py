"""What more Postgres would bring: ``python -m benchmarks.shards`` runs the SQL of ingestion over one and over two servers.

The partitions of the topic are dealt out to two halves. A user's events are all in one partition, so this is sharding by
user. Each half is run by a process of its own: on one connection, on two connections of one server, and on two servers.
Not part of the table: on one machine both servers share its cores, so it shows what a second server costs, and what one
server already gains from a second connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier

import sqlalchemy as sa
from pydantic import SecretStr

from backends.clock import SystemClock
from backends.telemetry.logs import configure_logs
from benchmarks.ingestion import statements_of
from benchmarks.services import BenchmarkError, Services, connected, running_services
from benchmarks.statements import Record, Transaction, run_again
from benchmarks.topic import preload
from benchmarks.worker import drain
from benchmarks.workload import behavioral_events
from streams.bootstrap import open_database
from streams.settings import StreamsSettings

EVENTS = 120_000
ROUNDS = 5
_START_SECONDS = 30.0


def halves(transactions: Sequence[Transaction]) -> tuple[Record, Record]:
    """Return the transactions of even and of odd partitions, each in their order. Pure."""
    even, odd = (
        [transaction for transaction in transactions if transaction.partition % 2 == number] for number in (0, 1)
    )
    return Record(even), Record(odd)


async def main() -> None:
    """Measure and print the medians."""
    async with running_services() as one, running_services() as other:
        loaded = await preload(one, behavioral_events(EVENTS, ends_at=SystemClock().now()))
        record = await statements_of(one, (await drain(one, loaded)).panes)
        even, odd = halves(record.transactions)
        layouts = {
            "one server, one connection": [(one, record)],
            "one server, two connections": [(one, even), (one, odd)],
            "two servers, one connection each": [(one, even), (other, odd)],
        }
        rates: dict[str, list[float]] = {name: [] for name in layouts}
        for _ in range(ROUNDS):
            for name, parts in layouts.items():
                rates[name].append(await rate_of(parts))
        kept = await kept_bytes(one, record)
    for name, found in rates.items():
        print(f"{name:34} {statistics.median(found):10,.0f} events/s")
    print(f"{'kept of an event, with indexes':34} {kept / record.records:10,.0f} bytes")


async def kept_bytes(services: Services, record: Record) -> int:
    """Return how large the archive is afterwards, its indexes included."""
    async with services.database() as url, connected(url) as connection:
        database = open_database(StreamsSettings(database_url=SecretStr(url)))
        try:
            await run_again(database, record)
        finally:
            await database.close()
        return int(
            await connection.fetchval(
                "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'behavioral_events'::regclass"
            )
        )


async def rate_of(parts: Sequence[tuple[Services, Record]]) -> float:
    """Run all parts at once on fresh databases, one on each server; return records a second."""
    async with contextlib.AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        for services, _ in parts:
            if services.server_url not in urls:
                urls[services.server_url] = await stack.enter_async_context(services.database())
        return await asyncio.to_thread(_run, [(urls[services.server_url], record) for services, record in parts])


def _run(parts: Sequence[tuple[str, Record]]) -> float:
    """Run each part in a process of its own, a copy of this one; return records a second from when all were connected."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(parts) + 1)
    workers = [context.Process(target=_work, args=(url, record, barrier)) for url, record in parts]
    for worker in workers:
        worker.start()
    barrier.wait(_START_SECONDS)
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    if any(worker.exitcode for worker in workers):
        raise BenchmarkError("a process that ran statements failed")
    return sum(record.records for _, record in parts) / seconds


def _work(url: str, record: Record, barrier: Barrier) -> None:
    async def run() -> None:
        database = open_database(StreamsSettings(database_url=SecretStr(url)))
        try:
            async with database.reading() as connection:
                await connection.execute(sa.text("SELECT 1"))
            barrier.wait(_START_SECONDS)
            await run_again(database, record)
        finally:
            await database.close()

    asyncio.run(run())


if __name__ == "__main__":
    configure_logs(process="bench", level="ERROR")
    asyncio.run(main())
