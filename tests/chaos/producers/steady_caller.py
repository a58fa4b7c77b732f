"""A host that calls at a steady rate, in its own process: ``python -m tests.chaos.producers.steady_caller ORDER`` (JSON).

Each event is one call, like a request to a web application. A call that is refused because the client is busy is written
to a file and repeated later with the same idempotency key. SIGTERM ends the calls; then all refused calls are repeated
and a report is written.

Each call is timed twice: as its caller sees it, and without the time in which this process was ready to run but waited
for a processor. No client can shorten that wait, which takes seconds on a machine that also runs two brokers, two
databases and two workers. All time that the client itself uses or waits is counted. Only its waits that overlap with
such starvation are deducted, so a quiet machine judges more strictly than a busy one.
"""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import itertools
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TextIO

import msgspec

from backends.waiting import wait_at_most
from fincoach_events import EventProducer, OutgoingEvent, ProducerBusyError

TICK_SECONDS = 0.01
# After a stall a server accepts this many requests at once and leaves the rest in its backlog; taking all would stall again.
MOST_PER_TICK = 500
AGAIN_AT_ONCE, AGAIN_EVERY_SECONDS = 400, 0.05
FLUSH_SECONDS = 90.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The instructions for the caller.

    Attributes:
        begins_at: the time of the first event; the others follow at the rate, whenever they are sent.
        folder: receives the refused calls and the report.
    """

    brokers: str
    folder: str
    begins_at: dt.datetime
    events_per_second: float
    users: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The results of the calls.

    Attributes:
        made: events that the host made; each one is recorded in the end.
        refused: calls that the client refused because it was busy; a refused repetition counts again.
        longest_call_seconds: the longest time that a call held its caller.
        longest_held_seconds: the longest time that a call held its caller, or that the event loop delayed a due call, without
            the time in which this process waited for a processor.
        acknowledged: events that the broker has.
        undelivered: accepted events that the client gave up.
    """

    made: int
    refused: int
    longest_call_seconds: float
    longest_held_seconds: float
    acknowledged: int
    undelivered: int


class Starvation:
    """How long the thread that created it was ready to run without a processor; 0 where the kernel does not measure it."""

    def __init__(self) -> None:
        account = Path("/proc/thread-self/schedstat")
        self._account = os.open(account, os.O_RDONLY) if account.exists() else None

    def seconds(self) -> float:
        """Return the total since the thread began."""
        if self._account is None:
            return 0.0
        _ran, waited, _turns = os.pread(self._account, 96, 0).split()
        return int(waited) / 1e9


class SteadyCaller:
    """Makes events at a rate, and repeats calls until each event is accepted."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._made = 0
        self._refused = 0
        self._longest = 0.0
        self._longest_held = 0.0
        self._starvation = Starvation()
        self._undelivered = 0
        self._refusals = Path(order.folder) / "refused.txt"
        self._refusals.touch()
        self._calls: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._producer = EventProducer(
            order.brokers, consent_default=True, source="steady", on_undelivered=self._note_undelivered
        )

    def stop(self) -> None:
        """Stop making events."""
        self._stopping.set()

    async def run(self) -> Report:
        """Make events until :meth:`stop`, then repeat the refused calls; return the report."""
        await self._producer.start()
        with self._refusals.open("a", buffering=1) as noted:  # refused calls must not pile up in memory
            again = asyncio.create_task(self._send_again())
            await self._make(noted)
            await asyncio.gather(*self._calls)
            await again
        await self._producer.close(FLUSH_SECONDS)
        return Report(
            made=self._made,
            refused=self._refused,
            longest_call_seconds=self._longest,
            longest_held_seconds=self._longest_held,
            acknowledged=self._producer.acknowledged,
            undelivered=self._undelivered,
        )

    async def _make(self, noted: TextIO) -> None:
        started = time.monotonic()
        while not self._stopping.is_set():
            began, starved = time.monotonic(), self._starvation.seconds()
            due = int((time.monotonic() - started) * self._order.events_per_second)
            due = min(due, self._made + MOST_PER_TICK)
            for number in range(self._made, due):
                call = asyncio.create_task(self._call_noted(number, noted))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            self._made = max(self._made, due)
            await wait_at_most(self._stopping, TICK_SECONDS)
            self._note_held(time.monotonic() - began, starved)  # a request could have come meanwhile

    async def _call_noted(self, number: int, noted: TextIO) -> None:
        if not await self._call(number):
            noted.write(f"{number}\n")

    async def _send_again(self) -> None:
        """Repeat refused calls in order and at a rate; end when no call is running and none is left."""
        with self._refusals.open() as file:
            waiting: collections.deque[int] = collections.deque()
            while True:
                is_last = self._stopping.is_set() and not self._calls
                waiting.extend(int(line) for line in itertools.islice(file, AGAIN_AT_ONCE - len(waiting)))
                if is_last and not waiting:
                    return
                while waiting and await self._call(waiting[0]):
                    waiting.popleft()
                await asyncio.sleep(AGAIN_EVERY_SECONDS)

    async def _call(self, number: int) -> bool:
        """Record one event; return whether the client accepted it."""
        order, started, starved = self._order, time.monotonic(), self._starvation.seconds()
        try:
            await self._producer.record(
                "transaction_creation",
                user_id=uuid.uuid5(uuid.NAMESPACE_OID, f"steady-{number % order.users}"),
                occurred_at=order.begins_at + dt.timedelta(seconds=number / order.events_per_second),
                idempotency_key=f"steady:{number}",
                amount_minor=1_000 + number % 977,
                currency="EUR",
                category=("groceries", "transport", "health", "dine_out")[number % 4],
                transaction_type="debit",
            )
        except ProducerBusyError:
            self._refused += 1
            return False
        finally:
            taken = time.monotonic() - started
            self._longest = max(self._longest, taken)
            self._note_held(taken, starved)
        return True

    def _note_held(self, seconds: float, starved_before: float) -> None:
        self._longest_held = max(self._longest_held, seconds - (self._starvation.seconds() - starved_before))

    def _note_undelivered(self, event: OutgoingEvent, reason: str) -> None:  # noqa: ARG002 - the client's callback
        self._undelivered += 1


async def main(order: Order) -> None:
    """Run until SIGTERM and write the report."""
    caller = SteadyCaller(order)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, caller.stop)
    report = await caller.run()
    await asyncio.to_thread((Path(order.folder) / "report.json").write_bytes, msgspec.json.encode(report))


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
