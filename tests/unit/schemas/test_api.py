"""The API shapes: the host's own fields are enough, ours are checked, and invalid values are rejected."""

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
    """Each shape validates from the host's own fields."""
    shape.model_validate(HOST[shape])


@pytest.mark.parametrize("shape", HOST)
def test_no_field_of_the_hosts_is_lost_in_json(shape: type[BaseModel]) -> None:
    """JSON keeps the host's fields and numbers."""
    document = msgspec.json.decode(shape.model_validate(HOST[shape]).model_dump_json())
    numbers = {name: value for name, value in HOST[shape].items() if isinstance(value, int | float)}
    assert HOST[shape].keys() <= document.keys()
    assert {name: document[name] for name in numbers} == numbers


@pytest.mark.parametrize("shape", HOST)
def test_fields_of_a_newer_side_are_passed_over(shape: type[BaseModel]) -> None:
    """Unknown fields are ignored."""
    shape.model_validate({**HOST[shape], "invented_tomorrow": 1})


@pytest.mark.parametrize("shape", [definition_of(model).answer.load() for model in FOUR_MODELS])
def test_answers_say_who_answered(shape: type[BaseModel]) -> None:
    """Answers name their prediction id and the version that gave them."""
    ours = {"prediction_id": ID, "model_version": "1.0.0", "artifact_digest": DIGEST, "kind": "learned"}
    answer = shape.model_validate({**HOST[shape], **ours})
    assert ours.items() <= answer.model_dump(mode="json").items()


def test_naive_moments_of_the_host_mean_utc() -> None:
    """A moment without a time zone is read as UTC."""
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
    """Impossible values are rejected."""
    with pytest.raises(ValidationError):
        shape.model_validate({**HOST[shape], **change})


@pytest.mark.parametrize("shape", TABLES)
def test_shapes_have_the_columns_of_their_tables(shape: type[BaseModel]) -> None:
    """Each shape has exactly the public columns of its table."""
    columns = {"model_metadata" if column.name == "metadata" else column.name for column in TABLES[shape].columns}
    assert shape.model_fields.keys() == columns - INTERNAL


def test_a_row_of_the_database_is_read_as_it_is() -> None:
    """A database row with decimals and the column metadata validates as it is."""
    row = {**HOST[ModelVersion], "performance_current": Decimal("0.9312"), "metadata": {"samples": 812}}
    version = ModelVersion.model_validate(row)
    assert (version.performance_current, version.model_metadata) == (0.9312, {"samples": 812})


@pytest.mark.parametrize(
    "query", [{"user_id": ID}, {"features": {"savings_rate": 0.2}}, {"features": [0.2], "user_id": ID}]
)
def test_a_query_names_a_user_or_features(query: dict[str, Any]) -> None:
    """A request may name a user, features, or both."""
    PredictRequest.model_validate(query)


@pytest.mark.parametrize(
    "query",
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
def test_a_query_about_nothing_is_refused(query: dict[str, Any]) -> None:
    """A request without user and features, or with an invalid field, is rejected."""
    with pytest.raises(ValidationError):
        PredictRequest.model_validate(query)


def test_the_replica_reads_the_queries_that_the_shape_describes() -> None:
    """Replicas read exactly the fields of the documented request."""
    assert set(PredictRequest.model_fields) == set(PredictionQuery.__struct_fields__)
