"""A host at a steady rate, in a process of its own: ``python -m tests.chaos.producers.steady_caller ORDER``, where ORDER is JSON.

Each event is a call of its own, as each request of a web application would make. A call that is refused because the
client is busy is noted in a file and made again later with the same idempotency key. SIGTERM ends the calls; then
everything refused is sent, and a report is written.

A call is timed twice: as its caller sees it, and without the time in which this process was ready to run and stood in
the kernel's queue for a processor. No client can shorten that queue, and a machine that runs two brokers, two databases
and two workers beside the hosts makes it seconds long. What the client itself does or waits for stays in; only where it
waits while its process is starved the two overlap, so a quiet machine judges more sharply than a busy one.
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
# After a stall a server takes so many requests at once and leaves the others in its backlog: to take all would be the next stall.
MOST_PER_TICK = 500
AGAIN_AT_ONCE, AGAIN_EVERY_SECONDS = 400, 0.05
FLUSH_SECONDS = 90.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller is to do.

    Attributes:
        begins_at: when the first event happened; the others follow at the rate, whenever they are sent.
        folder: where the refused calls and the report are written.
    """

    brokers: str
    folder: str
    begins_at: dt.datetime
    events_per_second: float
    users: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the calls.

    Attributes:
        made: events that the host made, each recorded in the end.
        refused: calls to which the client said that it is busy; later ones for the same event count again.
        longest_call_seconds: the longest that a call held its caller.
        longest_held_seconds: the longest that a call held its caller, or the event loop a call that was due, without the time
            in which this process waited for a processor.
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
    """How long the thread that made it was ready to run and had no processor; 0 where the kernel keeps no account of it."""

    def __init__(self) -> None:
        account = Path("/proc/thread-self/schedstat")
        self._account = os.open(account, os.O_RDONLY) if account.exists() else None

    def seconds(self) -> float:
        """Return the sum since the thread began."""
        if self._account is None:
            return 0.0
        _ran, waited, _turns = os.pread(self._account, 96, 0).split()
        return int(waited) / 1e9


class SteadyCaller:
    """Makes events at a rate, and sees to it that each is accepted in the end."""

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
        """Make no more events."""
        self._stopping.set()

    async def run(self) -> Report:
        """Make events until :meth:`stop`, then send again what was refused; return the report."""
        await self._producer.start()
        with self._refusals.open("a", buffering=1) as noted:  # what is to be sent again must not grow in memory
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
            self._note_held(time.monotonic() - began, starved)  # a request would have come meanwhile

    async def _call_noted(self, number: int, noted: TextIO) -> None:
        if not await self._call(number):
            noted.write(f"{number}\n")

    async def _send_again(self) -> None:
        """Send what was refused, in its order and at a rate; ends when the calls have ended and nothing is left."""
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
        """Record one event; return whether the client took it."""
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
