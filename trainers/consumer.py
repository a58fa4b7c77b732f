"""The edge: crossings and commands become jobs. Decode, queue, wake the orchestrator; no judgement here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.database.repositories.training import NewJob, TrainingRepository
from backends.telemetry.logs import get_logger
from schemas import codec
from schemas.errors import CommandRejectedError
from schemas.messages.control import CommandOutcome
from schemas.topics import BEHAVIORAL_EVENTS, THRESHOLD_REACHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.broker.interface import Record
    from backends.database.unit_of_work import UnitOfWork
    from schemas.messages.control import TriggerTraining
    from schemas.messages.training import ThresholdReached
    from schemas.vocabulary import ModelType
    from trainers.running.queue import TrainingQueue

log = get_logger("trainers.consumer")
GROUP = "fincoach-trainers"


class CrossingConsumer:
    """Queues one job for each crossing, however often it is announced."""

    def __init__(self, queue: TrainingQueue, wake: Callable[[], None]) -> None:
        self._queue = queue
        self._wake = wake

    async def handle(self, record: Record) -> None:
        """Queue the crossing in ``record``.

        Raises:
            InvalidMessageError: it is no crossing, or one that the queue cannot hold.
            RetryLaterError: the database is away.
        """
        crossing: ThresholdReached = codec.decode(THRESHOLD_REACHED, record.value)
        added = await self._queue.add_crossing(crossing)
        log.info("crossing_received", model_type=crossing.model_type, epoch=crossing.epoch, queued=added)
        self._wake()


class TriggerTrainingExecution:
    """Carries out TriggerTraining: a job over everything that is archived by now."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    async def __call__(self, work: UnitOfWork, command: TriggerTraining, model_type: ModelType) -> CommandOutcome:
        """Queue the job inside the command's own transaction.

        Raises:
            CommandRejectedError: when nothing is archived yet.
        """
        repository = TrainingRepository(work.connection)
        ranges = await repository.archived(BEHAVIORAL_EVENTS.name)
        if not ranges:
            raise CommandRejectedError("no event is archived yet, so there is nothing to train on; send events first")
        job_id = await repository.add_job(
            NewJob(
                model_type=model_type,
                ranges=ranges,
                command_id=command.event_id,
                correlation_id=command.correlation_id or command.event_id,
            )
        )
        self._wake()  # before the commit: the orchestrator's next poll sees the job at the latest
        return CommandOutcome(
            detail=f"training of {model_type} is queued as job {job_id}", result={"job_id": str(job_id)}
        )
