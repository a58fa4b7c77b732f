"""A host at a steady rate, in a process of its own: ``python -m tests.chaos.steady_caller ORDER``, where ORDER is JSON.

Each event is a call of its own, as each request of a web application would make. A call that is refused because the
client is busy is noted in a file and made again later with the same idempotency key. SIGTERM ends the calls; then
everything refused is sent, and a report is written.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import itertools
import signal
import sys
import time
import uuid
from pathlib import Path

import msgspec

from fincoach_events import EventProducer, OutgoingEvent, ProducerBusyError

TICK_SECONDS = 0.01
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
        acknowledged: events that the broker has.
        undelivered: accepted events that the client gave up.
    """

    made: int
    refused: int
    longest_call_seconds: float
    acknowledged: int
    undelivered: int


class SteadyCaller:
    """Makes events at a rate, and sees to it that each is accepted in the end."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._made = 0
        self._refused = 0
        self._longest = 0.0
        self._undelivered = 0
        self._refusals = Path(order.folder) / "refused.txt"
        self._refusals.touch()
        self._calls: set[asyncio.Task[bool]] = set()
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
        again = asyncio.create_task(self._send_again())
        await self._make()
        await asyncio.gather(*self._calls)
        await again
        await self._producer.close(FLUSH_SECONDS)
        return Report(
            made=self._made,
            refused=self._refused,
            longest_call_seconds=self._longest,
            acknowledged=self._producer.acknowledged,
            undelivered=self._undelivered,
        )

    async def _make(self) -> None:
        started = time.monotonic()
        while not self._stopping.is_set():
            due = int((time.monotonic() - started) * self._order.events_per_second)
            for number in range(self._made, due):
                call = asyncio.create_task(self._call_noted(number))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            self._made = max(self._made, due)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_SECONDS)

    async def _call_noted(self, number: int) -> bool:
        accepted = await self._call(number)
        if not accepted:
            with self._refusals.open("a") as file:  # a line: what is to be sent again must not grow in memory
                file.write(f"{number}\n")
        return accepted

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
        order, started = self._order, time.monotonic()
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
            self._longest = max(self._longest, time.monotonic() - started)
        return True

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
