"""The plan's TrainingOrchestrator: leases runs from the queue, trains them, and records how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from backends.database.repositories.training import ChampionVersion, Ending, Run, TrainingRepository
from backends.leases import kept_lease
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from backends.waiting import wait_at_most
from fincoach_events.identifiers import new_event_id
from schemas.codec import encode
from schemas.errors import ArtifactRejectedError, InvalidMessageError, LostLeaseError, RetryLaterError
from schemas.messages.training import TrainingProgressed
from schemas.topics import TRAINING_PROGRESS
from schemas.vocabulary import Verdict
from trainers.pipe import WorkOrder, WorkProgressed, WorkResult
from trainers.running.child import TrainingProcess, TrainingProcessError

if TYPE_CHECKING:
    from backends.broker.kafka import BrokerProducer
    from backends.clock import Clock
    from backends.database.unit_of_work import Database
    from trainers.running.queue import TrainingQueue
    from trainers.settings import TrainersSettings
    from trainers.snapshots.service import SnapshotService, StoredSnapshot

log = get_logger("trainers.running.orchestrator")
Result = TypeVar("Result")
# These end one attempt of a training, not the trainer. Of the database's errors: only what it refuses of this run.
ATTEMPT_ERRORS: tuple[type[Exception], ...] = (TrainingProcessError, ArtifactRejectedError, InvalidMessageError)
PATIENCE_SECONDS = 300.0
AWAY_SECONDS = 1.0
AWAY_ERRORS: tuple[type[Exception], ...] = (RetryLaterError, OSError)  # database or store


@dataclass(frozen=True, kw_only=True)
class OrchestratorParts:
    """What the orchestrator works with."""

    database: Database
    queue: TrainingQueue
    snapshots: SnapshotService
    producer: BrokerProducer
    clock: Clock
    settings: TrainersSettings


class TrainingOrchestrator:
    """Keeps up to ``training_parallel_runs`` trainings going, each in a child process under a renewed lease."""

    def __init__(self, parts: OrchestratorParts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self.queue = parts.queue
        self.database_answers = False
        self._wake = asyncio.Event()
        self._children: dict[str, TrainingProcess] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self.queue_counts: dict[str, int] = {}

    def wake(self) -> None:
        """Look at the queue again: it may have grown."""
        self._wake.set()

    @property
    def running(self) -> dict[str, int | None]:
        """Return the process id of each training that runs here, by model."""
        return {model_type: child.pid for model_type, child in self._children.items()}

    async def run(self) -> None:
        """Work until cancelled; then every child is stopped and its jobs are queued again."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.training_parallel_runs):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                worked = await self.run_next_training()
            except AWAY_ERRORS as error:
                log.warning("training_delayed", error=repr(error))
                worked, self.database_answers = False, False
            if not worked:
                await self._rest()

    async def _rest(self) -> None:
        self._wake.clear()
        await wait_at_most(self._wake, self._settings.training_poll_seconds)

    async def run_next_training(self) -> bool:
        """Lease the next run and work on it to its end; return False when none is due."""
        run = await self.queue.lease()
        await self._count()
        if run is None:
            return False
        log.info(
            "training_began", run_id=str(run.run_id), model_type=run.model_type, epochs=run.epochs, attempt=run.attempt
        )
        began = self._parts.clock.monotonic()
        try:
            async with kept_lease(
                lambda: self.queue.renew(run),
                lease_seconds=self._settings.training_lease_seconds,
                subject=str(run.run_id),
            ):
                await self._attempt(run)
        except LostLeaseError:
            log.warning("training_lease_lost", run_id=str(run.run_id), model_type=run.model_type, fence=run.fence)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(run))
            raise
        METRICS.trainers_run_seconds.labels(model_type=run.model_type).set(self._parts.clock.monotonic() - began)
        await self._count()
        return True

    async def _attempt(self, run: Run) -> None:
        if run.attempt > self._settings.training_max_attempts:
            await self._record_failure(run, f"the trainer died {run.attempt - 1} times during this training")
            return
        try:
            forbidden = await self._retried_while_away(lambda: self._quarantine_of(run))
            if forbidden:
                await self._retried_while_away(lambda: self.queue.finish(run, forbidden, None))
                log.info(
                    "training_forbidden", run_id=str(run.run_id), model_type=run.model_type, reasons=forbidden.reasons
                )
                return
            champion = await self._retried_while_away(lambda: self._champion(run))
            snapshot = await self._retried_while_away(lambda: self._parts.snapshots.take(run, champion))
            result = await self._train(run, snapshot, champion)
            await self._record_verdict(run, snapshot, champion=champion, result=result)
        except ATTEMPT_ERRORS as error:
            await self._record_failure(run, str(error))

    async def _quarantine_of(self, run: Run) -> Ending | None:
        """Return the ending of a run whose epochs were all quarantined before it began; None for a run that is to train."""
        async with self._parts.database.reading() as connection:
            datasets = await TrainingRepository(connection).quarantined(run.model_type)
        sentences = {
            dataset.epoch: f"the data set of epoch {dataset.epoch} was quarantined by {dataset.by}: {dataset.reason}"
            for dataset in datasets
        }
        if run.by_command or not run.epochs or not set(run.epochs) <= sentences.keys():
            return None
        return Ending(
            verdict=Verdict.CHAMPION_KEPT, reasons=tuple(sentences[epoch] for epoch in run.epochs), metrics={}
        )

    async def _retried_while_away(self, act: Callable[[], Awaitable[Result]]) -> Result:
        """Call ``act`` until the database answers, so that an outage does not waste the work of a training.

        Raises:
            Exception: the last error, after :data:`PATIENCE_SECONDS`.
        """
        patience_ends = self._parts.clock.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await act()
            except AWAY_ERRORS as error:
                if self._parts.clock.monotonic() > patience_ends:
                    raise
                self.database_answers = False
                log.warning("training_delayed", error=repr(error))
                await asyncio.sleep(AWAY_SECONDS)

    async def _champion(self, run: Run) -> ChampionVersion | None:
        async with self._parts.database.reading() as connection:
            return await TrainingRepository(connection).champion(run.model_type)

    async def _train(self, run: Run, snapshot: StoredSnapshot, champion: ChampionVersion | None) -> WorkResult:
        settings = self._settings
        order = WorkOrder(
            model_type=run.model_type, run_id=str(run.run_id), snapshot=snapshot.address, seed=settings.training_seed,
            store_url=settings.resolved_store_url, keys_folder=str(settings.resolved_keys_folder),
            cpu_seconds=int(settings.training_timeout_seconds) + 1, niceness=settings.training_niceness, parent_pid=os.getpid(),
            champion=champion.address if champion else None, champion_checkpoint=champion.checkpoint if champion else None,
        )  # fmt: skip
        process = TrainingProcess(
            order, timeout_seconds=settings.training_timeout_seconds, grace_seconds=settings.training_grace_seconds,
            memory_bytes=settings.training_memory_bytes,
        )  # fmt: skip
        self._children[run.model_type] = process
        try:
            return await process.run(lambda progressed: self._report_progress(run, progressed))
        finally:
            del self._children[run.model_type]

    async def _record_verdict(
        self, run: Run, snapshot: StoredSnapshot, *, champion: ChampionVersion | None, result: WorkResult
    ) -> None:
        digest = result.artifact.rsplit("/", 1)[-1] if result.artifact else None
        score = result.comparison.candidate if result.comparison else None
        metrics: dict[str, Any] = {
            **result.numbers,
            "snapshot_rows": snapshot.rows,
            "snapshot_new_rows": snapshot.new_rows,
            "cleaning": dict(snapshot.cleaning),
        }
        if result.comparison is not None:
            metrics["comparison"] = msgspec.to_builtins(result.comparison)
        if result.checkpoint is not None:
            metrics["checkpoint"] = result.checkpoint
        ending = Ending(
            verdict=result.verdict, reasons=result.reasons, metrics=metrics, samples=result.samples, score=score,
            artifact_address=result.artifact, artifact_digest=digest,
        )  # fmt: skip
        announcement = None
        if result.verdict == Verdict.CANDIDATE_WINS and result.artifact and digest and result.comparison:
            announcement = self.queue.ready(
                run, artifact=(result.artifact, digest), parent_digest=champion.artifact_digest if champion else None,
                samples=result.samples, snapshot_digest=snapshot.digest, comparison=result.comparison,
            )  # fmt: skip
        await self._retried_while_away(lambda: self.queue.finish(run, ending, announcement))
        METRICS.trainers_runs.labels(model_type=run.model_type, verdict=result.verdict).inc()
        log.info(
            "training_ended",
            run_id=str(run.run_id),
            model_type=run.model_type,
            verdict=result.verdict,
            reasons=result.reasons,
        )

    async def _record_failure(self, run: Run, error: str) -> None:
        again = await self._retried_while_away(lambda: self.queue.attempt_failed(run, error))
        if not again:
            METRICS.trainers_runs.labels(model_type=run.model_type, verdict=Verdict.FAILED).inc()
        log.warning(
            "training_attempt_failed", run_id=str(run.run_id), model_type=run.model_type, error=error, will_retry=again
        )

    async def _give_back(self, run: Run) -> None:
        with contextlib.suppress(LostLeaseError, RetryLaterError):  # the lease runs out by itself
            await self.queue.give_back(run)
            log.info("training_given_back", run_id=str(run.run_id), model_type=run.model_type)

    async def _count(self) -> None:
        self.queue_counts = await self.queue.counts()
        self.database_answers = True
        for status in ("queued", "running"):
            METRICS.trainers_queue_jobs.labels(status=status).set(self.queue_counts.get(status, 0))

    def _report_progress(self, run: Run, progressed: WorkProgressed) -> None:
        """Publish progress without waiting: no work depends on it."""
        message = TrainingProgressed(
            event_id=new_event_id(), occurred_at=self._parts.clock.now(), correlation_id=run.correlation_id, causation_id=run.run_id,
            training_event_id=run.run_id, model_type=run.model_type, phase=progressed.phase, step=progressed.step,
            steps=progressed.steps, loss=progressed.loss, eta_seconds=progressed.eta_seconds,
        )  # fmt: skip
        task = asyncio.create_task(self._publish(run, message))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _publish(self, run: Run, message: TrainingProgressed) -> None:
        try:
            await self._parts.producer.publish(TRAINING_PROGRESS.name, str(run.run_id).encode(), encode(message))
        except RetryLaterError as error:
            log.warning("training_progress_not_published", run_id=str(run.run_id), error=str(error))
