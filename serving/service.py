"""From a query to an answer: the user's state, the leased version, its answer, and the log record of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np

from backends.telemetry.metrics import METRICS
from fincoach_events.events import AwareDatetime
from fincoach_events.identifiers import new_event_id
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.registry import installed
from schemas.messages.deployment import VersionReference
from schemas.messages.predictions import PredictionServed
from schemas.vocabulary import ArtifactKind, ModelType
from serving.errors import RequestError
from serving.user_states import GIVEN, FoundState

if TYPE_CHECKING:
    from backends.clock import Clock
    from serving.prediction_log import PredictionLog
    from serving.registry import LoadedVersion, VersionRegistry
    from serving.user_states import UserStateReader


class PredictionQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller sends: a user, or features (by name, or in the manifest's order), or both.

    With both, the features answer and the user is who the answer is logged for. Answers without a user are not
    logged: no feedback could be joined with them.
    """

    user_id: UUID | None = None
    features: dict[str, float] | list[float] | None = None
    as_of: AwareDatetime | None = None
    goal_id: str | None = None
    goal: dict[str, Any] | None = None


class _Asked(NamedTuple):
    """The query as a runtime gets it."""

    query: PredictionQuery
    found: FoundState
    request: PredictionRequest


class _Served(NamedTuple):
    """What the log record of an answer holds beside the version."""

    prediction_id: UUID
    user_id: UUID
    features: FloatArray
    found: FoundState
    request: PredictionRequest
    answer: Answer
    seconds: float


class PredictionService:
    """Answers predictions."""

    def __init__(
        self,
        registry: VersionRegistry,
        states: UserStateReader,
        prediction_log: PredictionLog,
        *,
        clock: Clock,
        replica_id: str,
    ) -> None:
        self._registry = registry
        self._states = states
        self._log = prediction_log
        self._clock = clock
        self._replica_id = replica_id
        self._seconds = {model: METRICS.serving_request_seconds.labels(model_type=model) for model in installed()}
        self._answered = {
            (model, kind): METRICS.serving_predictions.labels(model_type=model, kind=kind)
            for model in installed()
            for kind in ArtifactKind
        }

    async def predict(self, model_type: ModelType, query: PredictionQuery) -> dict[str, Any]:
        """Return FinCoach's shape with ``prediction_id``, ``model_version``, ``artifact_digest``, ``kind`` and ``state``.

        Raises:
            RequestError: the query cannot be answered; the sentence says why.
        """
        started = time.perf_counter()
        found = await self._found(query)
        request = PredictionRequest(
            as_of=query.as_of or self._clock.now(), goal_id=query.goal_id, goal=query.goal, randomness=randomness()
        )
        version = self._registry.lease(model_type)
        try:
            features = _features(version, _Asked(query, found, request))
            answer = version.runtime.answer(features, request)
        finally:
            version.release()
        prediction_id = new_event_id()
        seconds = time.perf_counter() - started
        self._seconds[model_type].observe(seconds)
        self._answered[model_type, version.reference.kind].inc()
        if query.user_id is not None:
            self._log.offer(
                self._record(version, _Served(prediction_id, query.user_id, features, found, request, answer, seconds))
            )
        return _body(answer, version.reference, prediction_id=prediction_id, found=found)

    async def _found(self, query: PredictionQuery) -> FoundState:
        if query.features is not None:
            return GIVEN
        if query.user_id is None:
            raise RequestError(422, "send user_id (a UUID), or features, or both")
        return await self._states.read(query.user_id)

    def _record(self, version: LoadedVersion, served: _Served) -> PredictionServed:
        reference, manifest, answer = version.reference, version.runtime.manifest, served.answer
        return PredictionServed(
            event_id=served.prediction_id, occurred_at=self._clock.now(), replica_id=self._replica_id, user_id=served.user_id,
            model_type=manifest.model_type, version=reference.version, artifact_digest=reference.artifact_digest, kind=reference.kind,
            as_of=served.request.as_of, reducer_version=manifest.reducer_version, features=tuple(served.features.tolist()),
            answer=answer.body, latency_ms=served.seconds * 1000, state_offset=served.found.offset, action_set=answer.action_set,
            action=answer.action, propensity=answer.propensity, propensities=answer.propensities,
        )  # fmt: skip


def randomness() -> float:
    """Return a uniform number in [0, 1) from the operating system: 53 bits, as many as a double holds."""
    return (int.from_bytes(os.urandom(7)) >> 3) * 2.0**-53


def _features(version: LoadedVersion, asked: _Asked) -> FloatArray:
    if asked.query.features is None:
        return version.runtime.features(asked.found.state, asked.request)
    return given_features(version.runtime.manifest.feature_names, asked.query.features)


def given_features(names: Sequence[str], given: Mapping[str, float] | Sequence[float]) -> FloatArray:
    """Return the row that a caller gave, shape (d,), in the order of ``names``.

    Raises:
        RequestError: names or their number do not fit, or a value is no finite 32-bit number.
    """
    values = _by_name(names, given) if isinstance(given, Mapping) else given
    if len(values) != len(names):
        raise RequestError(422, f"{len(values)} features were sent; this model takes {len(names)}: {', '.join(names)}")
    with np.errstate(over="ignore"):
        row = np.asarray(values, dtype=np.float32)
    if not np.isfinite(row).all():
        position = int(np.flatnonzero(~np.isfinite(row))[0])
        raise RequestError(422, f"feature {names[position]} is no finite 32-bit number")
    return row


def _by_name(names: Sequence[str], given: Mapping[str, float]) -> list[float]:
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        wrong = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise RequestError(422, f"the features do not fit this model; {'; '.join(wrong)}")
    return [given[name] for name in names]


def _body(answer: Answer, reference: VersionReference, *, prediction_id: UUID, found: FoundState) -> dict[str, Any]:
    return {
        **answer.body,
        "prediction_id": prediction_id,
        "model_version": reference.version,
        "artifact_digest": reference.artifact_digest,
        "kind": reference.kind,
        "state": found.availability,
    }
