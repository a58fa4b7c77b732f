"""The register of topics: their messages, producers, consumers and retention.

Topics are created, documented and checked from this register only.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any, Literal

from fincoach_events.events import BEHAVIORAL_EVENTS_TOPIC, EVENT_TYPES
from schemas.messages.alerts import AlertCleared, AlertRaised
from schemas.messages.control import (
    ApproveDataset,
    Command,
    CommandFailed,
    CommandRejected,
    CommandSucceeded,
    DeployModel,
    QuarantineDataset,
    RetryDeadLetters,
    RollBackModel,
    TriggerTraining,
    UpdateThresholds,
)
from schemas.messages.deployment import DeploymentState, ReplicaStatus
from schemas.messages.predictions import PredictionServed
from schemas.messages.progress import PaneClosed
from schemas.messages.training import ModelReady, ThresholdReached, TrainingFailed, TrainingProgressed
from schemas.vocabulary import Service

DAY_SECONDS = 86_400
MIB = 1024 * 1024
# Compression may enlarge a record. One at the topic's limit could then be rejected, and would stop the relay.
SPARE_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One topic. ``wide`` topics have the configured number of partitions, others have one.

    ``generation`` qualifies every stored offset. Raise it when a topic is recreated, so that old offsets are not mistaken
    for new ones.
    """

    name: str
    key: str
    messages: tuple[type[Any], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    retention_seconds: int | None
    wide: bool = False
    cleanup: Literal["delete", "compact"] = "delete"
    max_message_bytes: int = 4 * MIB
    tag_field: Literal["type", "event_type", "none"] = "type"
    generation: int = 1

    @property
    def union(self) -> Any:  # noqa: ANN401 - a typing construct
        """Return the union of the topic's message types, or None for raw bytes."""
        return functools.reduce(operator.or_, self.messages) if self.messages else None

    def partitions(self, wide_partitions: int) -> int:
        """Return how many partitions the topic has if wide topics have ``wide_partitions``."""
        return wide_partitions if self.wide else 1

    def configuration(self) -> dict[str, str]:
        """Return the broker's topic settings."""
        settings = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
        }
        if self.retention_seconds is not None:
            settings["retention.ms"] = str(self.retention_seconds * 1000)
        if self.cleanup == "compact":
            settings |= {"segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"}
        return settings


BEHAVIORAL_EVENTS = Topic(
    name=BEHAVIORAL_EVENTS_TOPIC, key="user_id", messages=EVENT_TYPES, producers=("host",), consumers=(Service.STREAMS,),
    retention_seconds=14 * DAY_SECONDS, wide=True, tag_field="event_type",
)  # fmt: skip
DATASET_PROGRESS = Topic(
    name="fincoach.dataset-progress", key="partition", messages=(PaneClosed,), producers=(Service.STREAMS,), consumers=(Service.STREAMS,),
    retention_seconds=DAY_SECONDS,
)  # fmt: skip
THRESHOLD_REACHED = Topic(
    name="fincoach.threshold-reached", key="model_type", messages=(ThresholdReached,), producers=(Service.STREAMS,),
    consumers=(Service.STREAMS, Service.TRAINERS),
    retention_seconds=30 * DAY_SECONDS,
)  # fmt: skip
TRAINING_PROGRESS = Topic(
    name="fincoach.training-progress", key="training_event_id", messages=(TrainingProgressed,), producers=(Service.TRAINERS,),
    consumers=(Service.ADMIN,), retention_seconds=DAY_SECONDS,
)  # fmt: skip
MODEL_READY = Topic(
    name="fincoach.model-ready", key="model_type", messages=(ModelReady, TrainingFailed), producers=(Service.TRAINERS,), consumers=(Service.DEPLOYER,),
    retention_seconds=30 * DAY_SECONDS,
)  # fmt: skip
MODEL_DEPLOYMENTS = Topic(
    name="fincoach.model-deployments", key="model_type", messages=(DeploymentState,), producers=(Service.DEPLOYER,), consumers=(Service.SERVING,),
    retention_seconds=None, cleanup="compact",
)  # fmt: skip
REPLICA_STATUS = Topic(
    name="fincoach.replica-status", key="replica_id", messages=(ReplicaStatus,), producers=(Service.SERVING,), consumers=(Service.DEPLOYER,),
    retention_seconds=None, cleanup="compact",
)  # fmt: skip
PREDICTIONS = Topic(
    name="fincoach.predictions", key="user_id", messages=(PredictionServed,), producers=(Service.SERVING,), consumers=(Service.STREAMS,),
    retention_seconds=14 * DAY_SECONDS, wide=True,
)  # fmt: skip
CONTROL = Topic(
    name="fincoach.control", key="model_type", messages=(
        TriggerTraining, DeployModel, RollBackModel, UpdateThresholds, RetryDeadLetters, ApproveDataset, QuarantineDataset,
    ), producers=(Service.ADMIN,),
    consumers=(Service.STREAMS, Service.TRAINERS, Service.DEPLOYER), retention_seconds=30 * DAY_SECONDS,
)  # fmt: skip
CONTROL_RESULTS = Topic(
    name="fincoach.control-results", key="command_id", messages=(CommandSucceeded, CommandRejected, CommandFailed),
    producers=(Service.STREAMS, Service.TRAINERS, Service.DEPLOYER), consumers=(Service.ADMIN,), retention_seconds=30 * DAY_SECONDS,
)  # fmt: skip
ALERTS = Topic(
    name="fincoach.alerts", key="subject", messages=(AlertRaised, AlertCleared), producers=(Service.STREAMS, Service.DEPLOYER, Service.SERVING),
    consumers=(Service.ADMIN,), retention_seconds=30 * DAY_SECONDS,
)  # fmt: skip
DEAD_LETTERS = Topic(
    name="fincoach.dead-letters", key="source topic", messages=(), producers=(Service.STREAMS, Service.TRAINERS, Service.DEPLOYER), consumers=(Service.STREAMS,),
    retention_seconds=30 * DAY_SECONDS, max_message_bytes=5 * MIB, tag_field="none",
)  # fmt: skip

TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        BEHAVIORAL_EVENTS, DATASET_PROGRESS, THRESHOLD_REACHED, TRAINING_PROGRESS, MODEL_READY, MODEL_DEPLOYMENTS, REPLICA_STATUS,
        PREDICTIONS, CONTROL, CONTROL_RESULTS, ALERTS, DEAD_LETTERS,
    )
}  # fmt: skip

# Which service executes which command; the deployer also answers unknown commands.
COMMAND_EXECUTORS: dict[type[Command], Service] = {
    TriggerTraining: Service.TRAINERS,
    DeployModel: Service.DEPLOYER,
    RollBackModel: Service.DEPLOYER,
    UpdateThresholds: Service.STREAMS,
    RetryDeadLetters: Service.STREAMS,
    ApproveDataset: Service.STREAMS,
    QuarantineDataset: Service.STREAMS,
}
UNKNOWN_COMMAND_EXECUTOR = Service.DEPLOYER
DEFAULT_WIDE_PARTITIONS = 12
