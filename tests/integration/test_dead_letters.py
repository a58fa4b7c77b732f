"""Dead letters on a real broker and a real database: kept with all that is known, sent again by command, judged by producer."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from backends.broker.interface import OutgoingRecord, Record
from backends.broker.kafka import BrokerProducer
from backends.clock import SystemClock
from backends.control import CommandHandler
from backends.database.outbox import OutboxRelay
from backends.database.repositories.dead_letters import DeadLetterQueries, LetterFilter, RetryRule
from backends.database.unit_of_work import Database
from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from schemas.codec import decode, encode
from schemas.errors import CommandRejectedError, InvalidMessageError, RetryLaterError
from schemas.messages.control import RetryDeadLetters
from schemas.topics import ALERTS, BEHAVIORAL_EVENTS, CONTROL, DEAD_LETTERS, MIB
from streams.batches.events import decode_storable_event
from streams.batches.golden import BrokenReceiverError
from streams.batches.retries import checked_filter, retry_dead_letters
from streams.bootstrap import Worker
from streams.settings import StreamsSettings
from tests.integration.backends_topics import records_on
from tests.integration.streams_workers import (
    begin_at_the_end,
    database_of,
    outgoing,
    pane_sums,
    producing,
    running_worker,
    settings_for,
    transaction,
    until,
    until_read,
)
from tests.services import connect

FUTURE = "a category that only the next release knows"


@pytest.fixture
async def settings(own_broker: str, database_url: str, tmp_path: Path) -> StreamsSettings:
    """Give the settings of a worker that sees only what this test sends, with limits that nobody reaches."""
    await begin_at_the_end(own_broker, database_url)
    return settings_for(own_broker, database_url, tmp_path, dead_letter_consecutive=10_000, dead_letter_records=10_000)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection to ask with."""
    connection = await connect(database_url)
    yield connection
    await connection.close()


class Release:
    """The rule of the worker under test: an old release refuses what the next one takes in."""

    def __init__(self) -> None:
        self.is_upgraded = False

    def decode(self, raw: bytes) -> AnyBehavioralEvent:
        """Decode as the worker does, once it is upgraded."""
        event = decode_storable_event(raw)
        if not self.is_upgraded and isinstance(event, TransactionCreated) and event.category == FUTURE:
            raise InvalidMessageError("unknown_version", FUTURE)
        return event


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Release:
    """Give the rule of the worker under test, patched in."""
    release = Release()
    monkeypatch.setattr("streams.batches.events.decode_storable_event", release.decode)
    return release


@dataclass
class Bench:
    """A running worker with its relay and its commands, one step at a time."""

    worker: Worker
    database: Database
    producer: BrokerProducer
    relay: OutboxRelay

    async def send(self, events: Sequence[AnyBehavioralEvent], *, raw: bytes | None = None) -> None:
        """Send events, or other bytes under their keys."""
        await self.producer.publish_batch([outgoing(event, raw=raw) for event in events])

    async def command(self, **fields: Any) -> str:  # noqa: ANN401 - of the command
        """Carry out a retry as the control topic would bring it, publish what it left in the outbox, and return its answer."""
        now = SystemClock().now()
        command = RetryDeadLetters(
            event_id=uuid.uuid4(), occurred_at=now, issuer="tester", expires_at=now + dt.timedelta(minutes=1), **fields
        )
        record = Record(topic=CONTROL.name, partition=0, offset=0, key=b"", value=encode(command), timestamp=now)
        handler = CommandHandler(self.database, SystemClock(), {RetryDeadLetters: retry_dead_letters}, models=())
        await handler.handle(record)
        async with self.database.transaction() as work:
            driver = await work.driver()
            await work.connection.exec_driver_sql("SELECT 1")
            answer = await driver.fetchval("SELECT detail FROM command_inbox WHERE command_id = $1", command.event_id)
        await self.publish()
        return str(answer)

    async def publish(self) -> None:
        """Publish the whole outbox."""
        while await self.relay.publish_once():
            pass


@contextlib.asynccontextmanager
async def bench(settings: StreamsSettings) -> AsyncIterator[Bench]:
    """Run a worker whose outbox is published when the test says so."""
    url = settings.database_url.get_secret_value()
    async with (
        database_of(url) as database,
        producing(settings.brokers) as producer,
        running_worker(settings) as worker,
    ):
        yield Bench(worker, database, producer, OutboxRelay(database, producer))


async def letters(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Return all dead letters, oldest first."""
    return list(await connection.fetch("SELECT * FROM dead_letters ORDER BY id"))


async def until_letters(connection: asyncpg.Connection, number: int) -> list[asyncpg.Record]:
    """Wait for so many dead letters and return them."""

    async def there() -> bool:
        return len(await letters(connection)) >= number

    await until(there, what=f"{number} dead letters")
    return await letters(connection)


def unreadable_yet(number: int, *, source: str = "host") -> TransactionCreated:
    """Return an event that the old release refuses."""
    return transaction(number, category=FUTURE, source=source)


async def test_a_letter_says_where_from_who_and_why(settings: StreamsSettings, connection: asyncpg.Connection) -> None:
    """A dead letter says where the record was, who sent it and why it failed."""
    event = transaction(1, source=f"shop-{uuid.uuid4().hex[:8]}")
    async with bench(settings) as yard:
        await yard.producer.publish_batch([(BEHAVIORAL_EVENTS.name, b"\xff\x00", outgoing(event)[2], {"trace": "1"})])
        (letter,) = await until_letters(connection, 1)
        await yard.publish()
    (record,) = [
        record
        for record in await records_on(settings.brokers, DEAD_LETTERS)
        if record.headers["producer"] == event.source
    ]
    assert record.value == letter["raw"] == outgoing(event)[2]
    assert record.key == BEHAVIORAL_EVENTS.name.encode()
    assert record.headers == {
        "reason": "key_mismatch",
        "detail": letter["detail"],
        "source_topic": BEHAVIORAL_EVENTS.name,
        "source_partition": str(letter["partition"]),
        "source_offset": str(letter["offset"]),
        "source_timestamp": letter["record_at"].isoformat(),
        "source_key_base64": "/wA=",
        "producer": event.source,
    }
    assert (letter["key"], letter["producer"], letter["attempts"], letter["retry_of"]) == (
        b"\xff\x00",
        event.source,
        0,
        None,
    )


async def test_what_is_valid_after_a_fix_is_archived_once(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """A record that is valid after a fix is archived once, however often it is retried."""
    events = [unreadable_yet(number) for number in range(5)]
    async with bench(settings) as yard:
        await yard.send([*events, transaction(100)])
        await until_letters(connection, 5)
        release.is_upgraded = True
        assert await yard.command(reason="unknown_version") == "5 of 5 dead letters sent again"
        second = await yard.command(reason="unknown_version")
        assert second.startswith("0 of 5 dead letters sent again; left out: ")
        await until_read(connection, 11)
        assert (
            await yard.command(reason="unknown_version", again=True)
            == "0 of 5 dead letters sent again; left out: 5 resolved"
        )
    sums = await pane_sums(connection)
    archived = await connection.fetch('SELECT event_id, "offset" FROM behavioral_events')
    assert (sums["archived"], sums["duplicates"], sums["dead_lettered"]) == (6, 0, 5)
    assert {row["event_id"] for row in archived} == {event.event_id for event in [*events, transaction(100)]}
    rows = await letters(connection)
    assert all(row["resolved_at"] and row["retried_at"] for row in rows)
    assert [row["attempts"] for row in rows] == [1] * 5


async def test_what_fails_again_is_linked_to_its_first_letter_until_it_was_tried_too_often(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """A retry that fails is linked to its first dead letter; after too many tries it is refused."""
    assert not release.is_upgraded
    async with bench(settings) as yard:
        await yard.send([unreadable_yet(1)])
        await until_letters(connection, 1)
        for attempt in range(1, 6):
            assert await yard.command(everything=True) == expected(attempt)
            await until_letters(connection, attempt + 1)
        assert (
            await yard.command(everything=True)
            == "0 of 6 dead letters sent again; left out: 5 failed again, 1 tried too often"
        )
    rows = await letters(connection)
    first = rows[0]["id"]
    assert [row["retry_of"] for row in rows] == [None] + [first] * 5
    assert [row["attempts"] for row in rows] == [1, 2, 3, 4, 5, 5]
    assert {(row["key"], row["raw"], row["producer"]) for row in rows} == {(rows[0]["key"], rows[0]["raw"], "host")}
    assert not any(row["resolved_at"] for row in rows)
    assert [row["partition"] for row in rows] == [rows[0]["partition"]] * 6


def expected(attempt: int) -> str:
    """Return the answer to the given try of one record."""
    left_out = f"; left out: {attempt - 1} failed again" if attempt > 1 else ""
    return f"1 of {attempt} dead letters sent again{left_out}"


async def test_a_chain_is_settled_as_a_whole(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """A retry that succeeds settles all dead letters of its record."""
    async with bench(settings) as yard:
        await yard.send([unreadable_yet(1)])
        await until_letters(connection, 1)
        await yard.command(everything=True)
        await until_letters(connection, 2)
        release.is_upgraded = True
        await yard.command(everything=True)
        await until_read(connection, 3)
    assert [bool(row["resolved_at"]) for row in await letters(connection)] == [True, True]
    assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 1


class CutPublisher:
    """Publishes, and loses the connection before anybody hears of it, as a relay does that is killed before it marks."""

    def __init__(self, producer: BrokerProducer) -> None:
        self._producer = producer

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Publish for real, and fail."""
        await self._producer.publish_batch(records)
        raise RetryLaterError("killed between publishing and marking")


async def test_a_relay_that_dies_between_publishing_and_marking_archives_nothing_twice(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """A relay that dies between publishing and marking causes no second archiving."""
    async with bench(settings) as yard:
        await yard.send([unreadable_yet(number) for number in range(3)])
        await until_letters(connection, 3)
        release.is_upgraded = True
        healthy, yard.relay = yard.relay, OutboxRelay(yard.database, CutPublisher(yard.producer))
        with pytest.raises(RetryLaterError):
            await yard.command(everything=True)
        await until_read(connection, 6)
        yard.relay = healthy
        await yard.publish()
        await until_read(connection, 9)
    sums = await pane_sums(connection)
    assert (sums["archived"], sums["duplicates"], sums["dead_lettered"]) == (3, 3, 3)
    assert all(row["resolved_at"] and row["attempts"] == 1 for row in await letters(connection))


async def test_two_commands_at_the_same_moment_send_each_letter_once(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """Two commands at the same moment send each record once."""
    async with bench(settings) as yard:
        await yard.send([unreadable_yet(number) for number in range(40)])
        await until_letters(connection, 40)
        release.is_upgraded = True
        answers = await asyncio.gather(
            yard.command(reason="unknown_version"), yard.command(topic=BEHAVIORAL_EVENTS.name)
        )
    assert sum(int(answer.partition(" ")[0]) for answer in answers) == 40
    sent = await connection.fetchval("SELECT count(*) FROM outbox WHERE topic = $1", BEHAVIORAL_EVENTS.name)
    assert sent == 40


async def test_letters_are_chosen_by_everything_that_is_known_of_them(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """Dead letters can be chosen by everything that is known of them."""
    assert not release.is_upgraded
    async with bench(settings) as yard:
        await yard.send([unreadable_yet(1, source="shop"), unreadable_yet(2, source="bank")])
        await yard.send([transaction(3)], raw=b"no json")
        rows = await until_letters(connection, 3)
        bank = next(row for row in rows if row["producer"] == "bank")
        later = max(row["created_at"] for row in rows) + dt.timedelta(seconds=1)
        chosen = [
            (LetterFilter(reason="not_json"), 1),
            (LetterFilter(producer="bank"), 1),
            (LetterFilter(producer="bank", reason="not_json"), 0),
            (LetterFilter(ids=(bank["id"], 10**12)), 1),
            (LetterFilter(topic="fincoach.predictions"), 0),
            (LetterFilter(partition=bank["partition"], producer="bank"), 1),
            (LetterFilter(partition=bank["partition"] + 1, producer="bank"), 0),
            (LetterFilter(since=later), 0),
            (LetterFilter(until=later, reason="unknown_version"), 2),
            (LetterFilter(), 3),
        ]
        async with yard.database.reading() as asked:
            for one, number in chosen:
                fates = await DeadLetterQueries(asked).fates(one, RetryRule(most_attempts=5))
                assert sum(fate.letters for fate in fates) == number, one


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing is chosen"),
    ({"ids": (0,)}, "an id is a positive number"),
    ({"ids": (2**63,)}, "an id is a positive number"),
    ({"partition": -1}, "there is no partition -1"),
    ({"everything": True, "limit": 0}, "one command sends 1 to 10000 dead letters"),
    ({"since": dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))}, "outside the calendar"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED)
def test_a_command_that_cannot_be_carried_out_is_refused(fields: dict[str, Any], said: str) -> None:
    """A command with a value that no column holds is refused."""
    now = SystemClock().now()
    command = RetryDeadLetters(event_id=uuid.uuid4(), occurred_at=now, issuer="t", expires_at=now, **fields)
    with pytest.raises(CommandRejectedError, match=said):
        checked_filter(command)


async def test_one_command_sends_what_one_transaction_may_hold(
    settings: StreamsSettings, connection: asyncpg.Connection, release: Release
) -> None:
    """One command sends at most what one transaction may hold."""
    assert not release.is_upgraded
    async with bench(settings) as yard:
        await yard.send([unreadable_yet(number) for number in range(5)])
        await until_letters(connection, 5)
        answer = await yard.command(everything=True, limit=2)
    assert answer == "2 of 5 dead letters sent again; left out: 3 waiting"
    assert [bool(row["retried_at"]) for row in (await letters(connection))[:5]] == [True, True, False, False, False]


async def alerts_about(brokers: str, producer: str) -> list[Any]:
    """Return the alerts about a producer."""
    messages = [decode(ALERTS, record.value) for record in await records_on(brokers, ALERTS)]
    return [message for message in messages if message.subject == producer]


async def test_a_broken_producer_raises_one_alert_and_the_rest_flows(
    settings: StreamsSettings, connection: asyncpg.Connection
) -> None:
    """A broken producer raises one alert, and events of others are taken in."""
    shop = f"shop-{uuid.uuid4().hex[:8]}"
    strict = settings.model_copy(
        update={"dead_letter_consecutive": 50, "dead_letter_window_seconds": 3.0, "batch_records": 20}
    )
    async with bench(strict) as yard:
        for first in range(0, 200, 20):
            await yard.send([transaction(number) for number in range(first, first + 20)])
            await yard.send([transaction(number) for number in range(first, first + 20)], raw=bad_bytes(shop))
        await until_read(connection, 400)
        await yard.publish()
        raised = await alerts_about(strict.brokers, shop)

        async def cleared() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM exceeded_limits")

        await until(cleared, what="the alert to be over")
        await yard.publish()
        both = await alerts_about(strict.brokers, shop)
    sums = await pane_sums(connection)
    assert (sums["archived"], sums["dead_lettered"]) == (200, 200)
    assert [type(alert).__name__ for alert in raised] == ["AlertRaised"]
    assert (raised[0].name, raised[0].service) == ("dead_letter_limit", "streams")
    assert f"records of {shop} one after the other" in raised[0].detail
    assert [type(alert).__name__ for alert in both] == ["AlertRaised", "AlertCleared"]
    assert both[1].causation_id == raised[0].event_id


async def test_a_producer_with_too_great_a_share_of_dead_letters_raises_an_alert(
    settings: StreamsSettings, connection: asyncpg.Connection
) -> None:
    """A producer with too large a share of dead letters raises an alert; others do not."""
    shop, calm = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("shop", "calm"))
    strict = settings.model_copy(update={"dead_letter_ratio": 0.2, "dead_letter_records": 100, "batch_records": 30})
    async with bench(strict) as yard:
        for first in range(0, 400, 20):
            numbers = range(first, first + 20)
            await yard.send([transaction(number, source=shop) for number in numbers])
            await yard.send([transaction(number) for number in numbers][:10], raw=bad_bytes(shop))
            await yard.send([transaction(1_000 + number, source=calm) for number in numbers])
            await yard.send([transaction(number) for number in numbers][:2], raw=bad_bytes(calm))
        await until_read(connection, 20 * 52)
        await yard.publish()
        raised = await alerts_about(strict.brokers, shop)
        about_the_calm = await alerts_about(strict.brokers, calm)
    sums = await pane_sums(connection)
    assert (sums["archived"], sums["dead_lettered"]) == (800, 240)
    assert [(type(alert).__name__, alert.name) for alert in raised] == [("AlertRaised", "dead_letter_limit")]
    assert re.search(
        rf"^\d+ of the last \d+ records of {shop} could not be taken in; the limit is 20% of 100 or more",
        raised[0].detail,
    )
    assert about_the_calm == []


def bad_bytes(producer: str) -> bytes:
    """Return what cannot be taken in and says who sent it."""
    return b'{"event_type":"transaction_creation","source":"%s"}' % producer.encode()


def refused(_: bytes) -> AnyBehavioralEvent:
    """Refuse everything, as a build whose decoder is broken."""
    raise InvalidMessageError("missing_field", "planted")


@pytest.mark.expects_errors("batch_failed")
async def test_a_broken_worker_stops_before_it_puts_a_topic_aside(
    settings: StreamsSettings, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken worker stops before it dead-letters a topic."""
    strict = settings.model_copy(update={"dead_letter_consecutive": 20})
    monkeypatch.setattr("streams.batches.events.decode_storable_event", refused)
    before = await connection.fetch("SELECT * FROM ledger ORDER BY topic, partition")
    async with bench(strict) as yard:
        user = transaction(1).user_id
        await yard.send([transaction(number, user_id=user) for number in range(30)])
        with pytest.raises(BrokenReceiverError, match="its own decoder or rules are broken"):
            await asyncio.wait_for(asyncio.shield(yard.worker.reader.failure), timeout=30)
    assert await letters(connection) == []
    assert await connection.fetch(
        "SELECT topic, generation, partition, next_offset FROM ledger ORDER BY topic, partition"
    ) == [tuple(row)[:4] for row in before]
    monkeypatch.undo()
    async with bench(strict):  # the build that ran before takes everything in
        await until_read(connection, 30)
    assert (await pane_sums(connection))["archived"] == 30


@pytest.mark.expects_errors("batch_failed")
async def test_a_broken_reducer_stops_the_worker_too(
    settings: StreamsSettings, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with a broken reducer stops, and no producer is blamed."""

    def broken(*_: object) -> None:
        raise ArithmeticError("planted")

    monkeypatch.setattr("streams.batches.folding.fold", broken)
    strict = settings.model_copy(update={"dead_letter_consecutive": 20})
    async with bench(strict) as yard:
        user = transaction(1).user_id
        await yard.send([transaction(number, user_id=user) for number in range(30)])
        with pytest.raises(BrokenReceiverError, match="reducer_error"):
            await asyncio.wait_for(asyncio.shield(yard.worker.reader.failure), timeout=30)
    assert await letters(connection) == []


async def test_a_record_that_no_client_may_send_again_is_announced_by_its_beginning(
    settings: StreamsSettings, connection: asyncpg.Connection
) -> None:
    """A record too large to be sent again is announced by its beginning."""
    huge = b'{"source":"' + uuid.uuid4().hex.encode() + b'","x":"' + b"x" * (7 * MIB) + b'"}'
    sender = AIOKafkaProducer(bootstrap_servers=settings.brokers, max_request_size=8 * MIB, compression_type="zstd")
    async with bench(settings) as yard, sender:
        await sender.send_and_wait(BEHAVIORAL_EVENTS.name, huge, key=b"bulk")
        (letter,) = await until_letters(connection, 1)
        await yard.publish()
    assert (letter["reason"], letter["raw"] == huge) == ("too_large", True)
    (said,) = [one for one in await records_on(settings.brokers, DEAD_LETTERS) if one.headers["producer"] == letter["producer"]]  # fmt: skip
    assert (said.headers["whole_bytes"], huge.startswith(said.value[: 4 * MIB])) == (str(len(huge)), True)
