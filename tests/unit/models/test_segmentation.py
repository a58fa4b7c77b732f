"""The segmentation trainer: who is described when, which segments are found and keep their ids, and what the gate asks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from fincoach_events.identifiers import user_id_from_name
from modelkit.interface import PredictionRequest
from modelkit.manifest import Manifest
from modelkit.training.interface import NotEnoughHistoryError
from models.segmentation.features import SEGMENTATION_FEATURES
from models.segmentation.runtime import SEGMENT_NAMES, SegmentationRuntime, SegmentProfile
from models.segmentation.training.clustering import (
    AGE,
    Float32Array,
    choose_centroids,
    continue_centroids,
    distances,
    export_distances,
    fit_centroids,
    overlaps,
    scaled,
    silhouettes,
    space_of,
    stability_of,
)
from models.segmentation.training.examples import HOLDOUT, TRAIN, VALIDATION, is_held_out, segmentation_examples
from models.segmentation.training.profiles import Known, kept_segments, profiles_of
from models.segmentation.training.trainer import NEXT_ID, SegmentationTrainer, _has_collapsed, population_shift
from schemas.vocabulary import ArtifactKind, Verdict
from stack.replay.cdnow import CdnowSource
from stack.replay.source import RawRecord
from tests.training_factories import FIRST_DAY, snapshot_of, transaction
from tests.training_folder import TrainingFolder

# Three ways to shop: every how many days, for how much (minor units).
WAYS = ((3.0, 500), (12.0, 2_500), (6.0, 20_000))


def shoppers(
    *, users: int, days: int = 200, seed: int = 0, ways: Sequence[tuple[float, int]] = WAYS
) -> list[TransactionCreated]:
    """Return purchases of users who join over a year and each shop in one of the ways."""
    generator = np.random.default_rng(seed)
    events = []
    for user in range(users):
        every, amount = ways[user % len(ways)]
        day = float(user) * 300 / users
        while day < 300 + days:
            spent = max(1, round(amount * generator.lognormal(0.0, 0.2)))
            events.append(transaction(f"{seed}-shopper-{user}", day, spent))
            day += every * generator.uniform(0.6, 1.4)
    return sorted(events, key=lambda event: (event.occurred_at, event.event_id))


@pytest.fixture(scope="module")
def blobs() -> Float32Array:
    """Give raw rows of 300 users in three groups that lie apart."""
    generator = np.random.default_rng(0)
    rows = generator.lognormal(1.0, 0.1, (300, len(SEGMENTATION_FEATURES))).astype(np.float32)
    rows[:100, :3] *= 8
    rows[100:200, 3:7] *= 8
    return rows


# --- examples -----------------------------------------------------------------------------------------------


def test_only_users_with_ten_transactions_are_described() -> None:
    """Only users with ten transactions are described."""
    seldom = [transaction(f"seldom-{user}", float(day), 100) for user in range(50) for day in range(9)]
    examples = segmentation_examples(snapshot_of([*shoppers(users=90), *seldom]), seed=0)
    frequency = examples.features[:, SEGMENTATION_FEATURES.index("frequency")]
    assert frequency.min() >= 10
    assert np.unique(examples.users).size == 90


def test_the_fit_knows_nothing_of_what_came_after_its_moment() -> None:
    """A fit knows nothing that came after its moment."""
    events = shoppers(users=90)
    examples = segmentation_examples(snapshot_of(events), seed=0)
    ages = [np.median(examples.of(part).features[:, AGE]) for part in (TRAIN, VALIDATION, HOLDOUT)]
    assert ages == sorted(ages)


def test_nobody_is_judged_on_whom_a_fit_was_made_and_the_same_users_are_held_out_at_every_run() -> None:
    """No user is both fitted on and judged on, and the same users are held out at every run."""
    early, late = (segmentation_examples(snapshot_of(shoppers(users=users)), seed=0) for users in (90, 180))
    for examples in (early, late):
        fitted, judged = (set(examples.of(part).users.tolist()) for part in (TRAIN, HOLDOUT))
        assert not fitted & judged
        assert len(fitted | judged) == np.unique(examples.users).size
    names = [user_id_from_name("test", f"0-shopper-{user}") for user in range(2_000)]
    assert 0.25 < np.mean([is_held_out(name) for name in names]) < 0.35


def test_a_partition_that_lags_behind_does_not_make_its_users_look_asleep() -> None:
    """Users of a lagging partition are described at the end of what is known of their source."""
    events = shoppers(users=120)
    late = FIRST_DAY + dt.timedelta(days=420)
    lagging = [event for event in events if event.user_id.int % 2 == 0 or event.occurred_at < late]
    examples = segmentation_examples(snapshot_of(lagging), seed=0).of(HOLDOUT)
    assert np.quantile(examples.features[:, SEGMENTATION_FEATURES.index("recency_days")], 0.99) < 20


@pytest.mark.parametrize("users", [0, 40])
def test_too_few_users_are_a_sentence(users: int) -> None:
    """Too few users are refused with a sentence that says how many are needed."""
    with pytest.raises(
        NotEnoughHistoryError,
        match=rf"not enough history \({users} users with 10 transactions at the cut, 60 are needed",
    ):
        SegmentationTrainer().prepare(snapshot_of(shoppers(users=users)), seed=0)


# --- clustering ---------------------------------------------------------------------------------------------


def test_groups_that_lie_apart_are_found_and_found_again(blobs: Float32Array) -> None:
    """Groups that lie apart are found, and found again on other draws of users."""
    points = scaled(blobs, space_of(blobs))
    labels = distances(points, fit_centroids(points, 3, seed=0)).argmin(axis=1)
    stable = stability_of(points, labels, segments=3, seed=0)
    truth = np.repeat([0, 1, 2], 100)
    assert overlaps(truth, labels, shape=(3, 3)).max(axis=1).min() > 0.95
    assert stable.rand > 0.8
    assert stable.jaccard.min() > 0.8


def test_noise_is_called_unstable() -> None:
    """Segments of noise are called unstable."""
    noise = np.random.default_rng(1).uniform(-1, 1, (400, 15)).astype(np.float32)
    labels = distances(noise, fit_centroids(noise, 6, seed=0)).argmin(axis=1)
    assert stability_of(noise, labels, segments=6, seed=0).rand < 0.5


def test_the_largest_stable_number_of_segments_is_chosen(blobs: Float32Array) -> None:
    """The largest stable number of segments is chosen."""
    profiles: list[int] = []
    points = scaled(blobs, space_of(blobs))
    choice = choose_centroids(points, seed=0, progress=lambda step, _steps: profiles.append(step))
    assert len(choice.centroids) == 3
    assert sorted(choice.tried) == [3, 4, 5, 6, 7, 8]
    assert profiles == [0, 1, 2, 3, 4, 5]


def test_age_and_constant_columns_do_not_enter(blobs: Float32Array) -> None:
    """Age and constant columns take no part in the distances."""
    rows = blobs.copy()
    rows[:, 0] = 4.0
    space = space_of(rows)
    older, other = rows.copy(), rows.copy()
    older[:, AGE] = 20.0  # within the first month rates do not change either
    other[:, 0] = 99.0
    assert space.inverse_spread[AGE] == space.inverse_spread[0] == 0.0
    np.testing.assert_array_equal(scaled(older, space), scaled(rows, space))
    np.testing.assert_array_equal(scaled(other, space), scaled(rows, space))


@given(st.integers(0, 2**32 - 1))
def test_the_exported_graph_measures_the_same_distances(seed: int) -> None:
    """The exported graph measures the distances that were judged."""
    generator = np.random.default_rng(seed)
    rows = generator.lognormal(0.0, 2.0, (60, len(SEGMENTATION_FEATURES))).astype(np.float32)
    rows[:, 9:] *= generator.random((60, 6)) < 0.1
    space = space_of(rows)
    centroids = scaled(rows[:4], space)
    session = onnxruntime.InferenceSession(export_distances(space, centroids))
    answered = session.run(None, {"features": rows})[0]
    np.testing.assert_allclose(answered, distances(scaled(rows, space), centroids), rtol=1e-4, atol=1e-4)


def test_segments_that_died_out_are_not_continued(blobs: Float32Array) -> None:
    """A segment without members is not continued."""
    points = scaled(blobs, space_of(blobs))
    groups = np.repeat([0, 1, 2], 100)
    with_a_dead_one = np.where(np.arange(300) == 7, 3, groups)
    continued = continue_centroids(points, with_a_dead_one)
    assert continued is not None
    assert len(continued) == 3
    assert continue_centroids(points, np.minimum(groups, 1)) is None


def test_one_segment_for_everybody_has_no_silhouette(blobs: Float32Array) -> None:
    """One segment for everybody has a silhouette of 0."""
    np.testing.assert_array_equal(silhouettes(blobs, np.zeros(300, dtype=np.int64)), np.zeros(300))


# --- identities ---------------------------------------------------------------------------------------------


class LearnedChampion(SegmentationRuntime):
    """A learned version; only its profiles matter."""

    def __init__(self, profiles: list[SegmentProfile]) -> None:
        self.profiles = profiles
        self.manifest = Manifest(
            model_type="segmentation", kind=ArtifactKind.LEARNED, feature_names=SEGMENTATION_FEATURES, reducer_version=1,
            created_at=FIRST_DAY,
        )  # fmt: skip


def profile(segment_id: int, name: str) -> SegmentProfile:
    """Return a profile; only its identity matters."""
    return SegmentProfile(segment_id=segment_id, name=name, share=0.3)


def test_a_segment_keeps_its_id_and_name_while_it_keeps_its_members(blobs: Float32Array) -> None:
    """A segment keeps its id and name while it keeps its members."""
    points = scaled(blobs, space_of(blobs))
    before = np.repeat([0, 1, 2], 100)
    known = Known([profile(7, "Early"), profile(3, "Middle"), profile(9, "Late")], before, 12)
    now = np.repeat([2, 0, 1], 100)  # the same members under other labels
    profiles = profiles_of(blobs, points, now, segments=3, known=known)
    assert [(item.segment_id, item.name) for item in profiles] == [(3, "Middle"), (9, "Late"), (7, "Early")]


def test_an_id_is_never_given_to_another_segment(blobs: Float32Array) -> None:
    """An id is never given to another segment."""
    points = scaled(blobs, space_of(blobs))
    before = np.tile([0, 1, 2], 100)  # across the groups: nothing of it goes on
    known = Known([profile(0, "A"), profile(5, "B"), profile(8, "C")], before, 14)
    profiles = profiles_of(blobs, points, np.repeat([0, 1, 2], 100), segments=3, known=known)
    assert [item.segment_id for item in profiles] == [14, 15, 16]
    assert len({item.name for item in profiles}) == 3


def test_of_a_split_segment_one_part_at_most_keeps_the_id() -> None:
    """At most one part of a split segment keeps the id."""
    known = Known([profile(0, "A"), profile(1, "B")], np.repeat([0, 1], 150), 5)
    kept = kept_segments(np.repeat([0, 1, 2], [110, 40, 150]), 3, known)
    assert {label: item.segment_id for label, item in kept.items()} == {0: 0, 2: 1}


def test_profiles_say_what_sets_a_segment_apart(blobs: Float32Array) -> None:
    """A profile names what sets its segment apart."""
    points = scaled(blobs, space_of(blobs))
    first = profiles_of(blobs, points, np.repeat([0, 1, 2], 100), segments=3, known=None)[0]
    assert set(first.telling) <= {"recency_days", "frequency", "monetary_mean"}
    assert first.share == pytest.approx(1 / 3)
    assert first.medians["frequency"] == pytest.approx(float(np.median(blobs[:100, 1])))


@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6))
def test_unchanged_shares_have_not_drifted(weights: list[float]) -> None:
    """Unchanged shares have not drifted."""
    counts = np.maximum(np.round(np.array(weights) * 1_000), 1).astype(int)
    labels = np.repeat(np.arange(counts.size), counts)
    assert population_shift((counts / counts.sum()).tolist(), labels) == pytest.approx(0.0, abs=1e-9)
    assert population_shift((counts[::-1] / counts.sum()).tolist(), labels) >= 0.0


def test_a_champion_counts_as_collapsed_only_when_chance_cannot_explain_it() -> None:
    """A champion counts as collapsed only when chance cannot explain its smallest segment."""
    profiles = [SegmentProfile(segment_id=0, name="A", share=0.5), SegmentProfile(segment_id=1, name="B", share=0.5)]
    champion = LearnedChampion(profiles)
    assert _has_collapsed(champion, np.zeros(200, dtype=np.int64))
    assert not _has_collapsed(champion, np.zeros(60, dtype=np.int64))
    assert not _has_collapsed(champion, np.repeat([0, 1], [190, 10]))


# --- whole trainings ----------------------------------------------------------------------------------------


def segments_of(training: TrainingFolder) -> dict[int, str]:
    """Return the served segments, names by id."""
    runtime = training.served()
    assert isinstance(runtime, SegmentationRuntime)
    return {item.segment_id: item.name for item in runtime.profiles}


def answer_of(training: TrainingFolder, events: Sequence[AnyBehavioralEvent]) -> dict[str, object]:
    """Return the champion's answer for the first user of ``events``."""
    examples = segmentation_examples(snapshot_of(events), seed=0)
    return training.served().answer(examples.features[-1], PredictionRequest(as_of=FIRST_DAY)).body


def test_a_first_training_replaces_the_bands_and_a_second_on_the_same_data_keeps_it(tmp_path: Path) -> None:
    """A first training replaces the bands, and a second one on the same data keeps it."""
    training = TrainingFolder(tmp_path, "segmentation")
    events = shoppers(users=150)
    first = training.train(events)
    assert first.verdict == Verdict.CANDIDATE_WINS, first.reasons
    assert first.comparison is not None
    assert first.comparison.candidate > (first.comparison.baseline or 0.0) + 0.1
    served = segments_of(training)
    answer = answer_of(training, events)
    assert (answer["segment_id"], answer["segment_name"]) in served.items()
    assert answer["characteristics"]
    again = training.train(events)
    assert again.verdict == Verdict.CHAMPION_KEPT
    assert segments_of(training) == served


def test_new_users_of_the_same_kinds_keep_the_champion(tmp_path: Path) -> None:
    """New users of the same kinds keep the champion: another draw of one population is no better model."""
    training = TrainingFolder(tmp_path, "segmentation")
    training.train(shoppers(users=150))
    served = training.champion
    result = training.train(shoppers(users=180, seed=1))
    assert result.verdict == Verdict.CHAMPION_KEPT, result.reasons
    assert training.champion == served


def test_the_same_snapshot_and_seed_give_the_same_artifact(tmp_path: Path) -> None:
    """The same snapshot and seed give the same artifact."""
    events = shoppers(users=120)
    artifacts = []
    for name in ("one", "other"):
        training = TrainingFolder(tmp_path / name, "segmentation")
        training.train(events)
        artifacts.append(training.served().manifest.files)
    for part in ("model.onnx", "profiles.json", "golden.json"):
        assert artifacts[0][part] == artifacts[1][part]


def test_real_customers_get_segments_that_beat_the_bands_and_keep_their_ids(tmp_path: Path) -> None:
    """CDNOW's customers get segments that beat the bands and keep their ids."""
    training = TrainingFolder(tmp_path, "segmentation")
    events = [item for item in CdnowSource(customers=6_000).events() if not isinstance(item, RawRecord)]
    early = [event for event in events if event.occurred_at < dt.datetime(1998, 3, 1, tzinfo=dt.UTC)]
    first = training.train(early)
    assert first.comparison is not None
    assert first.comparison.candidate > (first.comparison.baseline or 0.0) + 0.05
    assert first.verdict == Verdict.CANDIDATE_WINS, first.reasons
    manifest = training.served().manifest
    ids = set(segments_of(training))
    assert ids <= set(range(manifest.parameters[NEXT_ID]))
    second = training.train(events)
    assert second.numbers["reports"]["migration"]
    new = set(segments_of(training)) - ids
    assert all(segment >= manifest.parameters[NEXT_ID] for segment in new)
    assert len(SEGMENT_NAMES) <= manifest.parameters[NEXT_ID]
