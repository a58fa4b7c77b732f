"""The archive as training reads it: consented events of an offset range, and served recommendations with their feedback.

Pages by offset instead of a cursor: archived rows of a range never change, so no transaction stays open while a
page is turned into columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    import asyncpg

    from schemas.messages.envelope import OffsetRange

EVENT_COLUMNS = ("user_id", "occurred_at", "event_type", "interaction_type", "source", "offset", "payload")
FEEDBACK_COLUMNS = (
    "prediction_id", "user_id", "predicted_at", "version", "kind", "action_set", "action", "propensity", "payload",
    "shown_at", "responses", "responded_at", "is_new",
)  # fmt: skip

_EVENT_PAGE = """
SELECT uuid_send(user_id) AS user_id, (extract(epoch FROM occurred_at) * 1000000)::bigint AS occurred_at,
    event_type, interaction_type, source, "offset", convert_to(payload::text, 'UTF8') AS payload
FROM behavioral_events
WHERE generation = $1 AND partition = $2 AND "offset" >= $3 AND "offset" < $4 AND consent
ORDER BY "offset" LIMIT $5
"""

# The archive holds the original bytes: ``prediction_id`` has this name in every version of the event (a test of the schema
# lock holds this); another name would need a column.
# Only predictions below their own cut are joined, so one that is archived later does not change a snapshot read again.
_FEEDBACK = """
WITH cut AS (SELECT * FROM unnest($1::smallint[], $2::int[], $3::bigint[], $4::bigint[]) AS c (generation, partition, to_offset, new_from)),
seen AS (
    SELECT * FROM unnest($5::smallint[], $6::int[], $7::bigint[]) AS c (generation, partition, to_offset)
),
hole AS (
    SELECT * FROM unnest($8::smallint[], $9::int[], $10::bigint[], $11::bigint[]) AS c (generation, partition, from_offset, to_offset)
),
answered AS (
    SELECT (e.payload ->> 'prediction_id')::uuid AS prediction_id, e.user_id, e.interaction_type, e.occurred_at, e."offset",
        e."offset" >= cut.new_from AS is_new
    FROM behavioral_events AS e JOIN cut ON e.generation = cut.generation AND e.partition = cut.partition
    WHERE e."offset" < cut.to_offset AND e.consent AND e.event_type = 'recommendation_interaction' AND e.payload ? 'prediction_id'
        AND NOT EXISTS (
            SELECT FROM hole WHERE hole.generation = e.generation AND hole.partition = e.partition
                AND e."offset" >= hole.from_offset AND e."offset" < hole.to_offset
        )
)
SELECT uuid_send(p.prediction_id) AS prediction_id, uuid_send(p.user_id) AS user_id,
    (extract(epoch FROM p.occurred_at) * 1000000)::bigint AS predicted_at,
    p.version, p.kind, p.action_set, p.action, p.propensity, convert_to(p.payload::text, 'UTF8') AS payload,
    (extract(epoch FROM min(a.occurred_at) FILTER (WHERE a.interaction_type = 'view')) * 1000000)::bigint AS shown_at,
    array_remove(array_agg(nullif(a.interaction_type, 'view') ORDER BY a.occurred_at, a."offset"), NULL) AS responses,
    coalesce(array_agg((extract(epoch FROM a.occurred_at) * 1000000)::bigint ORDER BY a.occurred_at, a."offset")
        FILTER (WHERE a.interaction_type <> 'view'), '{}') AS responded_at,
    bool_or(a.is_new) AS is_new
FROM answered AS a
JOIN predictions AS p ON p.prediction_id = a.prediction_id AND p.user_id = a.user_id AND p.action_set IS NOT NULL
JOIN seen ON p.generation = seen.generation AND p.partition = seen.partition AND p."offset" < seen.to_offset
GROUP BY p.prediction_id, p.occurred_at, p.user_id, p.version, p.kind, p.action_set, p.action, p.propensity, p.payload
ORDER BY p.occurred_at, p.prediction_id
"""


class ArchiveRepository:
    """Reads the archive over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def event_page(self, span: OffsetRange, *, limit: int) -> list[asyncpg.Record]:
        """Return up to ``limit`` consented events of ``span`` by offset, with ``EVENT_COLUMNS``; moments in microseconds."""
        driver = await self._driver()
        arguments = (span.generation, span.partition, span.from_offset, span.to_offset, limit)
        return list(await driver.fetch(_EVENT_PAGE, *arguments))

    async def feedback(
        self,
        cut: Sequence[OffsetRange],
        *,
        new_from: Sequence[int],
        predictions: Sequence[OffsetRange],
        holes: Sequence[OffsetRange] = (),
    ) -> list[asyncpg.Record]:
        """Return each prediction that chose an action and was seen or answered below ``cut``, with ``FEEDBACK_COLUMNS``.

        ``new_from`` gives for each partition of ``cut`` the first offset that the champion has not seen; views and answers
        within ``holes`` (quarantined ranges) are ignored.
        """
        driver = await self._driver()
        return list(await driver.fetch(
            _FEEDBACK,
            [span.generation for span in cut], [span.partition for span in cut], [span.to_offset for span in cut], list(new_from),
            [span.generation for span in predictions], [span.partition for span in predictions], [span.to_offset for span in predictions],
            [span.generation for span in holes], [span.partition for span in holes], [span.from_offset for span in holes],
            [span.to_offset for span in holes],
        ))  # fmt: skip

    async def _driver(self) -> asyncpg.Connection[Any]:
        raw = await self._connection.get_raw_connection()
        connection: asyncpg.Connection[Any] = raw.driver_connection
        return connection
