"""Training sets frozen as Parquet: named by offset ranges before anything is read, addressed by digest afterwards.

A snapshot holds every consented event from offset 0 to the run's cut. What lies behind the champion's cut is marked
as new, the rest is replay; quarantined data are neither. Each row carries the decision of cleaning, and the record of the
decisions is a file of its own. The same ranges give the same bytes, whenever and wherever they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from backends.database.repositories.training import TrainingRepository
from backends.database.repositories.training_archive import EVENT_COLUMNS, FEEDBACK_COLUMNS, ArchiveRepository
from modelkit.training.interface import CLEANING_FILE, EVENTS_FILE, FEEDBACK_FILE
from modelkit.training.snapshot_files import EVENT_SCHEMA, FEEDBACK_SCHEMA, ORDER, parquet_bytes
from schemas import codec
from schemas.messages.envelope import OffsetRange
from schemas.topics import BEHAVIORAL_EVENTS, PREDICTIONS
from trainers.snapshots.decisions import clean, summary_of

if TYPE_CHECKING:
    from backends.database.repositories.training import ChampionVersion, Run
    from backends.database.unit_of_work import Database
    from backends.store.content import ContentStore


@dataclass(frozen=True, kw_only=True)
class StoredSnapshot:
    """Where a snapshot lies. ``rows`` counts events, ``new_rows`` those behind the champion's cut; ``cleaning`` sums the decisions up."""

    address: str
    digest: str
    rows: int
    new_rows: int
    cleaning: Mapping[str, Any]


def cut_of(spans: Iterable[OffsetRange]) -> tuple[OffsetRange, ...]:
    """Return for each (topic, generation, partition) among ``spans`` the range from 0 to their furthest end. Pure."""
    ends: dict[tuple[str, int, int], int] = {}
    for span in spans:
        place = (span.topic, span.generation, span.partition)
        ends[place] = max(ends.get(place, 0), span.to_offset)
    return tuple(
        OffsetRange(topic=topic, generation=generation, partition=partition, from_offset=0, to_offset=end)
        for (topic, generation, partition), end in sorted(ends.items())
    )


def new_from(cut: Sequence[OffsetRange], seen: Sequence[OffsetRange]) -> tuple[int, ...]:
    """Return for each range of ``cut`` the first offset behind ``seen``, the champion's cut. Pure."""
    ends = {(span.topic, span.generation, span.partition): span.to_offset for span in seen}
    return tuple(min(ends.get((span.topic, span.generation, span.partition), 0), span.to_offset) for span in cut)


def without(span: OffsetRange, excluded: Iterable[OffsetRange]) -> tuple[OffsetRange, ...]:
    """Return the pieces of ``span`` that lie outside of ``excluded``, in order of offset. Pure."""
    pieces, first = [], span.from_offset
    for gap in sorted(excluded, key=lambda item: item.from_offset):
        if (gap.topic, gap.generation, gap.partition) != (span.topic, span.generation, span.partition):
            continue
        pieces.append(msgspec.structs.replace(span, from_offset=first, to_offset=min(gap.from_offset, span.to_offset)))
        first = max(first, gap.to_offset)
    pieces.append(msgspec.structs.replace(span, from_offset=first))
    return tuple(piece for piece in pieces if piece.to_offset > piece.from_offset)


class SnapshotService:
    """Takes snapshots for runs."""

    def __init__(self, database: Database, store: ContentStore, *, page_rows: int, seed: int) -> None:
        self._database = database
        self._store = store
        self._page_rows = page_rows
        self._seed = seed

    async def take(self, run: Run, champion: ChampionVersion | None) -> StoredSnapshot:
        """Store the run's ranges, read them, and put the tables into the store."""
        cut, answered = await self._cuts(run)
        seen = champion.cut if champion else ()
        firsts = new_from(cut, seen)
        async with self._database.transaction() as work:
            repository = TrainingRepository(work.connection)
            excluded = [span for dataset in await repository.quarantined(run.model_type) for span in dataset.ranges]
            parts = [*(piece for part in _parts(cut, firsts) for piece in without(part, excluded)), *answered]
            snapshot_id = await repository.add_snapshot(run, ranges=parts, cut=[*cut, *answered])
            await repository.note_snapshot(run, snapshot_id, champion=champion, seed=self._seed)
        events = await self._events(cut, firsts, excluded)
        feedback = await self._feedback(cut, firsts, answered=answered, excluded=excluded)
        stored = await asyncio.to_thread(self._put, events, feedback)
        async with self._database.transaction() as work:
            repository = TrainingRepository(work.connection)
            await repository.store_snapshot(snapshot_id, digest=stored.digest, uri=stored.address, rows=stored.rows)
        return stored

    async def _cuts(self, run: Run) -> tuple[tuple[OffsetRange, ...], tuple[OffsetRange, ...]]:
        """Return the cut of events, decided by the run's crossings and commands alone, and that of predictions."""
        async with self._database.reading() as connection:
            repository = TrainingRepository(connection)
            crossings = await repository.epoch_ranges(run.model_type, up_to_epoch=max(run.epochs, default=0))
            answered = await repository.archived(PREDICTIONS.name)
        spans = [span for span in (*crossings, *run.ranges) if span.topic == BEHAVIORAL_EVENTS.name]
        return cut_of(spans), answered

    async def _events(
        self, cut: Sequence[OffsetRange], firsts: Sequence[int], excluded: Sequence[OffsetRange]
    ) -> pa.Table:
        batches: list[pa.RecordBatch] = []
        pieces = [(piece, first) for span, first in zip(cut, firsts, strict=True) for piece in without(span, excluded)]
        async with self._database.reading() as connection:
            archive = ArchiveRepository(connection)
            for span, first_new in pieces:
                while rows := await archive.event_page(span, limit=self._page_rows):
                    batches.append(await asyncio.to_thread(_event_batch, rows, span, first_new))
                    span = msgspec.structs.replace(span, from_offset=rows[-1]["offset"] + 1)  # noqa: PLW2901 - the rest of it
        return pa.Table.from_batches(batches, EVENT_SCHEMA)

    async def _feedback(
        self,
        cut: Sequence[OffsetRange],
        firsts: Sequence[int],
        *,
        answered: Sequence[OffsetRange],
        excluded: Sequence[OffsetRange],
    ) -> pa.Table:
        if not answered:
            return FEEDBACK_SCHEMA.empty_table()
        async with self._database.reading() as connection:
            rows = await ArchiveRepository(connection).feedback(
                cut, new_from=firsts, predictions=answered, holes=excluded
            )
        return await asyncio.to_thread(_feedback_table, rows)

    def _put(self, events: pa.Table, feedback: pa.Table) -> StoredSnapshot:
        cleaned = clean(events.sort_by(ORDER), feedback)
        files = {
            EVENTS_FILE: parquet_bytes(cleaned.events), FEEDBACK_FILE: parquet_bytes(cleaned.feedback),
            CLEANING_FILE: msgspec.json.encode(cleaned.record, order="deterministic"),
        }  # fmt: skip
        address = self._store.put("snapshots", files)
        return StoredSnapshot(
            address=address, digest=address.rsplit("/", 1)[-1], rows=events.num_rows,
            new_rows=int(pc.sum(events["is_new"]).as_py() or 0), cleaning=summary_of(cleaned.record),
        )  # fmt: skip


def _parts(cut: Sequence[OffsetRange], firsts: Sequence[int]) -> list[OffsetRange]:
    """Split each range of the cut into its replay and its new part."""
    parts = []
    for span, first_new in zip(cut, firsts, strict=True):
        parts.append(msgspec.structs.replace(span, to_offset=first_new))
        parts.append(msgspec.structs.replace(span, from_offset=first_new))
    return [part for part in parts if part.to_offset > part.from_offset]


def _event_batch(rows: Sequence[Any], span: OffsetRange, first_new: int) -> pa.RecordBatch:
    columns: dict[str, Any] = dict(zip(EVENT_COLUMNS, zip(*map(tuple, rows), strict=True), strict=True))
    columns["generation"] = [span.generation] * len(rows)
    columns["partition"] = [span.partition] * len(rows)
    columns["is_new"] = [offset >= first_new for offset in columns["offset"]]
    columns["cleaning"] = columns["repaired_minor"] = [None] * len(rows)
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[column.name], column.type) for column in EVENT_SCHEMA], schema=EVENT_SCHEMA
    )


def _feedback_table(rows: Sequence[Any]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in FEEDBACK_COLUMNS}
    served = [codec.decode(PREDICTIONS, payload) for payload in columns["payload"]]
    columns["features"] = [item.features for item in served]
    columns["reducer_version"] = [item.reducer_version for item in served]
    columns["propensities"] = [item.propensities for item in served]
    columns["cleaning"] = [None] * len(rows)
    return pa.table([pa.array(columns[column.name], column.type) for column in FEEDBACK_SCHEMA], schema=FEEDBACK_SCHEMA)
