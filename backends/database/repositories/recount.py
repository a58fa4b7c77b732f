"""The loop counted again from the rows themselves: for reports that judge the counters instead of trusting them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Row = TypeVar("Row", bound=msgspec.Struct)

_EVENTS = sa.text("""
SELECT (SELECT count(*) FROM behavioral_events) AS archived,
       (SELECT count(DISTINCT event_id) FROM behavioral_events) AS distinct_archived,
       (SELECT coalesce(sum(next_offset), 0)::bigint FROM ledger WHERE topic = :topic) AS delivered,
       (SELECT count(*) FROM dead_letters WHERE topic = :topic) AS dead_lettered,
       coalesce(sum(records), 0)::bigint AS pane_records,
       coalesce(sum(archived), 0)::bigint AS counted,
       coalesce(sum(duplicates), 0)::bigint AS duplicates,
       coalesce(sum(dead_lettered), 0)::bigint AS pane_dead_lettered
FROM panes WHERE topic = :topic
""")
_HOLES = sa.text("""
SELECT count(*) FROM (
  SELECT from_offset, lag(to_offset) OVER (PARTITION BY topic, generation, partition ORDER BY from_offset) AS before FROM panes
) AS joined WHERE before IS NOT NULL AND before <> from_offset
""")
_MODELS = sa.text("""
SELECT t.dataset_type AS model_type,
       (SELECT count(*) FROM epochs e WHERE e.model_type = t.dataset_type) AS crossings,
       (SELECT count(*) FROM model_training_events r WHERE r.model_type = t.dataset_type AND r.verdict IS NOT NULL) AS trainings,
       (SELECT count(*) FROM model_training_events r WHERE r.model_type = t.dataset_type AND r.verdict = 'champion_kept') AS kept_champion,
       (SELECT count(*) FROM model_training_events r WHERE r.model_type = t.dataset_type AND r.verdict = 'failed') AS failed,
       (SELECT count(*) FROM rollout_decisions d WHERE d.model_type = t.dataset_type AND d.decision = 'promoted') AS deployed,
       (SELECT count(*) FROM model_training_events r WHERE r.model_type = t.dataset_type AND r.verdict = 'rejected')
         + (SELECT count(*) FROM rollout_decisions d WHERE d.model_type = t.dataset_type AND d.decision = 'rejected') AS rejected,
       (SELECT version FROM model_versions v WHERE v.model_type = t.dataset_type AND v.is_active) AS version,
       (SELECT kind FROM model_versions v WHERE v.model_type = t.dataset_type AND v.is_active) AS kind
FROM (SELECT DISTINCT dataset_type FROM training_datasets) AS t ORDER BY 1
""")
# The training whose figures stand for a model: that of the active version, else the newest one that measured something.
_EVIDENCE = sa.text("""
SELECT DISTINCT ON (r.model_type) r.model_type, r.verdict, r.performance_metrics, r.reasons
FROM model_training_events r
LEFT JOIN model_versions v ON v.training_event_id = r.id AND v.is_active
WHERE r.performance_metrics -> 'comparison' IS NOT NULL
ORDER BY r.model_type, (v.id IS NOT NULL) DESC, r.created_at DESC
""")
# From the first epoch that a promoted training closes to the moment when the last replica served its version.
_LATENCIES = sa.text("""
SELECT r.model_type, v.version, extract(epoch FROM max(a.served_since) - min(e.reached_at))::float AS seconds
FROM model_versions v
JOIN model_training_events r ON r.id = v.training_event_id
JOIN epochs e ON e.model_type = r.model_type AND e.epoch = ANY (r.epochs)
JOIN rollout_decisions d ON d.model_type = v.model_type AND d.version = v.version AND d.decision = 'promoted'
JOIN replica_acknowledgements a ON a.model_type = v.model_type AND a.sequence = d.sequence
GROUP BY r.model_type, v.version
""")
_OPEN_WORK = sa.text("""
SELECT (SELECT count(*) FROM training_jobs WHERE status IN ('queued', 'running')) AS jobs,
       (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS unpublished,
       (SELECT count(*) FROM model_training_events r WHERE r.verdict = 'candidate_wins'
          AND NOT EXISTS (SELECT FROM rollout_decisions d WHERE d.training_event_id = r.id)) AS undecided,
       (SELECT count(*) FROM epochs e WHERE NOT EXISTS (
          SELECT FROM training_jobs j WHERE j.model_type = e.model_type AND j.epoch = e.epoch)) AS unheard
""")
# prediction -> what was shown and answered -> the training whose snapshot holds the answer -> the version that it produced
_CHAIN = sa.text("""
SELECT p.prediction_id, p.version AS answered_by, p.action, p.propensity, b.event_id AS feedback_event_id, b.interaction_type AS feedback,
       b.partition, b.offset, r.id AS training_event_id, r.epochs, s.digest AS snapshot_digest, v.version AS new_version, r.verdict
FROM model_training_events r
JOIN snapshots s ON s.id = r.snapshot_id
LEFT JOIN model_versions v ON v.training_event_id = r.id
JOIN LATERAL jsonb_array_elements(s.ranges) AS g ON true
JOIN behavioral_events b ON b.generation = (g ->> 'generation')::int AND b.partition = (g ->> 'partition')::int
  AND b.offset >= (g ->> 'from_offset')::bigint AND b.offset < (g ->> 'to_offset')::bigint
  AND b.event_type = 'recommendation_interaction' AND b.interaction_type <> 'view'
JOIN predictions p ON p.prediction_id = (b.payload ->> 'prediction_id')::uuid AND p.model_type = r.model_type
ORDER BY (v.version IS NOT NULL) DESC, r.created_at DESC, b.offset DESC LIMIT 1
""")


class EventRecount(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one topic by archive, ledger, dead letters and panes, and the gaps between panes."""

    archived: int
    distinct_archived: int
    delivered: int
    dead_lettered: int
    pane_records: int
    counted: int
    duplicates: int
    pane_dead_lettered: int
    holes: int


class ModelRecount(msgspec.Struct, frozen=True, kw_only=True):
    """Crossings, trainings, their verdicts, and the active version of one model (None before its baseline)."""

    model_type: str
    crossings: int
    trainings: int
    kept_champion: int
    failed: int
    deployed: int
    rejected: int
    version: str | None
    kind: str | None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of the training that stands for a model."""

    model_type: str
    verdict: str | None
    performance_metrics: dict[str, Any]
    reasons: list[str] | None


class PromotionLatency(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds from a crossing until the last replica served the resulting version."""

    model_type: str
    version: str
    seconds: float


class OpenWork(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs, outbox rows, decisions and epochs still wait for somebody."""

    jobs: int = 0
    unpublished: int = 0
    undecided: int = 0
    unheard: int = 0

    def waiting(self) -> dict[str, int]:
        """Return the counts that are not zero."""
        return {name: number for name, number in msgspec.structs.asdict(self).items() if number}


class TracedChain(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction, its feedback, the snapshot that holds the feedback, and the version that the training produced, if any."""

    prediction_id: UUID
    answered_by: str
    action: int | None
    propensity: float | None
    feedback_event_id: UUID
    feedback: str
    partition: int
    offset: int
    training_event_id: UUID
    epochs: list[int]
    snapshot_digest: str | None
    new_version: str | None
    verdict: str | None


class RecountRepository:
    """Recounts everything; deliberately slow."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def events(self, topic: str) -> EventRecount:
        """Return how many records of ``topic`` were delivered, archived, counted, duplicate and dead-lettered, and the gaps."""
        row = (await self._connection.execute(_EVENTS, {"topic": topic})).mappings().one()
        return EventRecount(**row, holes=(await self._connection.execute(_HOLES)).scalar_one())

    async def models(self) -> list[ModelRecount]:
        """Return crossings, trainings, verdicts and the active version of each model."""
        return await self._rows(ModelRecount, _MODELS)

    async def evidence(self) -> dict[str, Evidence]:
        """Return the figures that stand for each model, by model type."""
        return {row.model_type: row for row in await self._rows(Evidence, _EVIDENCE)}

    async def crossing_to_served(self) -> list[PromotionLatency]:
        """Return the seconds from the crossing to the last replica, for each version that was promoted."""
        return await self._rows(PromotionLatency, _LATENCIES)

    async def open_work(self) -> OpenWork:
        """Return how many jobs, outbox rows, decisions and epochs still wait for somebody."""
        [work] = await self._rows(OpenWork, _OPEN_WORK)
        return work

    async def chain(self) -> TracedChain | None:
        """Return one traced chain prediction → feedback → snapshot → version, or None when there is none yet."""
        rows = await self._rows(TracedChain, _CHAIN)
        return rows[0] if rows else None

    async def _rows(self, kind: type[Row], query: sa.TextClause) -> list[Row]:
        return [kind(**row) for row in (await self._connection.execute(query)).mappings()]
