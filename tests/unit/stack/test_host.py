"""The simulated host: its customers, its requests, and the events that it sends through a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from fincoach_events import EventProducer, PageViewed, ProducerSettings, RecommendationInteraction, TransactionCreated
from fincoach_events.events import decode_event
from schemas.topics import Topic
from stack.ports import free_port
from stack.simulation import replica_client
from stack.simulation.host import NEWEST_CUSTOMERS, SimulatedHost
from stack.simulation.replica_client import ReplicaClient
from stack.simulation.response_model import SOURCE
from tests.integration.backends_topics import created_topic, records_on
from tests.replica_doubles import ReplicaDouble, recommend, replicas, unready

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
WAIT_SECONDS = 20


def purchase(user: int, *, at: dt.datetime = NOW, amount_minor: int = 2_000) -> TransactionCreated:
    """Return a purchase of a customer."""
    return TransactionCreated(
        event_id=uuid4(),
        user_id=UUID(int=user),
        occurred_at=at,
        consent=True,
        amount_minor=amount_minor,
        currency="USD",
        category="music",
        transaction_type="debit",
    )


def host_without_broker(replica: ReplicaDouble) -> SimulatedHost:
    """Return a host that does not run."""
    producer = EventProducer(f"127.0.0.1:{free_port()}", consent_default=False)
    return SimulatedHost(ReplicaClient([replica.url]), producer, requests_per_second=200)


@contextlib.asynccontextmanager
async def open_host(replica: ReplicaDouble, brokers: str, topic: Topic) -> AsyncIterator[SimulatedHost]:
    """Run a host that sends to ``topic`` during the block; all events are delivered when it ends."""
    client = ReplicaClient([replica.url])
    settings = ProducerSettings(topic=topic.name)
    async with EventProducer(brokers, consent_default=False, settings=settings) as producer:
        host = SimulatedHost(client, producer, requests_per_second=200)
        running = asyncio.create_task(host.run())
        try:
            yield host
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.close()


async def until(holds: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0.01)


async def interactions_on(brokers: str, topic: Topic) -> list[RecommendationInteraction]:
    """Return the recommendation events that the host sent."""
    events = [(record.key, decode_event(record.value)) for record in await records_on(brokers, topic)]
    assert all(key == str(event.user_id).encode() for key, event in events)
    return [event for _, event in events if isinstance(event, RecommendationInteraction)]


async def test_what_was_shown_and_answered_is_sent_with_its_prediction(broker_address: str) -> None:
    """Views and answers carry the prediction that caused them, its customer and the right times."""
    topic = await created_topic(broker_address, "host")
    async with replicas(recommend) as (replica,):
        async with open_host(replica, broker_address, topic) as host:
            for user in range(1, 4):
                host.observe(purchase(user))
            await until(lambda: host.answered >= 10)
        shown, answered = host.shown, host.answered
    sent = await interactions_on(broker_address, topic)
    views = {event.prediction_id: event for event in sent if event.interaction_type == "view"}
    answers = [event for event in sent if event.interaction_type != "view"]
    assert (len(views), len(answers)) in {(shown, answered), (shown + 1, answered)}  # the last visit may be cut off
    for answer in answers:
        view = views[answer.prediction_id]
        assert (answer.user_id, answer.recommendation_id) == (view.user_id, view.recommendation_id)
        assert NOW < view.occurred_at < answer.occurred_at
        assert (answer.consent, answer.source) == (True, SOURCE)
    assert {body["user_id"] for _, body in replica.asked} <= {str(UUID(int=user)) for user in range(1, 4)}
    assert {(path, body["as_of"]) for path, body in replica.asked} == {("/predict/recommendation", NOW.isoformat())}


async def test_a_closed_shop_asks_nothing_until_it_opens_again(broker_address: str) -> None:
    """A paused host requests nothing until it resumes."""
    topic = await created_topic(broker_address, "host")
    async with replicas(recommend) as (replica,), open_host(replica, broker_address, topic) as host:
        host.pause()
        host.observe(purchase(1))
        await asyncio.sleep(0.1)  # the absence of requests has no event to wait for
        closed = len(replica.asked)
        host.resume()
        await until(lambda: host.shown >= 1)
    assert closed <= 1  # the visit that had begun


async def test_a_prediction_that_fails_is_no_visit(broker_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed prediction yields no events, and the host goes on."""
    monkeypatch.setattr(replica_client, "ROUNDS", 1)
    monkeypatch.setattr(replica_client, "PAUSE_SECONDS", 0.0)
    topic = await created_topic(broker_address, "host")
    async with replicas(unready) as (replica,), open_host(replica, broker_address, topic) as host:
        host.observe(purchase(1))
        await until(lambda: len(replica.asked) >= 3)
        assert (host.shown, host.answered) == (0, 0)
        replica.answer = recommend
        await until(lambda: host.shown >= 1)


async def test_only_purchases_make_customers_and_move_the_hosts_clock() -> None:
    """Only transactions add customers and advance the host's clock."""
    host = host_without_broker(ReplicaDouble())
    view = PageViewed(event_id=uuid4(), user_id=UUID(int=9), occurred_at=NOW, consent=True, page_url="/")
    host.observe(view)
    assert host.customers() == ([], None)
    host.observe(purchase(1, at=NOW - dt.timedelta(days=1)))
    host.observe(purchase(2))
    host.observe(purchase(1, at=NOW + dt.timedelta(days=1)))
    assert host.customers() == ([UUID(int=2), UUID(int=1)], NOW + dt.timedelta(days=1))


async def test_the_facts_of_a_customer_are_those_of_the_last_thirty_days() -> None:
    """A customer's facts cover the last thirty days only."""
    host = host_without_broker(ReplicaDouble())
    for days in (90, 30, 10, 4):
        host.observe(purchase(1, at=NOW - dt.timedelta(days=days), amount_minor=1_050))
    facts = host._customers[UUID(int=1)].facts(NOW)
    assert (facts.purchases, facts.spent, facts.days_since_last) == (2, 21.0, 4.0)
    later = host._customers[UUID(int=1)].facts(NOW + dt.timedelta(days=60))
    assert (later.purchases, later.spent, later.days_since_last) == (0, 0.0, 64.0)


async def test_the_host_remembers_only_its_newest_customers() -> None:
    """The host forgets its oldest customers."""
    host = host_without_broker(ReplicaDouble())
    for user in range(1, 2 * NEWEST_CUSTOMERS + 2):
        host.observe(purchase(user))
    known, _ = host.customers()
    assert len(known) == NEWEST_CUSTOMERS + 1
    assert known[-1] == UUID(int=2 * NEWEST_CUSTOMERS + 1)
