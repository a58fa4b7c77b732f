"""The API shapes: the host's own fields are enough, ours are checked, and nonsense is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from modelkit.registry import definition_of
from models.goal.answer import GoalAchievementProbability
from models.recommendation.answer import AIRecommendation
from models.segmentation.answer import UserSegmentInfo
from models.spending.answer import SpendingPrediction
from schemas.api import (
    DataQualityMetrics,
    ModelTrainingEvent,
    ModelVersion,
    PredictRequest,
    TrainingDataset,
)
from schemas.tables import data_quality_metrics, model_training_events, model_versions, training_datasets
from serving.service import PredictionQuery
from tests.four_models import FOUR_MODELS

ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
DIGEST = "a" * 64
# As the host application builds them today: its own fields, naive moments that mean UTC.
HOST: dict[type[BaseModel], dict[str, Any]] = {
    UserSegmentInfo: {
        "segment_id": 2,
        "segment_name": "Budget Conscious",
        "confidence": 0.8,
        "characteristics": {"savings_rate": 0.2},
    },
    SpendingPrediction: {
        "user_id": ID,
        "prediction_date": "2026-03-10T12:00:00",
        "total_predicted": 120.5,
        "category_predictions": {"groceries": 80.0},
        "confidence_intervals": {"groceries": [60.0, 100.0]},
    },
    GoalAchievementProbability: {
        "goal_id": ID,
        "probability": 0.4,
        "risk_factors": [{"factor": "spending", "severity": "high"}],
        "improvement_suggestions": ["save 10 a week"],
    },
    AIRecommendation: {
        "action_id": 2,
        "action_type": "budget_suggestion",
        "recommendation": "Set a budget",
        "confidence": 0.6,
        "state_summary": {"current_balance": 10.0},
        "generated_at": "2026-03-10T12:00:00",
    },
    TrainingDataset: {"dataset_type": "goal", "threshold": 50},
    ModelTrainingEvent: {"model_type": "goal", "training_dataset_id": ID, "start_time": "2026-03-10T12:00:00"},
    ModelVersion: {"model_type": "goal", "version": "2.1.3", "model_path": "models/goal", "training_event_id": ID},
    DataQualityMetrics: {"training_dataset_id": ID},
}
TABLES = {
    TrainingDataset: training_datasets,
    ModelTrainingEvent: model_training_events,
    ModelVersion: model_versions,
    DataQualityMetrics: data_quality_metrics,
}
# Columns that hold what no caller of the API may depend on.
INTERNAL = {"accumulated", "parts", "reasons", "snapshot_id", "correlation_id", "seed"}


@pytest.mark.parametrize("shape", HOST)
def test_the_hosts_own_fields_are_enough(shape: type[BaseModel]) -> None:
    """The host application would have to change before it could read or write a shape."""
    shape.model_validate(HOST[shape])


@pytest.mark.parametrize("shape", HOST)
def test_no_field_of_the_hosts_is_lost_in_json(shape: type[BaseModel]) -> None:
    """The host would look for a field that an answer no longer has, or find text where it had a number."""
    document = msgspec.json.decode(shape.model_validate(HOST[shape]).model_dump_json())
    numbers = {name: value for name, value in HOST[shape].items() if isinstance(value, int | float)}
    assert HOST[shape].keys() <= document.keys()
    assert {name: document[name] for name in numbers} == numbers


@pytest.mark.parametrize("shape", HOST)
def test_fields_of_a_newer_side_are_passed_over(shape: type[BaseModel]) -> None:
    """A host with yesterday's shapes would refuse today's answers."""
    shape.model_validate({**HOST[shape], "invented_tomorrow": 1})


@pytest.mark.parametrize("shape", [definition_of(model).answer.load() for model in FOUR_MODELS])
def test_answers_say_who_answered(shape: type[BaseModel]) -> None:
    """Feedback could not be joined with the version that caused it."""
    ours = {"prediction_id": ID, "model_version": "1.0.0", "artifact_digest": DIGEST, "kind": "learned"}
    answer = shape.model_validate({**HOST[shape], **ours})
    assert ours.items() <= answer.model_dump(mode="json").items()


def test_naive_moments_of_the_host_mean_utc() -> None:
    """A host's moment would be read in the time zone of the machine it runs on, or be refused."""
    answer = AIRecommendation.model_validate(HOST[AIRecommendation])
    assert answer.generated_at == dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)


WRONG: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (UserSegmentInfo, {"confidence": 1.2}),
    (UserSegmentInfo, {"segment_id": -1}),
    (SpendingPrediction, {"total_predicted": -1.0}),
    (SpendingPrediction, {"total_predicted": float("nan")}),
    (SpendingPrediction, {"confidence_intervals": {"groceries": [100.0, 60.0]}}),
    (SpendingPrediction, {"confidence_intervals": {"groceries": [60.0]}}),
    (GoalAchievementProbability, {"probability": -0.1}),
    (GoalAchievementProbability, {"goal_id": ""}),
    (AIRecommendation, {"artifact_digest": "not a digest"}),
    (AIRecommendation, {"model_version": "latest"}),
    (TrainingDataset, {"dataset_type": "Weather!"}),
    (TrainingDataset, {"threshold": 0}),
    (TrainingDataset, {"data_count": -1}),
    (TrainingDataset, {"data_quality_score": 1.01}),
    (TrainingDataset, {"is_ready_for_training": True, "threshold_reached": False}),
    (ModelTrainingEvent, {"end_time": "2026-03-10T11:59:59"}),
    (ModelTrainingEvent, {"status": "almost"}),
    (ModelTrainingEvent, {"model_path": "x" * 501}),
    (ModelVersion, {"version": "2.1"}),
    (ModelVersion, {"rollback_count": -1}),
    (ModelVersion, {"performance_current": 100.0}),
    (DataQualityMetrics, {"validity_score": -0.1}),
    (DataQualityMetrics, {"anomaly_count": -1}),
]


@pytest.mark.parametrize(("shape", "change"), WRONG, ids=lambda value: getattr(value, "__name__", None) or str(value))
def test_nonsense_is_refused(shape: type[BaseModel], change: dict[str, Any]) -> None:
    """A value that cannot be true would reach the host, or a column that cannot hold it."""
    with pytest.raises(ValidationError):
        shape.model_validate({**HOST[shape], **change})


@pytest.mark.parametrize("shape", TABLES)
def test_shapes_have_the_columns_of_their_tables(shape: type[BaseModel]) -> None:
    """A column of the plan could not be asked for, or a shape would promise one that does not exist."""
    columns = {"model_metadata" if column.name == "metadata" else column.name for column in TABLES[shape].columns}
    assert shape.model_fields.keys() == columns - INTERNAL


def test_a_row_of_the_database_is_read_as_it_is() -> None:
    """Every reader of the tables would have to convert decimals and the column that is called metadata."""
    row = {**HOST[ModelVersion], "performance_current": Decimal("0.9312"), "metadata": {"samples": 812}}
    version = ModelVersion.model_validate(row)
    assert (version.performance_current, version.model_metadata) == (0.9312, {"samples": 812})


@pytest.mark.parametrize(
    "question", [{"user_id": ID}, {"features": {"savings_rate": 0.2}}, {"features": [0.2], "user_id": ID}]
)
def test_a_question_names_a_user_or_features(question: dict[str, Any]) -> None:
    """A caller could not ask in one of the ways that are promised."""
    PredictRequest.model_validate(question)


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"goal_id": ID},
        {"user_id": "me"},
        {"features": [float("inf")]},
        {"user_id": ID, "unknown": 1},
        {"user_id": ID, "goal_id": ""},
    ],
    ids=str,
)
def test_a_question_about_nothing_is_refused(question: dict[str, Any]) -> None:
    """A misspelt field would silently change the answer."""
    with pytest.raises(ValidationError):
        PredictRequest.model_validate(question)


def test_the_replica_reads_the_questions_that_the_shape_describes() -> None:
    """The documented question and the one that replicas accept would drift apart."""
    assert set(PredictRequest.model_fields) == set(PredictionQuery.__struct_fields__)
