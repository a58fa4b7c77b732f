"""The live view: a Faust app folds closed panes into a table of running counts, and wakes the dataset agent.

It reads two small topics with Faust's own transport, one message at a time; a ledger topic never passes through it. Faust
acknowledges a message whose agent raised, so nothing is raised out of an agent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import faust
from yarl import URL

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas import codec
from schemas.errors import InvalidMessageError, RetryLaterError
from schemas.topics import DATASET_PROGRESS, THRESHOLD_REACHED, Topic
from schemas.vocabulary import ModelType, Service
from streams.epochs.live_view import LiveDataset, decode_live, encode_live, fold_pane

if TYPE_CHECKING:
    from faust.types.tables import TableT

    from schemas.messages.progress import PaneClosed
    from streams.settings import StreamsSettings

log = get_logger("streams.reading.live")
APP_ID = "fincoach-streams-live"
LIVE_TABLE = "datasets"
# Faust names a table's changelog itself; topics are only created from descriptions, so here is its own.
LIVE_CHANGELOG = Topic(
    name=f"{APP_ID}-{LIVE_TABLE}-changelog", key="model_type", messages=(), producers=(Service.STREAMS,), consumers=(Service.STREAMS,),
    retention_seconds=None, cleanup="compact", tag_field="none",
)  # fmt: skip


def create_app(settings: StreamsSettings) -> faust.App:
    """Return the app; create it inside the running loop. Nothing connects before it is started."""
    app = faust.App(
        APP_ID,
        broker=[URL(f"kafka://{address.strip()}") for address in settings.brokers.split(",")],
        autodiscover=False,
        store="memory://",
        datadir=str(settings.folder / "streams"),
        web_enabled=False,
        topic_partitions=1,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 5,
        broker_rebalance_timeout=30,
        broker_commit_interval=2.0,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.02,
        producer_request_timeout=30.0,
        stream_wait_empty=True,
    )
    app.finalize()
    return app


def live_table(app: faust.App) -> TableT[Any, Any]:
    """Return the table of the live view: encoded views by model type."""
    # With types instead of a schema: recovery of a table reads by its types, and would take raw bytes for JSON.
    return app.Table(LIVE_TABLE, key_type=bytes, value_type=bytes, partitions=1)


class LiveView:
    """Keeps the Faust table of running counts and the gauges; rebuilt from the database where a pane is missing.

    The first message of a process rebuilds it too: what the table's changelog tells may be of an older database, and
    panes of the new one would join it without a gap.
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


def register_live_agents(app: faust.App, live: LiveView, *, wake: Callable[[], None]) -> None:
    """Let closed panes wake the dataset agent and reach the live view; crossings begin it anew."""

    async def follow_panes(stream: Any) -> None:  # noqa: ANN401 - a Faust stream
        async for raw in stream:
            wake()
            await _followed(live.take_pane, DATASET_PROGRESS, raw)

    async def follow_epochs(stream: Any) -> None:  # noqa: ANN401 - a Faust stream
        async for raw in stream:
            await _followed(lambda reached: live.take_epoch(reached.model_type, reached.epoch), THRESHOLD_REACHED, raw)

    raw: Any = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    for topic, follow in ((DATASET_PROGRESS, follow_panes), (THRESHOLD_REACHED, follow_epochs)):
        app.agent(app.topic(topic.name, schema=raw, partitions=1), name=f"follow-{topic.name}")(follow)


async def _followed(take: Callable[[Any], Awaitable[None]], topic: Topic, raw: bytes) -> None:
    """Take one message into the live view; the next rebuild makes up for what fails."""
    try:
        await take(codec.decode(topic, raw))
    except InvalidMessageError as error:
        log.warning("message_skipped", topic=topic.name, error=str(error))
    except RetryLaterError as error:
        log.warning("live_view_delayed", topic=topic.name, error=repr(error))
