"""The terms of the system as enumerations, and one value type. Pure."""

from __future__ import annotations

import enum
import re
from typing import Annotated, NamedTuple

import msgspec

# The key of a model in tables, topics, paths and settings. The models themselves are found by entry point
# (modelkit.registry).
LONGEST_MODEL_TYPE = 32
MODEL_TYPE_PATTERN = r"^[a-z][a-z0-9_]*$"
ModelType = Annotated[
    str, msgspec.Meta(min_length=1, max_length=LONGEST_MODEL_TYPE, pattern=r"^[a-z][a-z0-9_]*(?!\n)$")
]


def is_model_type(text: str) -> bool:
    """Return whether ``text`` can be the name of a model."""
    return len(text) <= LONGEST_MODEL_TYPE and re.fullmatch(r"[a-z][a-z0-9_]*", text) is not None


class TrainingStatus(enum.StrEnum):
    """The status of a training (the plan's words)."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    DEPLOYED = "deployed"


class Verdict(enum.StrEnum):
    """How a training ended."""

    CANDIDATE_WINS = "candidate_wins"
    CHAMPION_KEPT = "champion_kept"
    REJECTED = "rejected"
    FAILED = "failed"


class JobStatus(enum.StrEnum):
    """The status of a training job in the queue."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class DeploymentPhase(enum.StrEnum):
    """The phase of a model's deployment."""

    BASELINE = "baseline"
    STABLE = "stable"


class ArtifactKind(enum.StrEnum):
    """Whether a version is learned or the trivial baseline."""

    BASELINE = "baseline"
    LEARNED = "learned"


class QualityDimension(enum.StrEnum):
    """The five dimensions of the quality gate."""

    COMPLETENESS = "completeness"
    CONSISTENCY = "consistency"
    VALIDITY = "validity"
    FRESHNESS = "freshness"
    DIVERSITY = "diversity"


class CommandStatus(enum.StrEnum):
    """How a command ended."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"


class ThresholdDecision(enum.StrEnum):
    """What an evaluation of a data set decided."""

    FIRED = "fired"
    WAITING_FOR_COUNT = "waiting_for_count"
    WAITING_FOR_QUALITY = "waiting_for_quality"
    COOLING_DOWN = "cooling_down"
    IN_BLACKOUT = "in_blackout"
    QUARANTINED = "quarantined"


class DatasetReview(enum.StrEnum):
    """A person's review of a data set: none, it may train in spite of its quality, or it must not train."""

    NONE = "none"
    APPROVED = "approved"
    QUARANTINED = "quarantined"


class DeadLetterReason(enum.StrEnum):
    """Why a message became a dead letter."""

    NOT_JSON = "not_json"
    UNKNOWN_TYPE = "unknown_type"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    UNKNOWN_VERSION = "unknown_version"
    IN_THE_FUTURE = "in_the_future"
    TOO_LARGE = "too_large"
    KEY_MISMATCH = "key_mismatch"
    REDUCER_ERROR = "reducer_error"


class Service(enum.StrEnum):
    """The processes; also the owners of tables, outbox rows and commands."""

    STREAMS = "streams"
    TRAINERS = "trainers"
    DEPLOYER = "deployer"
    SERVING = "serving"
    ADMIN = "admin"


FEEDBACK_INTERACTIONS = frozenset({"click", "dismiss", "implement", "helpful", "not_helpful"})
GOAL_OUTCOMES = frozenset({"achieve", "fail"})


class SemanticVersion(NamedTuple):
    """A version such as 2.1.3, ordered numerically."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> SemanticVersion:
        """Return the version in ``text``.

        Raises:
            ValueError: ``text`` is not three dot-separated numbers.
        """
        match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", text)
        if match is None:
            message = f"not a semantic version such as 2.1.3: {text!r}"
            raise ValueError(message)
        return cls(*(int(part) for part in match.groups()))

    def __str__(self) -> str:
        """Return the dotted form."""
        return f"{self.major}.{self.minor}.{self.patch}"
