"""The scenario around a death, for each service: a small load that passes every write, and a successor that takes over."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import uuid4

import httpx
import psutil

from backends.clock import SystemClock
from schemas.codec import encode
from schemas.messages.control import (
    Command,
    QuarantineDataset,
    RetryDeadLetters,
    RollBackModel,
    TriggerTraining,
    UpdateThresholds,
)
from schemas.topics import BEHAVIORAL_EVENTS, CONTROL, MODEL_READY, PREDICTIONS
from tests.chaos.oracle.recount import STREAMS_INVARIANTS
from tests.chaos.rig.aimed import Run
from tests.chaos.rig.aimed_processes import AimedProcess, AimedRunError, Trap, eventually
from tests.chaos.rig.aimed_topics import remove_dead_members
from tests.versions import Installation, ready

RUN_INVARIANTS = ("faults_hit", "caught_up")
ANSWERS = 20
MORE_THAN_ALLOWED = 130  # records in a row from one producer that cannot be taken in
WORKER_SETTINGS = {"dead_letter_window_seconds": 4}  # what is otherwise forgotten after a minute
USER = "6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11"
TRAINER_SETTINGS = {
    "training_lease_seconds": 2, "training_retry_seconds": 0.1, "training_poll_seconds": 0.1, "training_grace_seconds": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashScenario:
    """The scenario of a service's death, and the invariants that are judged afterwards."""

    play: Callable[[Run, str, Trap], Awaitable[None]]
    invariants: Collection[str]


@contextlib.asynccontextmanager
async def takeover(run: Run, dying: AimedProcess, successor: AimedProcess, *, point: str) -> AsyncIterator[None]:
    """Let ``successor`` take over once ``dying`` has died, which must happen before the block ends."""

    async def take_over() -> None:
        await dying.died_at_the_trap(seconds=60.0)
        await remove_dead_members(run.brokers, dying.service)
        successor.release()
        run.record_fault("crash", dying, point=point)

    watching = asyncio.ensure_future(take_over())
    try:
        yield
        await asyncio.wait({watching}, timeout=10.0)
        if not watching.done():
            raise AimedRunError(f"{dying.name} never reached {point} ({dying.log})")
        watching.result()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def command(kind: type[Command], **fields: object) -> bytes:
    """Return a command of the test itself."""
    now = SystemClock().now()
    about = {
        "event_id": uuid4(),
        "occurred_at": now,
        "issuer": "aimed-run",
        "expires_at": now + dt.timedelta(minutes=5),
    }
    return encode(kind(**{**about, **fields}))  # type: ignore[arg-type]


async def send_unstorable_command(run: Run, kind: type[Command], **fields: object) -> None:
    """Send a command whose issuer fits no column: the service that would execute it dead-letters it."""
    await run.load.publish(CONTROL.name, b"goal", command(kind, model_type="goal", issuer="aimed-run" * 100, **fields))


async def _is_dead_lettered(run: Run) -> bool:
    """Return whether that command is among the dead letters, once."""
    return bool(await run.connection.fetchval("SELECT count(*) = 1 FROM dead_letters WHERE topic = $1", CONTROL.name))


async def a_worker_dies(run: Run, seam: str, trap: Trap) -> None:
    """Events and commands; the worker dies at one of its writes."""
    settings = WORKER_SETTINGS if seam.endswith(".forget_limits") else {}
    dying, successor = await run.start(trap=trap, settings=settings), await run.start(held=True, settings=settings)
    async with takeover(run, dying, successor, point=trap.at):
        await run.load.publish(
            CONTROL.name, b"goal", command(UpdateThresholds, model_type="goal", threshold=run.thresholds["goal"])
        )
        await send_unstorable_command(run, UpdateThresholds, threshold=1)
        await run.load.send(450)
        if seam.endswith(".remember_limit"):
            await eventually(run.is_counted, what="the mix to be counted")  # none of it may come between them
            await run.load.send_nothing(MORE_THAN_ALLOWED)
        if seam.endswith(".send_again"):
            await run.panes(8)
            await run.load.publish(CONTROL.name, b"", command(RetryDeadLetters, topic=BEHAVIORAL_EVENTS.name))
        if seam.endswith(".quarantine"):
            model = await eventually(lambda: _model_with_an_epoch(run), what="an epoch")
            quarantine = command(QuarantineDataset, model_type=model, epoch=1, reason="bots")
            await run.load.publish(CONTROL.name, model.encode(), quarantine)
        await eventually(lambda: _is_dead(dying), what=f"{dying.name} to die at {trap.at} ({dying.log})")
    await run.load.send(150)
    await run.catch_up()
    await eventually(lambda: _is_dead_lettered(run), what="the dead letter of a command")


async def _model_with_an_epoch(run: Run) -> str | None:
    model: str | None = await run.connection.fetchval("SELECT model_type FROM epochs WHERE epoch = 1 LIMIT 1")
    if model is None and await run.is_counted():
        await run.load.send(60)  # how many events an epoch needs depends on what was drawn
    return model


async def _is_dead(process: AimedProcess) -> bool:
    return process.is_dead


async def a_trainer_dies(run: Run, seam: str, trap: Trap) -> None:
    """Two epochs of spending are trained; the trainer dies at one of its writes. The history is too short to fit a model."""
    await run.set_thresholds(spending=40)
    run.minimums |= {"epochs": 1}
    settings = {**TRAINER_SETTINGS, "training_max_attempts": 1 if seam.endswith(".fail") else 3}
    await run.start()
    dying = await run.start("trainers", trap=trap, settings=settings)
    successor = await run.start("trainers", held=True, settings=settings)
    async with takeover(run, dying, successor, point=trap.at):
        await send_unstorable_command(run, TriggerTraining)
        await run.load.send(450)
        await _disturb(dying, seam)
        await eventually(lambda: _is_dead(dying), what=f"{dying.name} to die at {trap.at} ({dying.log})", seconds=60.0)
    await run.catch_up(lambda: _is_trained(run))
    await eventually(lambda: _is_dead_lettered(run), what="the dead letter of a command")


async def _disturb(trainer: AimedProcess, seam: str) -> None:
    """Bring the trainer to a write that happens only after a disturbed training."""
    if seam.endswith((".retry", ".fail")):
        child = await eventually(lambda: _child_of(trainer), what="a training in its child process")
        child.kill()
    elif seam.endswith(".give_back"):
        await eventually(lambda: _child_of(trainer), what="a training in its child process")
        trainer.process.terminate()


async def _child_of(trainer: AimedProcess) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return next(iter(psutil.Process(trainer.process.pid).children()), None)
    return None


async def _is_trained(run: Run) -> bool:
    open_jobs = await run.connection.fetchval(
        "SELECT count(*) FROM training_jobs WHERE status IN ('queued', 'running')"
    )
    without_job = await run.connection.fetchval(
        "SELECT count(*) FROM epochs e WHERE NOT EXISTS (SELECT FROM training_jobs j WHERE j.model_type = e.model_type AND j.epoch = e.epoch)"
    )
    return open_jobs == 0 and without_job == 0 and await run.is_counted()


def deployment_and_death(service: str) -> Callable[[Run, str, Trap], Awaitable[None]]:
    """A candidate is deployed and rolled back, replicas answer, join and leave; a process of ``service`` dies at a write."""

    async def dies(run: Run, seam: str, trap: Trap) -> None:
        del seam
        run.minimums |= {"announcements": 6, "panes": 1}
        run.facts |= {"direct_topics": [MODEL_READY.name], "replicas": ["replica-1"]}
        candidate = ready(Installation(run.folder).goal(0.8))
        await run.start()
        dying, successor, replicas = await _start_all(run, service, trap)
        leaving = await run.start("serving", settings={"instance": "replica-2", **_SERVING})
        async with takeover(run, dying, successor, point=trap.at):
            await send_unstorable_command(run, RollBackModel)
            await run.load.publish(MODEL_READY.name, b"goal", encode(candidate))
            await eventually(lambda: _has_sequence(run, 2), what="the candidate to be deployed", seconds=40)
            await run.load.publish(CONTROL.name, b"goal", command(RollBackModel, model_type="goal"))
            await eventually(lambda: _has_sequence(run, 3), what="the candidate to be rolled back")
            await leaving.ready()
            leaving.process.terminate()
            await _ask(replicas)
        await run.catch_up(lambda: _is_served(run))
        await eventually(lambda: _is_dead_lettered(run), what="the dead letter of a command")

    return dies


_SERVING = {"heartbeat_seconds": 0.5, "drain_seconds": 0}


async def _start_all(run: Run, service: str, trap: Trap) -> tuple[AimedProcess, AimedProcess, list[AimedProcess]]:
    """Start the dying process, its successor and the others; return (dying, successor, those that answer)."""
    answering = {"instance": "replica-1", **_SERVING}
    settings = answering if service == "serving" else {}
    dying = await run.start(service, trap=trap, settings=settings)
    successor = await run.start(service, held=True, settings=settings)
    if service == "serving":
        await run.start("deployer")
        return dying, successor, [dying, successor]
    return dying, successor, [await run.start("serving", settings=answering)]


async def _has_sequence(run: Run, sequence: int) -> bool:
    found = await run.connection.fetchval("SELECT sequence FROM deployments WHERE model_type = 'goal'")
    return found is not None and found >= sequence


async def _ask(replicas: Sequence[AimedProcess]) -> None:
    """Ask for predictions from whichever replica answers."""
    answered = 0

    async def ask_all() -> bool:
        nonlocal answered
        for replica in replicas:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post(f"http://127.0.0.1:{replica.port}/predict/goal", json={"user_id": USER})
                answered += answer.is_success
        return answered >= ANSWERS

    async with httpx.AsyncClient(timeout=5) as client:
        await eventually(ask_all, what="answers of a replica", seconds=30.0)


async def _is_served(run: Run) -> bool:
    """Return whether the remaining replica serves what is desired, the other is forgotten, and all is published and archived."""
    lagging = await run.connection.fetchval(
        "SELECT count(*) FROM deployments d LEFT JOIN replicas r ON r.replica_id = 'replica-1'"
        " WHERE (r.models -> d.model_type ->> 'sequence')::bigint IS DISTINCT FROM d.sequence"
    )
    left = await run.connection.fetchval("SELECT count(*) FROM replicas WHERE replica_id = 'replica-2'")
    waiting = await run.connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
    archived = await run.connection.fetchval(
        "SELECT coalesce(sum(next_offset), 0) FROM ledger WHERE topic = $1", PREDICTIONS.name
    )
    return not lagging and not left and not waiting and archived == await run.load.end_of(PREDICTIONS.name)


_DEPLOYMENT_INVARIANTS = (
    "outbox_published",
    "sequences_grow",
    "replicas_serve_last",
    "predictions_archived",
    "panes_contiguous",
    *RUN_INVARIANTS,
)
SCENARIOS: dict[str, CrashScenario] = {
    "streams": CrashScenario(play=a_worker_dies, invariants=(*STREAMS_INVARIANTS, *RUN_INVARIANTS)),
    "trainers": CrashScenario(play=a_trainer_dies, invariants=(*STREAMS_INVARIANTS, "trained_once", *RUN_INVARIANTS)),
    "deployer": CrashScenario(play=deployment_and_death("deployer"), invariants=_DEPLOYMENT_INVARIANTS),
    "serving": CrashScenario(play=deployment_and_death("serving"), invariants=_DEPLOYMENT_INVARIANTS),
}
