"""The Faust app of a worker: its settings, its topics, and the table of the live view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faust
from yarl import URL

from schemas.topics import Topic
from schemas.vocabulary import Service
from streams.reading.transport import BatchSchema, LedgerApp, LedgerPlaces

if TYPE_CHECKING:
    from faust.types.tables import TableT

    from streams.settings import StreamsSettings

APP_ID = "fincoach-streams"
# Of a partition at once, and with that of a batch: some seven thousand events as our client compresses them. What is cut by
# the number of records instead leaves a small batch behind each large one. A single larger record comes all the same.
FETCH_BYTES = 704 * 1024
LIVE_TABLE = "live-datasets"
# Faust names a table's changelog itself; topics are only created from descriptions, so here is its own.
LIVE_CHANGELOG = Topic(
    name=f"{APP_ID}-{LIVE_TABLE}-changelog", key="model_type", messages=(), producers=(Service.STREAMS,), consumers=(Service.STREAMS,),
    retention_seconds=None, cleanup="compact", tag_field="none",
)  # fmt: skip


def create_app(settings: StreamsSettings, places: LedgerPlaces) -> LedgerApp:
    """Return the app; create it inside the running loop. Nothing connects before it is started."""
    app = LedgerApp(
        APP_ID,
        broker=[URL(f"kafka://{address.strip()}") for address in settings.brokers.split(",")],
        autodiscover=False,
        store="memory://",
        datadir=str(settings.folder / "streams"),
        web_enabled=False,
        topic_partitions=settings.wide_partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 5,
        broker_rebalance_timeout=30,
        broker_commit_interval=2.0,
        broker_max_poll_records=settings.batch_records,
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.02,
        producer_request_timeout=30.0,
        stream_buffer_maxsize=1,  # an item of a ledger topic is a whole batch
        stream_wait_empty=True,
    )
    app.places = places
    app.finalize()
    return app


def ledger_topic(app: LedgerApp, topic: Topic) -> Any:  # noqa: ANN401 - Faust's topic is generic in what it decodes
    """Return Faust's face of a ledger topic: each item is the list of records of one fetch of one partition."""
    return app.topic(topic.name, schema=BatchSchema(), partitions=app.conf.topic_partitions)


def raw_topic(app: LedgerApp, topic: Topic) -> Any:  # noqa: ANN401 - see above
    """Return Faust's face of a topic with one partition, message by message, undecoded."""
    return app.topic(topic.name, schema=_raw(), partitions=1)


def live_table(app: LedgerApp) -> TableT[Any, Any]:
    """Return the table of the live view: encoded views by model type."""
    # With types instead of a schema: recovery of a table reads by its types, and would take raw bytes for JSON.
    return app.Table(LIVE_TABLE, key_type=bytes, value_type=bytes, partitions=1)


def _raw() -> faust.Schema[Any, Any]:
    return faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
