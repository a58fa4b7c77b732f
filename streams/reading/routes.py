"""The edge: Faust agents that take items, call the service and decide what an error means.

Faust acknowledges an item whose agent raised, so nothing is ever raised out of an agent. A batch has three ends:
committed; dropped and read again from the ledger (lost compare, database away); or a bug, which stops the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas import codec
from schemas.errors import InvalidMessageError, RetryLaterError
from schemas.topics import DATASET_PROGRESS, THRESHOLD_REACHED, Topic
from schemas.vocabulary import ModelType
from streams.batches.batch import BatchOutcome, LedgerBatch, LostCompareError
from streams.epochs.live_view import LiveDataset, decode_live, encode_live, fold_pane
from streams.reading.app import ledger_topic, raw_topic
from streams.reading.lanes import Lanes
from streams.reading.positions import Admission

if TYPE_CHECKING:
    from faust.types import TP

    from schemas.messages.progress import PaneClosed
    from streams.batches.intake import FetchedRecord
    from streams.reading.positioner import LedgerPlacement
    from streams.reading.transport import BatchConsumer, LedgerApp

log = get_logger("streams.reading.routes")
BatchHandler = Callable[[LedgerBatch], Awaitable[BatchOutcome]]


class Fetched(NamedTuple):
    """A fetched batch of one partition, and the consumer that it came from."""

    consumer: BatchConsumer
    records: Sequence[FetchedRecord]


class LedgerRoute:
    """Brings the batches of one ledger topic to the service, each from where the ledger stands.

    Each partition has a lane of its own. A batch that still waits in its lane when the partition is revoked or placed
    anew is judged by its offsets when its turn comes: without a position nothing is taken.
    """

    def __init__(self, topic: Topic, placement: LedgerPlacement, handle: BatchHandler) -> None:
        self._topic = topic
        self._placement = placement
        self._handle = handle
        self._lanes: Lanes[TP, Fetched] = Lanes(self._handle_next)

    async def take(self, consumer: BatchConsumer, partition: TP, records: Sequence[FetchedRecord]) -> None:
        """Hand a fetched batch to its partition's lane, and wait while that is full; never raises but for a cancellation.

        Faust acknowledges the batch before it is committed. Nothing reads that offset: the ledger says where to go on.
        """
        with self._placement.handling(self._topic.name):
            await self._lanes.put(partition, Fetched(consumer, records))

    async def stop(self) -> None:
        """Finish the batches at work and take no others."""
        await self._lanes.stop()

    async def _handle_next(self, partition: TP, fetched: Fetched) -> None:
        with self._placement.handling(self._topic.name):
            await self._take_or_drop(fetched.consumer, partition, fetched.records)

    async def _take_or_drop(self, consumer: BatchConsumer, partition: TP, records: Sequence[FetchedRecord]) -> None:
        try:
            await self._take(consumer, partition, records)
        except LostCompareError:
            METRICS.streams_lost_compares.labels(topic=self._topic.name).inc()
            log.warning("compare_lost", topic=partition.topic, partition=partition.partition)
            await self._placement.place(consumer, {partition})
        except RetryLaterError as error:
            log.warning("batch_delayed", topic=partition.topic, partition=partition.partition, error=repr(error))
            self._placement.place_later(consumer, {partition})
        except Exception as error:  # noqa: BLE001 - the process's edge: a bug, and Faust would go on as if the batch were done
            self._stop(partition, error)

    def _stop(self, partition: TP, error: Exception) -> None:
        log.error("batch_failed", topic=partition.topic, partition=partition.partition, exc_info=error)
        self._placement.fail(error)

    async def _take(self, consumer: BatchConsumer, partition: TP, records: Sequence[FetchedRecord]) -> None:
        positions = self._placement.positions
        admission = positions.admit(partition, first=records[0].offset, last=records[-1].offset)
        if admission is Admission.READ_AGAIN:
            log.info("hole_seen", topic=partition.topic, partition=partition.partition, first=records[0].offset)
            await self._placement.read_again(consumer, partition)
        is_next = admission is Admission.TAKE or (
            admission is Admission.ASK and await self._placement.is_hole(consumer, partition, below=records[0].offset)
        )
        position = positions.get(partition)
        if not is_next or position is None:
            return
        from_offset = position.next_offset
        batch = LedgerBatch(
            topic=self._topic,
            partition=partition.partition,
            from_offset=from_offset,
            records=_from(records, from_offset),
        )
        await self._handle(batch)
        positions.advance(partition, batch.to_offset)


def _from(records: Sequence[FetchedRecord], offset: int) -> Sequence[FetchedRecord]:
    return records if records[0].offset >= offset else [record for record in records if record.offset >= offset]


class LiveView:
    """Keeps the Faust table of running counts and the gauges; rebuilt from the database where a pane is missing.

    The first message of a process rebuilds it too: what the table's changelog tells may be of an older database, and
    panes of the new one would join it without a hole.
    """

    def __init__(
        self,
        table: Any,  # noqa: ANN401 - a Faust table
        rebuild: Callable[[ModelType], Awaitable[LiveDataset]],
        *,
        models: Collection[ModelType],
    ) -> None:
        self._table = table
        self._rebuild = rebuild
        self._models = models
        self._checked: set[ModelType] = set()

    async def take_pane(self, pane: PaneClosed) -> None:
        """Fold a closed pane into the view of every model."""
        for model_type in self._models:
            known = self.get(model_type) if model_type in self._checked else None
            live = fold_pane(known, model_type, pane) if known else None
            await self._keep(model_type, live)

    async def take_epoch(self, model_type: ModelType, epoch: int) -> None:
        """Begin the view of what follows ``epoch``; of a burst of epochs the first rebuild shows the last."""
        known = self.get(model_type)
        if known is None or known.epoch <= epoch:
            await self._keep(model_type, None)

    def get(self, model_type: ModelType) -> LiveDataset | None:
        """Return the view of ``model_type``, where this worker has it."""
        raw = self._table.get(model_type.encode())
        return decode_live(raw) if raw else None

    def show(self) -> dict[str, Any]:
        """Set the gauges and return the views as plain values."""
        shown: dict[str, Any] = {}
        for model_type in self._models:
            live = self.get(model_type)
            if live is None:
                continue
            METRICS.streams_dataset_counted.labels(model_type=model_type).set(live.counts.counted)
            METRICS.streams_dataset_quality.labels(model_type=model_type).set(live.quality or 0.0)
            shown[model_type] = {"epoch": live.epoch, "counted": live.counts.counted, "quality": live.quality}
        return shown

    async def _keep(self, model_type: ModelType, folded: LiveDataset | None) -> None:
        """Let the table hold ``folded``, or else what the database says."""
        live = folded or await self._rebuild(model_type)
        self._checked.add(model_type)
        if live != self.get(model_type):
            self._table[model_type.encode()] = encode_live(live)


def register_ledger_agent(app: LedgerApp, topic: Topic, route: LedgerRoute) -> None:
    """Let batches of ``topic`` go to ``route`` in the order in which they were fetched."""

    async def take_batches(stream: Any) -> None:  # noqa: ANN401 - a Faust stream
        async for records in stream:
            await route.take(app.batch_consumer, stream.current_event.message.tp, records)

    app.agent(ledger_topic(app, topic), name=f"take-{topic.name}", concurrency=1)(take_batches)


def register_live_agents(app: LedgerApp, live: LiveView, *, wake: Callable[[], None]) -> None:
    """Let closed panes wake the dataset agent and reach the live view; crossings begin it anew."""

    async def follow_panes(stream: Any) -> None:  # noqa: ANN401 - a Faust stream
        async for raw in stream:
            wake()
            await _followed(live.take_pane, DATASET_PROGRESS, raw)

    async def follow_epochs(stream: Any) -> None:  # noqa: ANN401 - a Faust stream
        async for raw in stream:
            await _followed(lambda reached: live.take_epoch(reached.model_type, reached.epoch), THRESHOLD_REACHED, raw)

    app.agent(raw_topic(app, DATASET_PROGRESS), name="follow-panes")(follow_panes)
    app.agent(raw_topic(app, THRESHOLD_REACHED), name="follow-epochs")(follow_epochs)


async def _followed(take: Callable[[Any], Awaitable[None]], topic: Topic, raw: bytes) -> None:
    """Take one message into the live view; what fails is made up for by the next rebuild."""
    try:
        await take(codec.decode(topic, raw))
    except InvalidMessageError as error:
        log.warning("message_skipped", topic=topic.name, error=str(error))
    except RetryLaterError as error:
        log.warning("live_view_delayed", topic=topic.name, error=repr(error))
