"""The durable queue: one job for each crossing or command, one run at a time for each model, fenced leases.

The end of a run and its announcement are one transaction, which names the run's fence: of two trainers that believe
they hold the same run, only the later one can end it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, UUID, uuid5

from backends.database.repositories.training import Ending, NewJob, Run, TrainingRepository
from schemas.messages.training import ModelReady, ThresholdReached, TrainingFailed, TrainingProgressed
from schemas.topics import MODEL_READY, TRAINING_PROGRESS
from schemas.vocabulary import ModelType, Verdict

if TYPE_CHECKING:
    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork
    from schemas.messages.training import MetricComparison
    from trainers.settings import TrainersSettings

LONGEST_RETRY_SECONDS = 300.0


class TrainingQueue:
    """Jobs in, runs out. Every method is one transaction; several trainers share one queue."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: TrainersSettings,
        *,
        owner: str,
        models: Collection[ModelType],
    ) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._owner = owner
        self._models = models

    async def add_crossing(self, crossing: ThresholdReached) -> bool:
        """Queue one job for a crossing; False when there is, or was, one for its (model_type, epoch)."""
        job = NewJob(
            model_type=crossing.model_type, epoch=crossing.epoch, ranges=crossing.ranges,
            correlation_id=crossing.correlation_id or crossing.event_id,
        )  # fmt: skip
        async with self._database.transaction() as work:
            return await TrainingRepository(work.connection).add_job(job) is not None

    async def lease(self) -> Run | None:
        """Take the run that is due; None when there is none. The caller must renew it and end it."""
        async with self._database.transaction() as work:
            return await TrainingRepository(work.connection).lease(
                self._owner, models=self._models, lease_seconds=self._settings.training_lease_seconds
            )

    async def renew(self, run: Run) -> None:
        """Prolong the lease.

        Raises:
            LostLeaseError: another trainer has taken over; stop working on the run.
        """
        async with self._database.transaction() as work:
            await TrainingRepository(work.connection).renew(run, lease_seconds=self._settings.training_lease_seconds)

    async def give_back(self, run: Run) -> None:
        """Let another trainer begin the run anew at once; it does not count as an attempt.

        Raises:
            LostLeaseError: another trainer has taken over already.
        """
        async with self._database.transaction() as work:
            await TrainingRepository(work.connection).give_back(run)

    async def finish(self, run: Run, ending: Ending, announcement: ModelReady | None) -> None:
        """End the run with its verdict: write the jobs, the training's row and the announcement, or none of them.

        Raises:
            LostLeaseError: another trainer has taken over; nothing was changed.
        """
        async with self._database.transaction() as work:
            await TrainingRepository(work.connection).finish(run, ending)
            if announcement is not None:
                await work.publish(MODEL_READY, run.model_type, announcement)
            await self._publish_end(work, run, ending.verdict)

    async def attempt_failed(self, run: Run, error: str) -> bool:
        """Queue the run again after a back-off, or close it as failed after the last attempt; return whether it is tried again.

        Raises:
            LostLeaseError: another trainer has taken over; nothing was changed.
        """
        again = run.attempt < self._settings.training_max_attempts
        delay = min(self._settings.training_retry_seconds * 2.0 ** (run.attempt - 1), LONGEST_RETRY_SECONDS)
        async with self._database.transaction() as work:
            repository = TrainingRepository(work.connection)
            if again:
                await repository.retry(run, error, delay_seconds=delay)
            else:
                await repository.fail(run, error)
                await self._publish_end(work, run, Verdict.FAILED)
            await work.publish(MODEL_READY, run.model_type, TrainingFailed(
                **self._envelope(run, f"failed-{run.attempt}"), epochs=run.epochs, reason=error, will_retry=again,
            ))  # fmt: skip
        return again

    async def counts(self) -> dict[str, int]:
        """Return how many jobs are in each status."""
        async with self._database.reading() as connection:
            return await TrainingRepository(connection).job_counts()

    def ready(self, run: Run, *, artifact: tuple[str, str], parent_digest: str | None, samples: int, snapshot_digest: str,
              comparison: MetricComparison) -> ModelReady:  # fmt: skip
        """Return the announcement of a candidate that won; ``artifact`` is (address, digest)."""
        return ModelReady(
            **self._envelope(run, "ready"), epochs=run.epochs, artifact_uri=artifact[0], artifact_digest=artifact[1],
            snapshot_digest=snapshot_digest, parent_digest=parent_digest, samples=samples, comparison=comparison,
        )  # fmt: skip

    async def _publish_end(self, work: UnitOfWork, run: Run, verdict: Verdict) -> None:
        message = TrainingProgressed(**self._envelope(run, "ended"), phase="ended", step=1, steps=1, verdict=verdict)
        await work.publish(TRAINING_PROGRESS, str(run.run_id), message)

    def _envelope(self, run: Run, what: str) -> dict[str, Any]:
        """Return envelope and identity of a message about ``run``; its id is derived, so that a repeat is recognised."""
        return {
            "event_id": message_id(run.run_id, what), "occurred_at": self._clock.now(), "correlation_id": run.correlation_id,
            "causation_id": run.run_id, "training_event_id": run.run_id, "model_type": run.model_type,
        }  # fmt: skip


def message_id(run_id: UUID, what: str) -> UUID:
    """Return the id of the one message of this kind about a run."""
    return uuid5(NAMESPACE_OID, f"{run_id}/{what}")
