"""aiokafka behind our interface: the producer of relays and logs, plain consumers, topics from the register."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    IllegalStateError,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    OutOfOrderSequenceNumber,
    TopicAlreadyExistsError,
    UnknownProducerId,
    for_code,
)

from backends.broker.interface import Lag, OutgoingRecord, Record
from schemas.errors import RetryLaterError, SettingsError
from schemas.topics import TOPICS, Topic

LARGEST_REQUEST_BYTES = 6 * 1024 * 1024  # a dead letter of 5 MiB and its headers
# One request carries the announcements of a partition: with aiokafka's 16 KiB, five hundred take sixty requests.
BATCH_BYTES = 256 * 1024
CLOSING_SECONDS = 20.0  # for a refused producer; a little more than a request may take
# After such an answer the broker refuses everything from this producer, but aiokafka keeps using it. Either batches timed
# out in an outage and left a gap in its sequence numbers, or the broker has forgotten the producer.
SPENT_ERRORS = (OutOfOrderSequenceNumber, UnknownProducerId, InvalidProducerIdMapping, InvalidProducerEpoch)


class BrokerProducer:
    """An idempotent producer; start before use, stop to flush."""

    def __init__(self, brokers: str, *, client_id: str, linger_ms: int = 5) -> None:
        self._brokers = brokers
        self._client_id = client_id
        self._linger_ms = linger_ms
        self._producer: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect; waits and tries again while the broker is away."""
        while self._producer is None:
            try:
                self._producer = await self._connected()
            except (KafkaError, OSError):
                await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """Flush and disconnect; calling it twice is allowed."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()
        await asyncio.gather(*self._closing)

    async def publish(
        self, topic: str, key: bytes | None, value: bytes | None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send one record and wait for its acknowledgement; a value of None is a tombstone.

        Raises:
            RetryLaterError: when the broker does not acknowledge it.
        """
        await self._send([(topic, key, value, headers or {})])

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Send (topic, key, value, headers) in order; return when all are acknowledged.

        Raises:
            RetryLaterError: when any was not; all may be sent again.
        """
        await self._send(records)

    async def _send(self, records: Sequence[OutgoingRecord]) -> None:
        producer = self._producer
        if producer is None:
            message = "the producer is not started"
            raise RetryLaterError(message)
        futures: list[asyncio.Future[object]] = []
        refused: list[KafkaError] = []
        try:
            for topic, key, value, headers in records:
                pairs = [(name, text.encode()) for name, text in headers.items()]
                futures.append(await producer.send(topic, value=value, key=key, headers=pairs))
        except KafkaError as error:
            refused.append(error)
        outcomes = [*refused, *await asyncio.gather(*futures, return_exceptions=True)]
        if any(isinstance(outcome, SPENT_ERRORS) for outcome in outcomes):
            await self._renew(producer)
        for outcome in outcomes:
            if isinstance(outcome, KafkaError | TimeoutError):
                raise RetryLaterError(repr(outcome)) from outcome
            if isinstance(outcome, BaseException):
                raise outcome

    async def _connected(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers, client_id=self._client_id, enable_idempotence=True, linger_ms=self._linger_ms,
            max_request_size=LARGEST_REQUEST_BYTES, request_timeout_ms=15_000, compression_type="zstd",
            max_batch_size=BATCH_BYTES,
        )  # fmt: skip
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _renew(self, spent: AIOKafkaProducer) -> None:
        """Replace a producer that the broker refuses; if that fails, the next error tries again."""
        async with self._renewing:
            if self._producer is not spent:  # another call has done it, or it was stopped
                return
            with contextlib.suppress(KafkaError, OSError):
                self._producer = await self._connected()
                closing = asyncio.create_task(_close(spent))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)


async def _close(spent: AIOKafkaProducer) -> None:
    """Close a producer; records that others still send through it fail, and they send them again."""
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSING_SECONDS):
            await spent.stop()


class BrokerConsumer:
    """A consumer of whole topics: in a group (committed offsets) or alone (reads every partition from a chosen place)."""

    def __init__(self, brokers: str, topics: Sequence[Topic], *, client_id: str, group: str | None = None) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self.group = group
        self._consumer = AIOKafkaConsumer(
            *(self._topics if group else ()), bootstrap_servers=brokers, client_id=client_id, group_id=group, enable_auto_commit=False,
            auto_offset_reset="earliest", session_timeout_ms=10_000, heartbeat_interval_ms=3_000, max_poll_interval_ms=600_000,
            max_partition_fetch_bytes=LARGEST_REQUEST_BYTES,
        )  # fmt: skip

    async def start(self, *, since: dt.datetime | None = None) -> None:
        """Connect. Without a group, read all partitions from the beginning, or from ``since`` (append time)."""
        await self._consumer.start()
        if self.group is None:
            partitions = await self._all_partitions()
            self._consumer.assign(partitions)
            await self._seek(partitions, since)

    async def stop(self) -> None:
        """Leave the group and disconnect."""
        await self._consumer.stop()

    async def fetch(self, *, timeout_seconds: float, limit: int = 500) -> list[Record]:
        """Return the next records, or none after the time-out.

        Raises:
            RetryLaterError: when the broker is away.
        """
        try:
            batches = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000), max_records=limit)
        except KafkaError as error:
            raise RetryLaterError(repr(error)) from error
        return [_record(item) for items in batches.values() for item in items]

    async def commit(self, record: Record) -> None:
        """Remember in the group that ``record`` is done.

        Raises:
            RetryLaterError: when the broker is away or the partition is no longer ours.
        """
        try:
            await self._consumer.commit({TopicPartition(record.topic, record.partition): record.offset + 1})
        except KafkaError as error:
            raise RetryLaterError(repr(error)) from error

    def rewind(self, record: Record) -> None:
        """Read ``record`` and those behind it on its partition again; a revoked partition is left to its new owner."""
        with contextlib.suppress(IllegalStateError):
            self._consumer.seek(TopicPartition(record.topic, record.partition), record.offset)

    async def lags(self) -> list[Lag]:
        """Return position and end of each assigned partition.

        Raises:
            RetryLaterError: when the broker is away.
        """
        try:
            partitions = list(self._consumer.assignment())
            ends = await self._consumer.end_offsets(partitions) if partitions else {}
            positions = {partition: await self._consumer.position(partition) for partition in partitions}
        except KafkaError as error:
            raise RetryLaterError(repr(error)) from error
        return [
            Lag(topic=partition.topic, partition=partition.partition, position=positions[partition], end=end)
            for partition, end in ends.items()
        ]

    async def _all_partitions(self) -> list[TopicPartition]:
        partitions: list[TopicPartition] = []
        for name in self._topics:
            known = None
            while not known:
                await self._consumer._client.force_metadata_update()  # noqa: SLF001 - a groupless consumer knows no topics before it asks
                known = self._consumer.partitions_for_topic(name) or await self._ask_for(name)
            partitions += [TopicPartition(name, number) for number in sorted(known)]
        return partitions

    async def _ask_for(self, name: str) -> set[int] | None:
        self._consumer._client.add_topic(name)  # noqa: SLF001 - see above
        await asyncio.sleep(0.2)
        found: set[int] | None = self._consumer.partitions_for_topic(name)
        return found

    async def _seek(self, partitions: list[TopicPartition], since: dt.datetime | None) -> None:
        if since is None:
            await self._consumer.seek_to_beginning(*partitions)
            return
        # Asked first: a record that is appended between the two queries must be read, not taken for an old one.
        ends = await self._consumer.end_offsets(partitions)
        places = await self._consumer.offsets_for_times(
            {partition: int(since.timestamp() * 1000) for partition in partitions}
        )
        for partition, place in places.items():
            self._consumer.seek(partition, ends[partition] if place is None else place.offset)


async def create_topics(
    brokers: str, *, wide_partitions: int, replication: int = 1, topics: Iterable[Topic] = TOPICS.values()
) -> list[str]:
    """Create the register's topics that do not exist yet and return their names.

    Raises:
        SettingsError: when an existing topic has another number of partitions than the register.
        RetryLaterError: when the broker is away.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    try:
        await admin.start()
        existing = {item["topic"]: len(item["partitions"]) for item in await admin.describe_topics()}
        missing = [topic for topic in topics if topic.name not in existing]
        for topic in topics:
            _check_partitions(topic, existing.get(topic.name), topic.partitions(wide_partitions))
        if missing:
            await _create(admin, missing, wide_partitions=wide_partitions, replication=replication)
        return [topic.name for topic in missing]
    except (KafkaError, OSError) as error:
        raise RetryLaterError(repr(error)) from error
    finally:
        await admin.close()


async def _create(
    admin: AIOKafkaAdminClient, missing: Sequence[Topic], *, wide_partitions: int, replication: int
) -> None:
    response = await admin.create_topics(
        [
            NewTopic(topic.name, topic.partitions(wide_partitions), replication, topic_configs=topic.configuration())
            for topic in missing
        ]
    )
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            message = f"the broker refused to create {name}: {error.__name__}"
            raise SettingsError(message)


def _check_partitions(topic: Topic, found: int | None, wanted: int) -> None:
    if found is not None and found != wanted:
        message = (
            f"{topic.name} has {found} partitions but the settings say {wanted}; the number is part of the data: "
            f"set FINCOACH_WIDE_PARTITIONS={found}, or start on a new folder"
        )
        raise SettingsError(message)


def _record(item: object) -> Record:
    return Record(
        topic=item.topic, partition=item.partition, offset=item.offset, key=item.key, value=item.value or b"",  # type: ignore[attr-defined]
        timestamp=dt.datetime.fromtimestamp(item.timestamp / 1000, dt.UTC),  # type: ignore[attr-defined]
        headers={name: (value or b"").decode(errors="replace") for name, value in item.headers},  # type: ignore[attr-defined]
    )  # fmt: skip
