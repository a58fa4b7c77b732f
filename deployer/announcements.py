"""The deployer's messages, put into the outbox of a transaction."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import UUID

from backends.telemetry.metrics import METRICS
from fincoach_events.identifiers import new_event_id
from schemas.messages.alerts import AlertRaised
from schemas.messages.deployment import DeploymentState
from schemas.topics import ALERTS, MODEL_DEPLOYMENTS
from schemas.vocabulary import Service

if TYPE_CHECKING:
    from backends.database.repositories.deployment import DesiredRow
    from backends.database.unit_of_work import UnitOfWork


def desired_state(row: DesiredRow, *, now: dt.datetime, correlation_id: UUID | None = None) -> DeploymentState:
    """Return the message that says what replicas must serve."""
    return DeploymentState(
        event_id=new_event_id(), occurred_at=now, correlation_id=correlation_id, model_type=row.model_type, sequence=row.sequence,
        phase=row.phase, active=row.active.reference, previous=row.previous.reference if row.previous is not None else None,
    )  # fmt: skip


async def announce(work: UnitOfWork, state: DeploymentState) -> None:
    """Publish ``state`` if and only if ``work`` commits."""
    await work.publish(MODEL_DEPLOYMENTS, state.model_type, state)
    METRICS.deployer_sequence.labels(model_type=state.model_type).set(state.sequence)


async def alert(
    work: UnitOfWork, *, name: str, subject: str, detail: str, now: dt.datetime, facts: dict[str, Any]
) -> None:
    """Raise an alert if and only if ``work`` commits."""
    await work.publish(ALERTS, subject, alert_raised(name=name, subject=subject, detail=detail, now=now, facts=facts))


def alert_raised(*, name: str, subject: str, detail: str, now: dt.datetime, facts: dict[str, Any]) -> AlertRaised:
    """Return an alert of this service."""
    return AlertRaised(
        event_id=new_event_id(),
        occurred_at=now,
        name=name,
        subject=subject,
        service=Service.DEPLOYER,
        detail=detail,
        facts=facts,
    )
