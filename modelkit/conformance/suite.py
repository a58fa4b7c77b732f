"""The checks themselves. Each docstring is a promise that a model package makes to the processes that load it."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from fincoach_events.events import AnyBehavioralEvent
from fincoach_events.identifiers import event_id_from_key
from modelkit.conformance.material import (
    BUILT_AT,
    KEY,
    Training,
    folded_events,
    histories,
    loaded_runtime,
    opened,
    snapshot_of,
    train,
    version_zero,
)
from modelkit.definition import CONTRACT_VERSION, PARTS_OF_PROCESS
from modelkit.features import UserState, decode_state, encode_state, fold, replay
from modelkit.inspection import imports_of, problem_of
from modelkit.interface import Answer, PredictionRequest, Runtime
from modelkit.manifest import GOLDEN, Golden, golden_file
from modelkit.registry import definition_of
from modelkit.scoring import ScoringRuntime
from modelkit.signing import SigningKey
from modelkit.statistics.events import FoldedEvent, NewEvents
from modelkit.statistics.sketches import DatasetStatistics, distinct, merged
from modelkit.training.artifacts import sanity_checks
from modelkit.training.interface import NotEnoughHistoryError, Snapshot
from modelkit.training.validation import CANDIDATE, judge
from modelkit.version_zero import baseline_artifact
from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ArtifactKind, ModelType, Verdict

PARTS = tuple(dict.fromkeys(part for parts in PARTS_OF_PROCESS.values() for part in parts))
EXACT = tuple(name for name in DatasetStatistics.__struct_fields__ if name != "users")
DISTINCT_WITHIN = 0.05  # two standard errors of the sketch of users
USERS_LOOKED_AT, MOMENTS_LOOKED_AT = 20, 5
CHANCES_SUM_WITHIN = 1e-6
_golden = msgspec.json.Decoder(Golden)


class ModelConformance:
    """All checks of one model. A subclass says which model, and gives events of some users; its name begins with ``Test``.

    Attributes:
        model_type: the name of the entry point.
        seed: with which the training is made.
    """

    model_type: ClassVar[ModelType]
    seed: ClassVar[int] = 3

    @classmethod
    def events(cls) -> Sequence[AnyBehavioralEvent]:
        """Return events of some users in the order of their log, among them some that count."""
        raise NotImplementedError

    @classmethod
    def snapshot(cls) -> Snapshot:
        """Return a snapshot that is large enough to train on; as long as nothing else is said, of the events."""
        return snapshot_of(cls.events())

    @classmethod
    def request(cls, as_of: dt.datetime) -> PredictionRequest:
        """Return what a caller asks at a moment."""
        return PredictionRequest(as_of=as_of)

    # --- the definition ------------------------------------------------------------------------------------------

    def test_the_definition_is_found_and_says_what_people_read(self) -> None:
        """The model is installed, was written for this contract, and names itself, what counts and a rule that can fire."""
        definition = definition_of(self.model_type)
        assert definition.contract_version == CONTRACT_VERSION
        assert definition.title
        assert definition.counts
        least, most = definition.threshold.bounds()
        assert 1 <= least <= most
        assert definition.threshold.threshold >= 1
        assert 0 <= definition.threshold.quality_gate <= 1

    @pytest.mark.parametrize("part", PARTS)
    def test_each_part_is_what_the_contract_asks_for(self, part: str) -> None:
        """Each address leads to an object of the kind that the processes expect."""
        assert problem_of(definition_of(self.model_type), part) is None

    @pytest.mark.parametrize("process", PARTS_OF_PROCESS)
    def test_each_process_imports_only_what_it_installs(self, process: str) -> None:
        """The data set comes without onnxruntime, a replica's parts without learning libraries, nothing with Faust."""
        assert imports_of(process, self.model_type).problems == ()

    # --- the data set --------------------------------------------------------------------------------------------

    def test_some_events_count_and_only_those_of_its_types(self) -> None:
        """A data set grows by its own events, never by more than there are, and by no others."""
        dataset = definition_of(self.model_type).dataset.load()
        folded = folded_events(self.events())
        ours = [item for item in folded if item.event.__struct_config__.tag in dataset.event_types]
        others = [item for item in folded if item.event.__struct_config__.tag not in dataset.event_types]
        found = _aggregate(self.model_type, ours)
        assert 0 < found.counts.counted <= found.counts.relevant <= len(ours)
        assert _aggregate(self.model_type, others).counts.counted == 0
        assert dataset.aggregate(NewEvents([])) is None

    def test_statistics_of_batches_merge_into_those_of_all_events(self) -> None:
        """However the log is cut into batches, the same is counted: a crossing does not depend on the size of a fetch."""
        folded = folded_events(self.events())
        whole = _aggregate(self.model_type, folded)
        for cuts in ((0,), (1,), (len(folded) // 2,), (len(folded) - 1,), (len(folded) // 5, len(folded) // 3)):
            parts = [_aggregate(self.model_type, part) for part in _cut(folded, cuts)]
            together = functools.reduce(merged, parts)
            assert {name: getattr(together, name) for name in EXACT} == {name: getattr(whole, name) for name in EXACT}
            assert distinct(together.users) == pytest.approx(distinct(whole.users), rel=DISTINCT_WITHIN)

    def test_counting_again_gives_the_same_statistics(self) -> None:
        """Counting is pure: a batch that is processed again after a crash counts the same."""
        folded = folded_events(self.events())
        before = [encode_event_of(item) for item in folded]
        assert _aggregate(self.model_type, folded) == _aggregate(self.model_type, folded)
        assert [encode_event_of(item) for item in folded] == before

    # --- features ------------------------------------------------------------------------------------------------

    def test_features_of_a_replayed_state_are_those_of_the_stored_one(self) -> None:
        """A training's row is the row that a replica would have made at that moment from the state in the database."""
        runtime = version_zero(definition_of(self.model_type))
        for history, moments in _looked_at(self.events()):
            for moment, state in replay(history, moments):
                request = self.request(moment)
                expected = runtime.features(_stored(history, moment), request)
                assert runtime.features(state, request).tolist() == expected.tolist()

    def test_making_features_leaves_the_state_as_it_is(self) -> None:
        """A replica's cached state, and the live one of a replay, are the same after they were looked at."""
        runtime = version_zero(definition_of(self.model_type))
        for history, moments in _looked_at(self.events()):
            state = _stored(history, moments[-1])
            before = encode_state(state) if state is not None else None
            runtime.features(state, self.request(moments[-1]))
            assert (encode_state(state) if state is not None else None) == before

    def test_every_user_has_a_row_of_finite_numbers(self) -> None:
        """A user of whom nothing is known has a row too, and each row has the columns of the manifest."""
        runtime = version_zero(definition_of(self.model_type))
        for state, request in _asked(type(self)):
            row = runtime.features(state, request)
            assert row.shape == (len(runtime.manifest.feature_names),)
            assert row.dtype == np.float32
            assert np.isfinite(row).all()

    # --- version 0 -----------------------------------------------------------------------------------------------

    def test_version_0_is_built_the_same_again_and_loads(self) -> None:
        """Two deployers that start at once make one version 0, and a replica can serve it."""
        definition = definition_of(self.model_type)
        artifact = baseline_artifact(definition, KEY, BUILT_AT)
        assert artifact == baseline_artifact(definition, KEY, BUILT_AT)
        runtime = loaded_runtime(definition, opened(artifact))
        runtime.warm_up()
        assert runtime.manifest.kind == ArtifactKind.BASELINE

    def test_an_artifact_that_answers_otherwise_is_refused(self) -> None:
        """A version whose answers are not its golden ones is never served."""
        definition = definition_of(self.model_type)
        artifact = opened(baseline_artifact(definition, KEY, BUILT_AT))
        golden = _golden.decode(artifact.files[GOLDEN])
        outputs = [[value + 1.0 for value in row] for row in golden.outputs]
        changed = msgspec.structs.replace(
            artifact, files={**artifact.files, GOLDEN: golden_file(golden.inputs, outputs)}
        )
        with pytest.raises(ArtifactRejectedError):
            loaded_runtime(definition, changed)

    # --- training ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("events", [0, 1])
    def test_too_little_history_is_said_in_a_sentence(self, events: int) -> None:
        """The first crossing of a young installation keeps the champion; it is no failure."""
        trainer = definition_of(self.model_type).trainer.load()
        with pytest.raises(NotEnoughHistoryError, match="not enough"):
            trainer.prepare(snapshot_of(self.events()[:events]), seed=self.seed)

    def test_the_same_snapshot_and_seed_give_the_same_candidates(self) -> None:
        """A served model can be made again from what is recorded about it: digests, scores and evidence are the same."""
        first = trained(type(self))
        again = train(definition_of(self.model_type), self.snapshot(), seed=self.seed)
        assert [_of(each) for each in again.candidates] == [_of(each) for each in first.candidates]
        assert again.samples == first.samples > 0
        assert {name: rows.tolist() for name, rows in again.evidence.rows.items()} == {
            name: rows.tolist() for name, rows in first.evidence.rows.items()
        }

    def test_the_exported_candidates_answer_as_the_trained_ones(self) -> None:
        """What is served is what was trained: finite, within the tolerance, and small enough for a replica."""
        for each in trained(type(self)).candidates:
            checks = sanity_checks(each.candidate, each.runtime, each.outputs)
            assert [check.sentence for check in checks if not check.passed and check.name != "latency"] == []

    def test_a_row_is_scored_alone_as_among_others(self) -> None:
        """A user's answer does not depend on who else is asked about."""
        for runtime in _versions(type(self)):
            rows = np.asarray(trained(type(self)).best.candidate.golden_inputs, dtype=np.float32)
            alone = np.concatenate([runtime.scores(row[None, :]) for row in rows])
            np.testing.assert_allclose(alone, runtime.scores(rows), rtol=1e-4, atol=1e-5)

    def test_a_learned_version_reproduces_its_golden_rows(self) -> None:
        """A learned version loads, warms up, and names the features that its runtime makes."""
        for each in trained(type(self)).candidates:
            again = loaded_runtime(definition_of(self.model_type), each.loaded)
            again.warm_up()
            golden = np.asarray(each.candidate.golden_inputs, dtype=np.float32)
            np.testing.assert_allclose(again.scores(golden), each.outputs, rtol=1e-5, atol=1e-5)

    def test_the_evidence_is_about_the_metric_of_the_gate(self) -> None:
        """People read one metric with one direction, and the trainer's policy is the gate's."""
        found, gate = trained(type(self)), definition_of(self.model_type).gate.load()
        assert (found.evidence.metric, found.evidence.higher_is_better) == (
            gate.metric.name,
            gate.metric.higher_is_better,
        )
        assert found.trainer.policy == gate.policy
        assert gate.metric.unit

    def test_the_evidence_can_be_judged(self) -> None:
        """Candidate and trivial baselines are measured on the same rows, and the gates come to a verdict."""
        found = trained(type(self))
        evidence = found.evidence
        assert evidence.baselines
        assert {CANDIDATE, *evidence.baselines} <= evidence.rows.keys()
        assert {len(rows) for rows in evidence.rows.values()} == {len(evidence.clusters)}
        judgement = judge(evidence, found.trainer.policy, seed=self.seed)
        assert judgement.verdict in set(Verdict)
        assert judgement.reasons
        assert msgspec.json.encode(judgement.numbers)

    # --- answers -------------------------------------------------------------------------------------------------

    def test_answers_keep_to_their_shape(self) -> None:
        """Version 0 and a learned version answer a known and an unknown user in the shape that the definition names, field by field."""
        shape = definition_of(self.model_type).answer.load()
        for runtime in _versions(type(self)):
            for state, request in _asked(type(self)):
                answer = runtime.answer(runtime.features(state, request), request)
                assert answer.body.keys() <= shape.model_fields.keys()
                shape.model_validate_json(msgspec.json.encode(_served(answer, runtime)), strict=True)

    def test_what_is_drawn_says_how_likely_it_was(self) -> None:
        """An answer that was drawn from several can be judged afterwards: its chances are exact; others name none."""
        for runtime in _versions(type(self)):
            for state, request in _asked(type(self)):
                answer = runtime.answer(runtime.features(state, request), request)
                drawn = (answer.action_set, answer.action, answer.propensity, answer.propensities)
                if answer.action is None or answer.propensities is None:
                    assert drawn == (None, None, None, None)
                    continue
                assert answer.action_set is not None
                assert abs(sum(answer.propensities) - 1.0) < CHANCES_SUM_WITHIN
                assert answer.propensity == answer.propensities[answer.action]
                assert min(answer.propensities) >= runtime.manifest.propensity_floor - CHANCES_SUM_WITHIN

    def test_a_foreign_signature_is_refused(self) -> None:
        """A version that somebody else signed is never loaded."""
        artifact = baseline_artifact(definition_of(self.model_type), SigningKey.generate(), BUILT_AT)
        with pytest.raises(ArtifactRejectedError):
            opened(artifact)


_trainings: dict[type[ModelConformance], Training] = {}


def trained(kit: type[ModelConformance]) -> Training:
    """Return one training of the kit's model; made once, because it takes the longest."""
    if kit not in _trainings:
        _trainings[kit] = train(definition_of(kit.model_type), kit.snapshot(), seed=kit.seed)
    return _trainings[kit]


def encode_event_of(item: FoldedEvent) -> bytes:
    """Return the bytes of a folded event."""
    return msgspec.json.encode(item.event)


def _aggregate(model_type: ModelType, folded: Sequence[FoldedEvent]) -> DatasetStatistics:
    return definition_of(model_type).dataset.load().aggregate(NewEvents(folded)) or DatasetStatistics()


def _cut(folded: Sequence[FoldedEvent], cuts: Sequence[int]) -> Iterator[Sequence[FoldedEvent]]:
    for start, end in itertools.pairwise([0, *cuts, len(folded)]):
        yield folded[start:end]


def _looked_at(
    events: Sequence[AnyBehavioralEvent],
) -> Iterator[tuple[list[AnyBehavioralEvent], list[dt.datetime]]]:
    """Yield the history of some users, with moments from before its first event to after its last."""
    found = sorted(histories(events).items(), key=lambda item: (-len(item[1]), item[0]))
    step = max(1, len(found) // USERS_LOOKED_AT)
    for _, history in found[::step]:
        times = [event.occurred_at for event in history]
        first, last = min(times) - dt.timedelta(days=1), max(times) + dt.timedelta(days=2)
        yield history, [first + (last - first) * part / MOMENTS_LOOKED_AT for part in range(MOMENTS_LOOKED_AT + 1)]


def _stored(history: Sequence[AnyBehavioralEvent], moment: dt.datetime) -> UserState | None:
    """Return the state as the database would hold it before ``moment``: written and read again after each event."""
    state: UserState | None = None
    for event in itertools.takewhile(lambda event: event.occurred_at < moment, history):
        state = decode_state(encode_state(fold(state, event)))
    return state


def _asked(kit: type[ModelConformance]) -> Iterator[tuple[UserState | None, PredictionRequest]]:
    """Yield an unknown user, and known ones at several moments, with what is asked."""
    newest = max(event.occurred_at for event in kit.events())
    yield None, kit.request(newest)
    for history, moments in _looked_at(kit.events()):
        for moment in (moments[len(moments) // 2], moments[-1], newest + dt.timedelta(days=400)):
            yield _stored(history, moment), kit.request(moment)


def _versions(kit: type[ModelConformance]) -> tuple[ScoringRuntime, ...]:
    return version_zero(definition_of(kit.model_type)), *(each.runtime for each in trained(kit).candidates)


def _of(each: Any) -> tuple[str, str, float]:  # noqa: ANN401 - a Fitted
    return each.candidate.name, each.loaded.digest, each.candidate.validation_score


def _served(answer: Answer, runtime: Runtime) -> dict[str, object]:
    """Return the body as a replica sends it, with who answered."""
    return {
        **answer.body,
        "prediction_id": event_id_from_key("conformance"),
        "model_version": "1.0.0",
        "artifact_digest": runtime.manifest.content_digest,
        "kind": runtime.manifest.kind,
        "state": "known",
    }
