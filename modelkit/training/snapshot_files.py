"""The tables of a snapshot as they lie in its files: columns, order of the rows, and Parquet that is the same for the same rows."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

_MOMENT = pa.timestamp("us", tz="UTC")
EVENT_SCHEMA = pa.schema([
    ("user_id", pa.binary()), ("occurred_at", _MOMENT), ("event_type", pa.string()), ("interaction_type", pa.string()),
    ("source", pa.string()), ("generation", pa.int16()), ("partition", pa.int32()), ("offset", pa.int64()), ("is_new", pa.bool_()),
    ("payload", pa.binary()), ("cleaning", pa.string()), ("repaired_minor", pa.int64()),
])  # fmt: skip
FEEDBACK_SCHEMA = pa.schema([
    ("prediction_id", pa.binary()), ("user_id", pa.binary()), ("predicted_at", _MOMENT), ("version", pa.string()), ("kind", pa.string()),
    ("reducer_version", pa.int32()), ("action_set", pa.string()), ("action", pa.int32()), ("propensity", pa.float64()),
    ("propensities", pa.list_(pa.float64())), ("features", pa.list_(pa.float64())), ("shown_at", _MOMENT),
    ("responses", pa.list_(pa.string())), ("responded_at", pa.list_(_MOMENT)), ("is_new", pa.bool_()), ("cleaning", pa.string()),
])  # fmt: skip
ORDER = [("user_id", "ascending"), ("generation", "ascending"), ("partition", "ascending"), ("offset", "ascending")]


def parquet_bytes(table: pa.Table) -> bytes:
    """Return ``table`` as Parquet; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=100_000)
    return sink.getvalue()
