"""The simulated host: real customers request recommendations and answer by the frozen response model.

It uses the event client and HTTP, like any host. Its clock is the time of the replayed events.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from dataclasses import dataclass, field
from uuid import UUID, uuid5

import numpy as np

from fincoach_events import EventProducer
from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from stack.simulation.replica_client import PredictionFailedError, ReplicaClient
from stack.simulation.response_model import SOURCE, CustomerFacts, response

_HOST_NAMESPACE = UUID("2f0f3f5a-58f9-5c0b-8f2c-0b7c4bd0b1ce")
NEWEST_CUSTOMERS = 2_000
WINDOW = dt.timedelta(days=30)
SEEN_AFTER_SECONDS = 60
ANSWERED_AFTER_SECONDS = 120


@dataclass
class _Customer:
    """A customer and the purchases of the last 30 days before the newest one: (when, amount in minor units)."""

    user_id: UUID
    purchases: deque[tuple[dt.datetime, int]] = field(default_factory=deque)

    def buy(self, at: dt.datetime, amount_minor: int) -> None:
        self.purchases.append((at, amount_minor))
        while self.purchases[0][0] <= at - WINDOW:
            self.purchases.popleft()

    def facts(self, now: dt.datetime) -> CustomerFacts:
        recent = [amount for at, amount in self.purchases if at > now - WINDOW]
        since_last = (now - self.purchases[-1][0]).total_seconds() / 86_400
        return CustomerFacts(purchases=len(recent), spent=sum(recent) / 100, days_since_last=max(since_last, 0.0))


class SimulatedHost:
    """Requests ``requests_per_second`` recommendations for recent customers, and sends their answers."""

    def __init__(
        self, client: ReplicaClient, producer: EventProducer, *, requests_per_second: float, seed: int = 0
    ) -> None:
        self.shown = 0
        self.answered = 0
        self._client = client
        self._producer = producer
        self._pause_seconds = 1.0 / requests_per_second
        self._generator = np.random.default_rng(seed)
        self._customers: dict[UUID, _Customer] = {}
        self._now: dt.datetime | None = None
        self._open = asyncio.Event()
        self._open.set()

    def pause(self) -> None:
        """Stop requesting until :meth:`resume`."""
        self._open.clear()

    def resume(self) -> None:
        """Request again."""
        self._open.set()

    def observe(self, event: AnyBehavioralEvent) -> None:
        """Take a customer's purchase and the time from an event that the host has just sent."""
        if not isinstance(event, TransactionCreated):
            return
        customer = self._customers.pop(event.user_id, None) or _Customer(event.user_id)
        customer.buy(event.occurred_at, event.amount_minor)
        self._customers[event.user_id] = customer  # newest last
        self._now = event.occurred_at
        if len(self._customers) > 2 * NEWEST_CUSTOMERS:
            for user_id in list(self._customers)[:NEWEST_CUSTOMERS]:
                del self._customers[user_id]

    def customers(self) -> tuple[list[UUID], dt.datetime | None]:
        """Return the known customers and the time of the host's clock."""
        return list(self._customers), self._now

    async def run(self) -> None:
        """Request and answer until cancelled."""
        while True:
            await self._open.wait()
            if self._customers and self._now is not None:
                await self._one_visit(self._now)
            await asyncio.sleep(self._pause_seconds)

    async def _one_visit(self, now: dt.datetime) -> None:
        newest = list(self._customers.values())
        customer = newest[int(self._generator.integers(len(newest)))]
        try:
            answer = await self._client.predict(
                "recommendation", {"user_id": str(customer.user_id), "as_of": now.isoformat()}
            )
        except PredictionFailedError:
            return  # the client counts it, and the demo fails on it
        self.shown += 1
        await self._send(customer, answer, "view", at=now + dt.timedelta(seconds=SEEN_AFTER_SECONDS))
        draws = self._generator.random(3)
        feedback = response(
            customer.facts(now), answer["action_id"], (float(draws[0]), float(draws[1]), float(draws[2]))
        )
        if feedback is not None:
            await self._send(customer, answer, feedback, at=now + dt.timedelta(seconds=ANSWERED_AFTER_SECONDS))
            self.answered += 1

    async def _send(self, customer: _Customer, answer: dict[str, object], interaction: str, *, at: dt.datetime) -> None:
        prediction_id = str(answer["prediction_id"])
        await self._producer.record(
            "recommendation_interaction",
            user_id=customer.user_id,
            idempotency_key=f"{SOURCE}:{prediction_id}:{interaction}",
            occurred_at=at,
            consent=True,
            source=SOURCE,
            recommendation_id=str(uuid5(_HOST_NAMESPACE, prediction_id)),
            prediction_id=UUID(prediction_id),
            interaction_type=interaction,
        )
