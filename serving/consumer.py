"""The edge to Kafka: desired states from the compacted topic, from its beginning, to the followers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.telemetry.logs import get_logger
from schemas import codec
from schemas.topics import MODEL_DEPLOYMENTS
from schemas.vocabulary import ModelType

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from serving.follower import ModelFollower

log = get_logger("serving.consumer")


class DeploymentConsumer:
    """Handles the model-deployments topic: every replica reads all of it, from its beginning."""

    def __init__(self, followers: Mapping[ModelType, ModelFollower]) -> None:
        self._followers = followers

    async def handle(self, record: Record) -> None:
        """Hand one desired state to its follower; tombstones, older states and models that are not here change nothing.

        Raises:
            InvalidMessageError: the record is no desired state.
        """
        if not record.value:
            return
        state = codec.decode(MODEL_DEPLOYMENTS, record.value)
        follower = self._followers.get(state.model_type)
        if follower is not None and follower.desire(state):
            log.info(
                "desired_state_received",
                model_type=state.model_type,
                sequence=state.sequence,
                version=state.active.version,
            )

    async def skip_unreadable(self, record: Record, reason: str, detail: str) -> None:
        """Log a record that is no desired state: the topic is the deployer's, and a replica only reads it."""
        log.warning("desired_state_unreadable", offset=record.offset, reason=reason, detail=detail)
