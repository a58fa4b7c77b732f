"""The deployment service against a real database: desired states, versions, decisions and the outbox."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy as sa

from backends.broker.interface import Record
from backends.clock import ManualClock
from backends.control import CommandHandler
from backends.database.engine import create_engine
from backends.database.repositories.deployment import Decision, DeploymentRepository, DesiredRow, Move
from backends.database.unit_of_work import Database
from deployer.baselines import BaselineDeployment
from deployer.consumer import ReplicaStatusConsumer
from deployer.housekeeping import ArtifactHousekeeping
from deployer.service import ModelDeploymentService
from deployer.settings import DeployerSettings
from deployer.store import ArtifactStorage
from modelkit.manifest import GOLDEN, Golden, build_artifact, golden_file, open_artifact
from schemas import codec
from schemas.codec import encode
from schemas.errors import InvalidMessageError, RetryLaterError
from schemas.messages.control import (
    Command,
    CommandRejected,
    CommandResult,
    CommandSucceeded,
    DeployModel,
    RollBackModel,
)
from schemas.messages.deployment import DeploymentState, ReplicaStatus, ServedModel, VersionReference
from schemas.tables import audit_log, model_versions, outbox, replica_acknowledgements, replicas, rollout_decisions
from schemas.topics import ALERTS, CONTROL, CONTROL_RESULTS, MODEL_DEPLOYMENTS, REPLICA_STATUS
from schemas.vocabulary import ArtifactKind, DeploymentPhase, Service
from tests.four_models import FOUR_MODELS
from tests.processes import eventually
from tests.versions import Installation, goal_artifact, ready, reference_of

GOAL = "goal"


class Bench:
    """A deployer without a broker: service, baselines and handlers over one database and one folder."""

    def __init__(self, database: Database, folder: Path, clock: ManualClock) -> None:
        self.database, self.clock = database, clock
        self.installation = Installation(folder)
        self.artifacts = ArtifactStorage(self.installation.store_url)
        settings = DeployerSettings(
            folder=folder, store_url=self.installation.store_url, keys_folder=self.installation.keys_folder
        )
        self.service = ModelDeploymentService(database, self.artifacts, clock, settings=settings)
        self.baselines = BaselineDeployment(database, self.artifacts, clock, keys_folder=self.installation.keys_folder)
        executions: Any = {DeployModel: self.service.deploy_known, RollBackModel: self.service.rollback_model}
        self._commands = CommandHandler(database, clock, executions, models=FOUR_MODELS)

    async def desired(self) -> DesiredRow:
        """Return the desired state of the goal model."""
        async with self.database.reading() as connection:
            row = await DeploymentRepository(connection).desired(GOAL)
        assert row is not None
        return row

    async def rows(self, query: sa.Select[Any]) -> list[Any]:
        """Return the rows of a query."""
        async with self.database.reading() as connection:
            return list((await connection.execute(query)).all())

    async def announced(self, topic: str, key: str = "goal") -> list[bytes]:
        """Return what the outbox holds for a topic and key, oldest first."""
        chosen = sa.select(outbox.c.payload).where(outbox.c.topic == topic, outbox.c.key == key.encode())
        return [row.payload for row in await self.rows(chosen.order_by(outbox.c.id))]

    async def promote(self, rate: float) -> VersionReference:
        """Bring a candidate that answers ``rate`` into service."""
        reference = self.installation.goal(rate)
        current = await self.desired()
        await self.service.consider(ready(reference, parent_digest=current.active.artifact_digest))
        return reference

    async def command(self, kind: type[Command], model_type: str = "goal", **fields: Any) -> CommandResult:  # noqa: ANN401 - the command's own fields
        """Send a command through the handler of the control topic and return its answer."""
        now = self.clock.now()
        order = kind(
            event_id=uuid4(), occurred_at=now, issuer="tester", expires_at=now + dt.timedelta(minutes=1), model_type=model_type, **fields
        )  # fmt: skip
        await self.handle_raw(encode(order))
        return await self.answer(str(order.event_id))

    async def handle_raw(self, raw: bytes) -> None:
        """Put bytes through the handler of the control topic."""
        await self._commands.handle(record(CONTROL.name, raw))

    async def answer(self, command_id: str) -> CommandResult:
        """Return the answer to a command."""
        (payload,) = await self.announced(CONTROL_RESULTS.name, command_id)
        answer: CommandResult = codec.decode(CONTROL_RESULTS, payload)
        return answer


def record(topic: str, value: bytes, *, key: bytes = b"goal", at: dt.datetime | None = None) -> Record:
    """Return a record as a consumer hands it over."""
    return Record(
        topic=topic, partition=0, offset=0, key=key, value=value, timestamp=at or dt.datetime(2026, 3, 4, tzinfo=dt.UTC)
    )


@pytest.fixture
async def bench(database_url: str, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Bench]:
    """Give a deployer whose models all serve their baselines."""
    database = Database(create_engine(database_url, application_name="test-deployer"), Service.DEPLOYER)
    bench = Bench(database, tmp_path, clock)
    await bench.baselines.ensure()
    yield bench
    await database.close()


async def test_every_model_begins_with_its_signed_baseline(bench: Bench) -> None:
    """Every model begins with its signed baseline."""
    async with bench.database.reading() as connection:
        everything = await DeploymentRepository(connection).all_desired()
    assert {
        model: (row.sequence, row.phase, row.active.version, row.active.kind) for model, row in everything.items()
    } == dict.fromkeys(FOUR_MODELS, (1, DeploymentPhase.BASELINE, "0.0.0", ArtifactKind.BASELINE))
    (payload,) = await bench.announced(MODEL_DEPLOYMENTS.name)
    state = codec.decode(MODEL_DEPLOYMENTS, payload)
    assert bench.installation.store.exists(state.active.artifact_uri)
    decisions = await bench.rows(sa.select(rollout_decisions.c.decision))
    assert [row.decision for row in decisions] == ["baseline"] * len(FOUR_MODELS)


async def test_several_deployers_starting_at_once_deploy_one_baseline(
    database_url: str, tmp_path: Path, clock: ManualClock
) -> None:
    """Several deployers that start at once deploy one baseline."""
    database = Database(create_engine(database_url, application_name="test-deployers"), Service.DEPLOYER)
    benches = [Bench(database, tmp_path, clock) for _ in range(3)]
    done = await asyncio.gather(*(bench.baselines.ensure() for bench in benches))
    assert sorted(model for models in done for model in models) == sorted(FOUR_MODELS)
    assert len(await benches[0].announced(MODEL_DEPLOYMENTS.name)) == 1
    assert await benches[0].baselines.ensure() == []
    await database.close()


async def test_a_good_candidate_becomes_the_next_version_in_one_transaction(bench: Bench) -> None:
    """A promotion leaves version, desired state, decision, audit row and announcement that agree."""
    reference = await bench.promote(0.8)
    current = await bench.desired()
    assert (current.sequence, current.phase, current.active.version) == (2, DeploymentPhase.STABLE, "1.0.0")
    assert current.previous is not None
    assert current.previous.version == "0.0.0"
    state: DeploymentState = codec.decode(MODEL_DEPLOYMENTS, (await bench.announced(MODEL_DEPLOYMENTS.name))[-1])
    assert (state.sequence, state.active.artifact_digest) == (2, reference.artifact_digest)
    active = await bench.rows(
        sa.select(model_versions.c.version, model_versions.c.deployment_date).where(
            model_versions.c.model_type == "goal", model_versions.c.is_active
        )
    )
    assert [row.version for row in active] == ["1.0.0"]
    assert active[0].deployment_date is not None
    (decision,) = await bench.rows(sa.select(rollout_decisions).where(rollout_decisions.c.decision == "promoted"))
    assert (decision.version, decision.sequence) == ("1.0.0", 2)
    assert decision.evidence["trial"]["golden_rows"] > 0
    audited = await bench.rows(sa.select(audit_log.c.action).where(audit_log.c.subject == "goal"))
    assert [row.action for row in audited] == ["baseline", "promoted"]


async def test_the_active_version_is_backed_up_before_it_is_replaced(bench: Bench) -> None:
    """The active version is backed up before it is replaced."""
    first = await bench.promote(0.8)
    await bench.promote(0.7)
    folder = Path(bench.installation.store.path(first.artifact_uri))
    (folder / "parameters.json").write_bytes(b"{}")
    assert isinstance(await bench.command(RollBackModel), CommandSucceeded)
    assert bench.installation.store.get(first.artifact_uri)


async def test_the_same_candidate_twice_is_deployed_once(bench: Bench) -> None:
    """A candidate that is announced twice is deployed once."""
    message = ready(bench.installation.goal(0.8))
    await bench.service.consider(message)
    await bench.service.consider(message)
    assert (await bench.desired()).sequence == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("flip", "digest"),
        ("unsigned", "signed by an unknown key"),
        ("golden", "golden"),
        ("missing", "nothing is stored"),
    ],
)
async def test_a_bad_artifact_is_rejected_with_its_reason(
    bench: Bench, tmp_path: Path, damage: str, reason: str
) -> None:
    """A corrupted, foreign or wrong artifact is rejected with its reason."""
    message = ready(_damaged(bench.installation, tmp_path, damage))
    await bench.service.consider(message)
    await bench.service.consider(message)
    assert (await bench.desired()).sequence == 1
    (decision,) = await bench.rows(sa.select(rollout_decisions).where(rollout_decisions.c.decision == "rejected"))
    assert reason in decision.reason
    (raised,) = await bench.announced(ALERTS.name)
    assert codec.decode(ALERTS, raised).name == "candidate_rejected"


def _damaged(installation: Installation, tmp_path: Path, damage: str) -> VersionReference:
    if damage == "missing":
        return reference_of(f"artifacts/{'0' * 64}", version="1.0.0")
    if damage == "unsigned":
        stranger = Installation(tmp_path / "stranger")
        return reference_of(installation.store.put("artifacts", goal_artifact(stranger.key, 0.8)), version="1.0.0")
    if damage == "golden":
        loaded = open_artifact(goal_artifact(installation.key, 0.8), installation.key.trusted())
        golden = msgspec.json.decode(loaded.files[GOLDEN], type=Golden)
        golden.outputs[0][0] += 1e-3
        files = {**loaded.files, GOLDEN: golden_file(golden.inputs, golden.outputs)}
        manifest = msgspec.structs.replace(loaded.manifest, files={})
        return reference_of(
            installation.store.put("artifacts", build_artifact(manifest, files, installation.key)), version="1.0.0"
        )
    reference = installation.goal(0.8)
    path = Path(installation.store.path(reference.artifact_uri)) / "parameters.json"
    path.write_bytes(path.read_bytes().replace(b"0.8", b"0.9"))
    return reference


async def test_a_candidate_that_is_worse_than_the_baseline_is_rejected(bench: Bench) -> None:
    """The deployer itself rejects a candidate that is worse than the baseline."""
    await bench.service.consider(ready(bench.installation.goal(0.8), candidate=0.3))
    (decision,) = await bench.rows(sa.select(rollout_decisions).where(rollout_decisions.c.decision == "rejected"))
    assert "worse than the trivial baseline" in decision.reason


async def test_two_deployers_refuse_a_candidate_once(bench: Bench, database_url: str) -> None:
    """Two deployers reject a candidate with one decision, one alert and one audit row."""
    message = ready(bench.installation.goal(0.8), candidate=0.3)
    other = Database(
        create_engine(database_url, application_name="other-deployer", idle_in_transaction_seconds=60), Service.DEPLOYER
    )
    async with other.transaction() as work:
        await DeploymentRepository(work.connection).lock(GOAL)
        considered = asyncio.create_task(bench.service.consider(message))
        waiting = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test-deployer' AND wait_event_type = 'Lock'"
        )

        async def waits_or_is_done() -> bool:
            async with other.reading() as connection:
                return considered.done() or bool(await connection.scalar(waiting))

        await eventually(waits_or_is_done, what="the second deployer to stand before its decision")
        assert not considered.done()
        decision = Decision(
            model_type=GOAL, decision="rejected", reason="the other's", training_event_id=message.training_event_id
        )
        await DeploymentRepository(work.connection).add_decision(decision)
    await considered
    await other.close()
    (found,) = await bench.rows(sa.select(rollout_decisions).where(rollout_decisions.c.decision == "rejected"))
    assert found.reason == "the other's"
    assert await bench.announced(ALERTS.name) == []
    assert await bench.rows(sa.select(audit_log.c.id).where(audit_log.c.action == "rejected")) == []


async def test_a_candidate_that_was_compared_with_another_champion_is_rejected(bench: Bench) -> None:
    """A candidate that was compared with another champion is rejected."""
    await bench.promote(0.8)
    await bench.service.consider(ready(bench.installation.goal(0.7), parent_digest="f" * 64))
    current = await bench.desired()
    assert current.active.version == "1.0.0"


async def test_a_deployer_that_was_frozen_fails_the_compare(bench: Bench) -> None:
    """A deployer with an old view fails the compare, and what another one decided stays."""
    stale = await bench.desired()
    await bench.promote(0.8)
    message = ready(bench.installation.goal(0.7), parent_digest=stale.active.artifact_digest)
    report = await bench.service.validate_deployment(message)
    with pytest.raises(RetryLaterError, match="moved on"):
        await bench.service.deploy_model(message, report, stale)
    assert (await bench.desired()).active.version == "1.0.0"
    async with bench.database.transaction() as work:
        assert await DeploymentRepository(work.connection).move(Move(stale, stale.active, None)) is None


async def test_a_rollback_serves_the_previous_version_with_a_higher_sequence(bench: Bench) -> None:
    """A rollback serves the previous version under a higher sequence, since replicas ignore lower ones."""
    await bench.promote(0.8)
    await bench.promote(0.7)
    answer = await bench.command(RollBackModel)
    assert isinstance(answer, CommandSucceeded)
    assert answer.result == {"version": "1.0.0", "previous_version": "1.1.0", "sequence": 4}
    current = await bench.desired()
    assert (current.active.version, current.sequence) == ("1.0.0", 4)
    assert current.previous is not None
    assert current.previous.version == "0.0.0"
    (rolled,) = await bench.rows(sa.select(model_versions.c.version).where(model_versions.c.rollback_count == 1))
    assert rolled.version == "1.1.0"
    audited = await bench.rows(
        sa.select(audit_log.c.action, audit_log.c.actor).order_by(audit_log.c.id.desc()).limit(1)
    )
    assert [tuple(row) for row in audited] == [("RollBackModel", "tester")]


async def test_a_rollback_with_nothing_before_it_is_refused_with_a_sentence(bench: Bench) -> None:
    """A rollback with nothing before it is refused with what to do instead."""
    answer = await bench.command(RollBackModel)
    assert isinstance(answer, CommandRejected)
    assert "nothing before version 0.0.0 of goal" in answer.detail
    assert (await bench.desired()).sequence == 1


async def test_a_known_version_is_served_again_by_command(bench: Bench) -> None:
    """A known version is served again by command, and the answer names it."""
    await bench.promote(0.8)
    await bench.command(RollBackModel)
    answer = await bench.command(DeployModel, version="1.0.0")
    assert isinstance(answer, CommandSucceeded)
    assert answer.result["sequence"] == 4
    assert (await bench.desired()).active.version == "1.0.0"


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("9.9.9", "there is no version 9.9.9 of goal; known are 0.0.0 (active)"), ("0.0.0", "is served already")],
)
async def test_a_version_that_cannot_be_deployed_is_refused_with_the_known_ones(
    bench: Bench, version: str, sentence: str
) -> None:
    """A command for an unknown or active version is refused with the known ones."""
    answer = await bench.command(DeployModel, version=version)
    assert isinstance(answer, CommandRejected)
    assert sentence in answer.detail


async def test_a_version_whose_artifact_is_gone_is_refused(bench: Bench) -> None:
    """A version whose artifact is gone is refused."""
    first = await bench.promote(0.8)
    await bench.command(RollBackModel)
    await bench.artifacts.delete(first.artifact_uri)
    answer = await bench.command(DeployModel, version="1.0.0")
    assert isinstance(answer, CommandRejected)
    assert "no longer stored" in answer.detail


async def test_an_unknown_command_is_answered(bench: Bench) -> None:
    """An unknown command is answered."""
    raw = (
        b'{"type":"LaunchRocket","event_id":"6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11","occurred_at":"2026-03-04T12:00:00Z",'
        b'"issuer":"tester","expires_at":"2026-03-04T12:05:00Z","model_type":"goal"}'
    )
    await bench.handle_raw(raw)
    answer = await bench.answer("6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11")
    assert isinstance(answer, CommandRejected)
    assert "known commands" in answer.detail


async def test_a_command_for_an_unknown_model_is_refused_with_the_known_ones(bench: Bench) -> None:
    """A command for an unknown model is refused with the known ones."""
    answer = await bench.command(RollBackModel, "gaol")
    assert "choose one of recommendation" in answer.detail


async def test_replicas_are_known_and_each_acknowledgement_is_noted_once(bench: Bench) -> None:
    """An acknowledgement is recorded once; heartbeats do not move it."""
    consumer = ReplicaStatusConsumer(bench.database)
    began = bench.clock.now()
    for seconds in (0, 5, 3):
        at = began + dt.timedelta(seconds=seconds)
        await consumer.handle(
            record(REPLICA_STATUS.name, encode(_status(began, swaps=seconds)), key=b"replica-1", at=at)
        )
    (replica,) = await bench.rows(sa.select(replicas))
    assert (replica.swaps, replica.last_seen_at) == (5, began + dt.timedelta(seconds=5))
    (acknowledged,) = await bench.rows(sa.select(replica_acknowledgements))
    assert (acknowledged.sequence, acknowledged.served_since) == (1, began)
    await consumer.handle(record(REPLICA_STATUS.name, b"", key=b"replica-1", at=began + dt.timedelta(seconds=9)))
    assert await bench.rows(sa.select(replicas)) == []


def _status(at: dt.datetime, *, swaps: int) -> ReplicaStatus:
    served = ServedModel(version="0.0.0", artifact_digest="0" * 64, kind=ArtifactKind.BASELINE, sequence=1, since=at)
    return ReplicaStatus(
        event_id=uuid4(), occurred_at=at, replica_id="replica-1", url="http://127.0.0.1:1", started_at=at, models={"goal": served}, swaps=swaps
    )  # fmt: skip


def _served(at: dt.datetime, **changes: Any) -> ReplicaStatus:  # noqa: ANN401 - the model's own fields
    status = _status(at, swaps=0)
    return msgspec.structs.replace(status, models={"goal": msgspec.structs.replace(status.models["goal"], **changes)})


UNHOLDABLE_STATUS: dict[str, Callable[[ReplicaStatus], ReplicaStatus]] = {
    "a long replica": lambda status: msgspec.structs.replace(status, replica_id="r" * 150),
    "a long address": lambda status: msgspec.structs.replace(status, url="u" * 10_000),
    "many swaps": lambda status: msgspec.structs.replace(status, swaps=2**31),
    "a long model": lambda status: msgspec.structs.replace(status, models={"m" * 40: status.models["goal"]}),
    "a long version": lambda status: _served(status.occurred_at, version="1.0." + "0" * 30),
    "a high sequence": lambda status: _served(status.occurred_at, sequence=2**63),
}


@pytest.mark.parametrize("changed", UNHOLDABLE_STATUS.values(), ids=list(UNHOLDABLE_STATUS))
async def test_a_status_that_no_table_holds_is_dead_lettered(
    bench: Bench, changed: Callable[[ReplicaStatus], ReplicaStatus]
) -> None:
    """A status with a name, number or version that fits no column holds up no other replica."""
    status = changed(_status(bench.clock.now(), swaps=0))
    with pytest.raises(InvalidMessageError, match="the database cannot hold it"):
        await ReplicaStatusConsumer(bench.database).handle(record(REPLICA_STATUS.name, encode(status)))
    assert await bench.rows(sa.select(replicas)) == []
    assert await bench.rows(sa.select(replica_acknowledgements)) == []


async def test_a_tombstone_that_names_no_possible_replica_is_dead_lettered(bench: Bench) -> None:
    """An empty record under a key that is no text holds up no other replica."""
    with pytest.raises(InvalidMessageError, match="the database cannot hold it"):
        await ReplicaStatusConsumer(bench.database).handle(record(REPLICA_STATUS.name, b"", key=b"a\0b"))


async def test_a_candidate_that_no_table_holds_is_dead_lettered(bench: Bench) -> None:
    """A candidate whose manifest fits no column holds up no other candidate."""
    loaded = open_artifact(goal_artifact(bench.installation.key, 0.8), bench.installation.key.trusted())
    parameters = {**loaded.manifest.parameters, "family": "a\0b"}
    files = goal_artifact(bench.installation.key, 0.8, parameters=parameters)
    reference = reference_of(bench.installation.store.put("artifacts", files), version="1.0.0")
    current = await bench.desired()
    message = ready(reference, parent_digest=current.active.artifact_digest)
    with pytest.raises(InvalidMessageError, match="the database cannot hold it"):
        await bench.service.consider(message)
    assert (await bench.desired()).sequence == 1


async def test_a_store_that_is_away_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate is considered again while its artifact cannot be copied."""

    async def away(_address: str) -> str:
        raise OSError("the store does not answer")

    message = ready(bench.installation.goal(0.8), parent_digest=(await bench.desired()).active.artifact_digest)
    monkeypatch.setattr(bench.artifacts, "back_up", away)
    with pytest.raises(RetryLaterError, match="the store does not answer"):
        await bench.service.consider(message)
    assert (await bench.desired()).sequence == 1


async def test_housekeeping_keeps_what_a_rollback_needs(bench: Bench) -> None:
    """Housekeeping keeps the active, the previous and the baseline artifact."""
    references = [await bench.promote(rate) for rate in (0.9, 0.8, 0.7, 0.6)]
    keeper = ArtifactHousekeeping(bench.database, bench.artifacts, versions_kept=1, pause_seconds=60)
    assert await keeper.clean_once() == sorted(reference.artifact_uri for reference in references[:2])
    current = await bench.desired()
    assert current.previous is not None
    for kept in (current.active, current.previous):
        assert bench.installation.store.exists(kept.address)
    assert bench.installation.store.exists(bench.installation.baseline(GOAL).artifact_uri)
