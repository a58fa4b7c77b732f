"""A database as it looks in the middle of the loop: a row of everything that the command line lists."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID, uuid4

import msgspec
import sqlalchemy as sa

from backends.database.unit_of_work import Database
from schemas.messages.deployment import ServedModel
from schemas.tables import (
    behavioral_events,
    data_quality_metrics,
    dead_letters,
    deployments,
    epochs,
    ledger,
    model_training_events,
    model_versions,
    predictions,
    replica_acknowledgements,
    replicas,
    rollout_decisions,
    threshold_evaluations,
    training_datasets,
    training_jobs,
)
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import ArtifactKind

USER = UUID("0b6f0d5e-7d1e-4a0f-9c55-52a6f2b0a001")
AT = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Rows:
    """Inserts rows, with what is needed filled in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, table: sa.Table, **values: Any) -> None:  # noqa: ANN401 - columns of the table
        """Insert one row."""
        async with self._database.transaction() as work:
            await work.connection.execute(table.insert().values(**values))

    async def archive(self) -> None:
        """Add an archived event, a prediction, a dead letter whose detail is full of brackets, and the ledger's position."""
        place = {"generation": 1, "partition": 0, "offset": 5}
        await self.add(
            behavioral_events, event_id=uuid4(), occurred_at=AT, user_id=USER, event_type="transaction_creation", interaction_type="debit",
            consent=True, source="test", payload={}, **place,
        )  # fmt: skip
        await self.add(
            predictions, prediction_id=uuid4(), occurred_at=AT, user_id=USER, model_type="goal", version="1.0.0", artifact_digest="0" * 64,
            kind="learned", replica_id="replica-1", payload={}, **place,
        )  # fmt: skip
        detail = "Invalid value '[/red] [bold]x' - at `$.event_type`"
        await self.add(
            dead_letters, topic=BEHAVIORAL_EVENTS.name, reason="unknown_type", detail=detail, raw=b"12345", **place
        )
        await self.add(ledger, topic=BEHAVIORAL_EVENTS.name, generation=1, partition=0, next_offset=6)

    async def data_set(self) -> None:
        """Add the goal model's closed first epoch with its quality, evaluation and crossing."""
        data_set, evaluation = uuid4(), uuid4()
        await self.add(
            training_datasets, id=data_set, dataset_type="goal", epoch=101, data_count=51, threshold=50, threshold_reached=True,
            data_quality_score=0.9123, closed_at=AT,
        )  # fmt: skip
        await self.add(
            data_quality_metrics,
            training_dataset_id=data_set,
            anomaly_count=3,
            duplicate_count=2,
            missing_values_count=1,
        )
        await self.add(
            threshold_evaluations, id=evaluation, model_type="goal", epoch=101, decision="reached", counted=51, effective_count=51.0, threshold=50,
            quality_score=0.9123, factors={}, sentence="51 of 50, quality 0.91: training",
        )  # fmt: skip
        await self.add(
            epochs, model_type="goal", epoch=101, training_dataset_id=data_set, evaluation_id=evaluation, event_id=uuid4(), counted=51,
            threshold=50, quality_score=0.9123, ranges=[],
        )  # fmt: skip

    async def training(self) -> None:
        """Add a training that won, one that failed, and a job whose lease has run out."""
        await self.add(
            model_training_events, model_type="goal", status="completed", verdict="candidate_wins", epochs=[101], training_data_size=51,
            validation_score=0.75, reasons=["better than both"], start_time=AT, end_time=AT,
        )  # fmt: skip
        await self.add(
            model_training_events, model_type="spending", status="failed", verdict="failed", error="no memory", end_time=sa.func.now()
        )  # fmt: skip
        await self.add(
            training_jobs, model_type="spending", epoch=102, status="running", attempts=1, leased_by="trainer-1", lease_until=LONG_AGO
        )  # fmt: skip

    async def deployment(self, *, sequence: int = 2, served: int = 1) -> None:
        """Add two versions of the goal model, the desired second one, and a replica that serves ``served``."""
        first, second = uuid4(), uuid4()
        for key, version, active in ((first, "0.0.0", False), (second, "1.0.0", True)):
            await self.add(
                model_versions, id=key, model_type="goal", version=version, model_path="artifacts/x", is_active=active,
                kind="learned" if active else "baseline", artifact_digest=version * 10, performance_current=0.75, deployment_date=AT,
            )  # fmt: skip
        await self.add(
            deployments, model_type="goal", sequence=sequence, phase="stable", active_version_id=second, previous_version_id=first, updated_at=AT
        )  # fmt: skip
        await self.add(
            rollout_decisions, model_type="goal", version="1.0.0", decision="promoted", reason="better [a/b] by 0.02", sequence=sequence
        )  # fmt: skip
        served_model = ServedModel(
            version=f"{served - 1}.0.0", artifact_digest="0" * 64, kind=ArtifactKind.LEARNED, sequence=served, since=AT
        )
        models = {"goal": msgspec.to_builtins(served_model)}
        await self.add(
            replicas, replica_id="replica-1", url="http://127.0.0.1:1", models=models, swaps=1, started_at=AT, last_seen_at=AT
        )  # fmt: skip
        await self.add(
            replica_acknowledgements, replica_id="replica-1", model_type="goal", sequence=1, version="0.0.0", served_since=AT
        )  # fmt: skip

    async def everything(self) -> None:
        """Add all of it."""
        await self.archive()
        await self.data_set()
        await self.training()
        await self.deployment()
        async with self._database.transaction() as work:
            await work.audit(
                actor="ann@desk", action="RollBackModel", subject="goal", outcome="rejected", details={"detail": "[/]"}
            )
