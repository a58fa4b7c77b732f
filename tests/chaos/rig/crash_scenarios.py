"""What happens around a death, room by room: a small load that passes every write of the room, and the heir that takes over."""

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
from tests.chaos.oracle.recount import STREAMS_LAWS
from tests.chaos.rig.aimed import Run
from tests.chaos.rig.aimed_processes import Room, Trap, YardError, eventually
from tests.chaos.rig.aimed_topics import forget_the_dead
from tests.versions import Shelf, ready

RUN_LAWS = ("faults_hit", "caught_up")
ANSWERS = 20
MORE_THAN_ALLOWED = 130  # records of one producer that cannot be taken in, one after the other
WORKERS_SETTINGS = {"dead_letter_window_seconds": 4}  # what is forgotten after a minute is forgotten soon
USER = "6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11"
TRAINERS_SETTINGS = {
    "training_lease_seconds": 2, "training_retry_seconds": 0.1, "training_poll_seconds": 0.1, "training_grace_seconds": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashScenario:
    """How a room's death is played, and which laws are judged afterwards."""

    play: Callable[[Run, str, Trap], Awaitable[None]]
    laws: Collection[str]


@contextlib.asynccontextmanager
async def succession(run: Run, doomed: Room, heir: Room, *, point: str) -> AsyncIterator[None]:
    """While the block runs, let ``heir`` take over as soon as ``doomed`` has died; it must have died by the end."""

    async def succeed() -> None:
        await doomed.died_at_the_trap(seconds=60.0)
        await forget_the_dead(run.brokers, doomed.room)
        heir.release()
        run.hit("crash", doomed, point=point)

    watching = asyncio.ensure_future(succeed())
    try:
        yield
        await asyncio.wait({watching}, timeout=10.0)
        if not watching.done():
            raise YardError(f"{doomed.name} never came by {point} ({doomed.log})")
        watching.result()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def command(kind: type[Command], **fields: object) -> bytes:
    """Return a command of the yard's own."""
    now = SystemClock().now()
    about = {"event_id": uuid4(), "occurred_at": now, "issuer": "yard", "expires_at": now + dt.timedelta(minutes=5)}
    return encode(kind(**{**about, **fields}))  # type: ignore[arg-type]


async def say_what_cannot_be_written_down(run: Run, kind: type[Command], **fields: object) -> None:
    """Send a command whose issuer no column holds: the room that would carry it out puts it aside as a dead letter."""
    await run.load.say(CONTROL.name, b"goal", command(kind, model_type="goal", issuer="yard" * 100, **fields))


async def _is_put_aside(run: Run) -> bool:
    """Whether that command stands among the dead letters, once."""
    return bool(await run.connection.fetchval("SELECT count(*) = 1 FROM dead_letters WHERE topic = $1", CONTROL.name))


async def a_worker_dies(run: Run, seam: str, trap: Trap) -> None:
    """Events and commands; the worker dies at one of its writes."""
    settings = WORKERS_SETTINGS if seam.endswith(".forget_limits") else {}
    doomed, heir = await run.start(trap=trap, settings=settings), await run.start(held=True, settings=settings)
    async with succession(run, doomed, heir, point=trap.at):
        await run.load.say(
            CONTROL.name, b"goal", command(UpdateThresholds, model_type="goal", threshold=run.thresholds["goal"])
        )
        await say_what_cannot_be_written_down(run, UpdateThresholds, threshold=1)
        await run.load.send(450)
        if seam.endswith(".remember_limit"):
            await eventually(run.is_counted, what="the mix to be counted")  # none of it may stand between them
            await run.load.send_nothing(MORE_THAN_ALLOWED)
        if seam.endswith(".send_again"):
            await run.panes(8)
            await run.load.say(CONTROL.name, b"", command(RetryDeadLetters, topic=BEHAVIORAL_EVENTS.name))
        if seam.endswith(".quarantine"):
            model = await eventually(lambda: _model_with_an_epoch(run), what="an epoch")
            quarantine = command(QuarantineDataset, model_type=model, epoch=1, reason="bots")
            await run.load.say(CONTROL.name, model.encode(), quarantine)
        await eventually(lambda: _is_dead(doomed), what=f"{doomed.name} to die at {trap.at} ({doomed.log})")
    await run.load.send(150)
    await run.catch_up()
    await eventually(lambda: _is_put_aside(run), what="the dead letter of a command")


async def _model_with_an_epoch(run: Run) -> str | None:
    model: str | None = await run.connection.fetchval("SELECT model_type FROM epochs WHERE epoch = 1 LIMIT 1")
    if model is None and await run.is_counted():
        await run.load.send(60)  # it depends on what was drawn how many events an epoch needs
    return model


async def _is_dead(room: Room) -> bool:
    return room.is_dead


async def a_trainer_dies(run: Run, seam: str, trap: Trap) -> None:
    """Two epochs of spending are trained; the trainer dies at one of its writes. There is too little history to fit anything."""
    await run.set_thresholds(spending=40)
    run.minimums |= {"epochs": 1}
    settings = {**TRAINERS_SETTINGS, "training_max_attempts": 1 if seam.endswith(".fail") else 3}
    await run.start()
    doomed = await run.start("trainers", trap=trap, settings=settings)
    heir = await run.start("trainers", held=True, settings=settings)
    async with succession(run, doomed, heir, point=trap.at):
        await say_what_cannot_be_written_down(run, TriggerTraining)
        await run.load.send(450)
        await _wound(doomed, seam)
        await eventually(
            lambda: _is_dead(doomed), what=f"{doomed.name} to die at {trap.at} ({doomed.log})", seconds=60.0
        )
    await run.catch_up(lambda: _is_trained(run))
    await eventually(lambda: _is_put_aside(run), what="the dead letter of a command")


async def _wound(trainer: Room, seam: str) -> None:
    """Bring the trainer to a write that it only does when something has happened to its training."""
    if seam.endswith((".retry", ".fail")):
        child = await eventually(lambda: _child_of(trainer), what="a training in its child process")
        child.kill()
    elif seam.endswith(".give_back"):
        await eventually(lambda: _child_of(trainer), what="a training in its child process")
        trainer.process.terminate()


async def _child_of(trainer: Room) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return next(iter(psutil.Process(trainer.process.pid).children()), None)
    return None


async def _is_trained(run: Run) -> bool:
    open_jobs = await run.connection.fetchval(
        "SELECT count(*) FROM training_jobs WHERE status IN ('queued', 'running')"
    )
    unheard = await run.connection.fetchval(
        "SELECT count(*) FROM epochs e WHERE NOT EXISTS (SELECT FROM training_jobs j WHERE j.model_type = e.model_type AND j.epoch = e.epoch)"
    )
    return open_jobs == 0 and unheard == 0 and await run.is_counted()


def the_second_half(room: str) -> Callable[[Run, str, Trap], Awaitable[None]]:
    """A candidate is deployed and rolled back, replicas answer, come and leave; a process of ``room`` dies at one of its writes."""

    async def dies(run: Run, seam: str, trap: Trap) -> None:
        del seam
        run.minimums |= {"announcements": 6, "panes": 1}
        run.facts |= {"by_hand": [MODEL_READY.name], "replicas": ["replica-1"]}
        candidate = ready(Shelf(run.folder).goal(0.8))
        await run.start()
        doomed, heir, replicas = await _cast(run, room, trap)
        leaver = await run.start("serving", settings={"instance": "replica-2", **_SERVING})
        async with succession(run, doomed, heir, point=trap.at):
            await say_what_cannot_be_written_down(run, RollBackModel)
            await run.load.say(MODEL_READY.name, b"goal", encode(candidate))
            await eventually(lambda: _stands_at(run, 2), what="the candidate to be deployed", seconds=40)
            await run.load.say(CONTROL.name, b"goal", command(RollBackModel, model_type="goal"))
            await eventually(lambda: _stands_at(run, 3), what="the candidate to be rolled back")
            await leaver.ready()
            leaver.process.terminate()
            await _ask(replicas)
        await run.catch_up(lambda: _is_served(run))
        await eventually(lambda: _is_put_aside(run), what="the dead letter of a command")

    return dies


_SERVING = {"heartbeat_seconds": 0.5, "drain_seconds": 0}


async def _cast(run: Run, room: str, trap: Trap) -> tuple[Room, Room, list[Room]]:
    """Start who is doomed, its heir, and the others; return (doomed, heir, those that answer)."""
    answering = {"instance": "replica-1", **_SERVING}
    settings = answering if room == "serving" else {}
    doomed = await run.start(room, trap=trap, settings=settings)
    heir = await run.start(room, held=True, settings=settings)
    if room == "serving":
        await run.start("deployer")
        return doomed, heir, [doomed, heir]
    return doomed, heir, [await run.start("serving", settings=answering)]


async def _stands_at(run: Run, sequence: int) -> bool:
    found = await run.connection.fetchval("SELECT sequence FROM deployments WHERE model_type = 'goal'")
    return found is not None and found >= sequence


async def _ask(replicas: Sequence[Room]) -> None:
    """Ask for predictions, of whichever replica answers."""
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
    """Whether the replica that stays serves what is desired, the other one is forgotten, and all is said and archived."""
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


_SECOND_HALF_LAWS = ("outbox_heard", "states_grow", "replicas_serve_last", "predictions_kept", "panes_join", *RUN_LAWS)
SCENARIOS: dict[str, CrashScenario] = {
    "streams": CrashScenario(play=a_worker_dies, laws=(*STREAMS_LAWS, *RUN_LAWS)),
    "trainers": CrashScenario(play=a_trainer_dies, laws=(*STREAMS_LAWS, "trained_once", *RUN_LAWS)),
    "deployer": CrashScenario(play=the_second_half("deployer"), laws=_SECOND_HALF_LAWS),
    "serving": CrashScenario(play=the_second_half("serving"), laws=_SECOND_HALF_LAWS),
}
