"""The contract of a trainer: examples from a snapshot, candidates from examples, evidence on the frozen holdout.

A trainer only fits and measures. Which candidate is judged, the gates and the verdict are the same for all models:
candidates are compared on the validation part, the one that is best there is packed, loaded through its runtime
as a replica would load it, and measured once on the holdout beside the champion and the trivial baselines.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from modelkit.interface import Runtime
from modelkit.training.cleaning import LEFT_OUT, Reason
from modelkit.training.validation import Evidence, GatePolicy
from schemas.codec import decode_behavioral_event
from schemas.errors import FinCoachError
from schemas.vocabulary import ModelType

if TYPE_CHECKING:
    from collections.abc import Callable

Examples = TypeVar("Examples")
Float32Array = npt.NDArray[np.float32]

EVENTS_FILE = "events.parquet"
FEEDBACK_FILE = "feedback.parquet"
CLEANING_FILE = "cleaning.json"


class NotEnoughHistoryError(FinCoachError):
    """The snapshot holds too little to fit and judge a candidate; the champion is kept and the message says what is missing."""


class Moments(NamedTuple):
    """Event times of a snapshot: its first and last event, and the first one since the champion's cut (None: all are older)."""

    first: dt.datetime
    last: dt.datetime
    first_new: dt.datetime | None


class UserHistory(NamedTuple):
    """One user's events in the order in which the reducer folded them, and for each whether it came after the champion's cut.

    Features are made of ``events``, as when serving. Labels and the choice of samples look at ``clean``: without what
    cleaning left out, and with repaired amounts; the same list where nothing had to be cleaned.
    """

    user_id: UUID
    events: list[AnyBehavioralEvent]
    is_new: list[bool]
    clean: list[AnyBehavioralEvent]


class Snapshot:
    """A frozen training set: the consented events up to the run's cut, and served predictions with their feedback.

    ``events`` has the columns user_id (16 bytes), occurred_at (UTC, microseconds), event_type, interaction_type, source, generation,
    partition, offset, is_new, payload (the event as JSON), cleaning (the reason for which it is not kept as it is, else null),
    repaired_minor (the amount that labels see in place of an anomalous one), ordered by user_id, generation, partition, offset.
    ``feedback`` has one row for each prediction that chose an action and was seen or answered: prediction_id, user_id, predicted_at,
    version, kind, reducer_version, action_set, action, propensity, propensities, features (as served), shown_at (None:
    answered without a view), responses and responded_at (lists, oldest first), is_new, cleaning (as above); ordered by
    predicted_at, prediction_id.
    """

    def __init__(self, files: Mapping[str, bytes], *, digest: str) -> None:
        self._files = files
        self.digest = digest

    @cached_property
    def events(self) -> pa.Table:
        """Return the table of events."""
        return pq.read_table(pa.BufferReader(self._files[EVENTS_FILE]))

    @cached_property
    def feedback(self) -> pa.Table:
        """Return the table of served recommendations with what came back."""
        return pq.read_table(pa.BufferReader(self._files[FEEDBACK_FILE]))

    @cached_property
    def kept(self) -> pa.Table:
        """Return the events that cleaning did not leave out: samples and labels are chosen by these."""
        return _not_left_out(self.events)

    @cached_property
    def kept_feedback(self) -> pa.Table:
        """Return the served recommendations that cleaning did not leave out."""
        return _not_left_out(self.feedback)

    def users(self, *event_types: str) -> Iterator[UserHistory]:
        """Yield each user's events, oldest first, all of them or those of the given types; users without any are left out."""
        table = self.events
        if event_types:
            table = table.filter(pc.is_in(table["event_type"], pa.array(event_types)))
        if table.num_rows == 0:
            return
        owners = table["user_id"].to_pylist()
        payloads, is_new = table["payload"].to_pylist(), table["is_new"].to_pylist()
        reasons, repaired = table["cleaning"].to_pylist(), table["repaired_minor"].to_pylist()
        start = 0
        for end in range(1, len(owners) + 1):
            if end == len(owners) or owners[end] != owners[start]:
                events = [decode_behavioral_event(payload) for payload in payloads[start:end]]
                cleaned = clean_history(events, reasons[start:end], repaired[start:end])
                yield UserHistory(UUID(bytes=owners[start]), events, is_new[start:end], cleaned)
                start = end

    def among(self, user_ids: Sequence[UUID]) -> Snapshot:
        """Return this snapshot with the events of some users alone: the rest is never decoded."""
        chosen = pa.array([user_id.bytes for user_id in user_ids], pa.binary())
        narrowed = Snapshot(self._files, digest=self.digest)
        narrowed.events = self.events.filter(pc.is_in(self.events["user_id"], chosen))
        return narrowed

    @cached_property
    def moments(self) -> Moments:
        """Return the event times that bound the snapshot.

        Raises:
            NotEnoughHistoryError: when there are no events.
        """
        times = self.kept["occurred_at"]
        if len(times) == 0:
            raise NotEnoughHistoryError("not enough history (no consented events up to the cut)")
        bounds = pc.min_max(times).as_py()
        new = self.kept.filter(self.kept["is_new"])["occurred_at"]
        return Moments(bounds["min"], bounds["max"], pc.min(new).as_py() if len(new) else None)


def _not_left_out(table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["cleaning"], pa.array(LEFT_OUT))))


def clean_history(
    events: list[AnyBehavioralEvent], reasons: Sequence[str | None], repaired: Sequence[int | None]
) -> list[AnyBehavioralEvent]:
    """Return what labels may see of ``events``: ``events`` itself where no reason is given. Pure."""
    if not any(reasons):
        return events
    rows = zip(events, reasons, repaired, strict=True)
    return [_repaired(event, reason, amount) for event, reason, amount in rows if reason not in LEFT_OUT]


def _repaired(event: AnyBehavioralEvent, reason: str | None, amount: int | None) -> AnyBehavioralEvent:
    if not isinstance(event, TransactionCreated):
        return event
    if amount is not None:
        return msgspec.structs.replace(event, amount_minor=amount)
    return msgspec.structs.replace(event, category="other") if reason == Reason.UNKNOWN_CATEGORY else event


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that is served now: its runtime, its digest, and its training checkpoint where the trainers' store has one."""

    runtime: Runtime
    digest: str
    checkpoint: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What a fit is given beside its examples. ``progress(phase, step, steps, loss)`` is cheap: call it each step."""

    seed: int
    progress: Callable[[str, int, int, float | None], None]
    champion: Champion | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One fitted model, ready to be packed.

    Attributes:
        name: what it is called in reports, such as ``residual_lstm``.
        model: the ONNX file, single, without external data; None for a model whose runtime needs none (a bandit).
        feature_names: order of the columns of the model's input; also the runtime's ``features``.
        golden_inputs: (m, d) rows whose outputs are pinned in the artifact; m of 8 to 32.
        expected: (m, outputs) the trained model's own outputs for them; the export must match.
        validation_score: on the validation part; higher is better whatever the metric.
        calibration: what the runtime needs beside the graph (intervals, thresholds): ``calibration.json``.
        parameters: the manifest's small settings of the runtime; ``family`` says what kind of model this is.
        files: the artifact's other files, such as ``parameters.json`` or ``profiles.json``.
        manifest: further fields of the manifest (``action_set``, ``actions``, ``context_schema``, ``propensity_floor``).
        checkpoint: training state by file name (safetensors, JSON); stays in the trainers' store.
        tolerance: largest allowed difference between ``expected`` and the exported model.
    """

    name: str
    model: bytes | None
    feature_names: tuple[str, ...]
    golden_inputs: Float32Array
    expected: Float32Array
    validation_score: float
    calibration: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, bytes] = field(default_factory=dict)
    tolerance: float = 1e-4


class Trainer(Protocol[Examples]):
    """The trainer of one model. Called in this order, once each, in the run's own process; deterministic in (snapshot, seed)."""

    model_type: ModelType
    policy: GatePolicy

    def prepare(self, snapshot: Snapshot, *, seed: int) -> Examples:
        """Return the examples with their time-ordered train, validation and holdout parts.

        Raises:
            NotEnoughHistoryError: with the sentence that becomes the reason of a kept champion.
        """

    def samples(self, examples: Examples) -> int:
        """Return how many examples there are, all parts together."""

    def fit(self, examples: Examples, context: FitContext) -> Sequence[Candidate]:
        """Return candidates fitted on the train part (and refitted on train and validation where that helps); at least one.

        Raises:
            NotEnoughHistoryError: as above.
        """

    def evaluate(self, examples: Examples, *, candidate: Runtime, champion: Runtime | None, seed: int) -> Evidence:
        """Return the rows of candidate, champion and trivial baselines on the holdout.

        ``candidate`` is the packed artifact as a replica would load it. Leave "champion" out of the rows when it cannot
        be compared (another action set, another meaning of the outputs), and say so in a check.
        """
