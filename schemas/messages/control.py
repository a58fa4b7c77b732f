"""Administrative commands and their answers. ``model_type`` is plain text so that a wrong one is answered, not lost."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

import msgspec

from schemas.messages.envelope import AwareDatetime, Message
from schemas.vocabulary import CommandStatus


class Command(Message, frozen=True, kw_only=True):
    """An order, unique by (issuer, event_id). After ``expires_at`` it is rejected instead of carried out."""

    about_a_model: ClassVar[bool] = True

    issuer: str
    expires_at: AwareDatetime
    model_type: str

    @property
    def subject(self) -> str:
        """What the audit log says it is about."""
        return self.model_type


class TriggerTraining(Command, frozen=True, kw_only=True, tag="TriggerTraining"):
    """Train now, on all data since the champion's cut, whatever the threshold says."""

    reason: str = "by command"


class DeployModel(Command, frozen=True, kw_only=True, tag="DeployModel"):
    """Serve the given known version (a roll-forward is a deployment of a later version)."""

    version: str


class RollBackModel(Command, frozen=True, kw_only=True, tag="RollBackModel"):
    """Serve the previous version again."""

    reason: str = "by command"


class UpdateThresholds(Command, frozen=True, kw_only=True, tag="UpdateThresholds"):
    """Change parts of a model's rule; what is not given stays.

    ``adaptive``: whether size, season, cost and drift move the threshold, between ``least`` and ``most``. ``blackouts``: weekly
    windows in UTC without a training, such as ``Mon 08:00-12:00``; an empty list takes all away. ``user_share`` (0..0.5): one
    user's part of a threshold, or ``even_share`` times the even share where that is more. 0 unsets ``least``, ``most``,
    ``max_age_seconds`` and ``reference_cost_seconds``.
    """

    threshold: int | None = None
    quality_gate: float | None = None
    cool_down_seconds: int | None = None
    adaptive: bool | None = None
    least: int | None = None
    most: int | None = None
    max_age_seconds: int | None = None
    blackouts: tuple[str, ...] | None = None
    user_share: float | None = None
    even_share: float | None = None
    reference_cost_seconds: float | None = None


class RetryDeadLetters(Command, frozen=True, kw_only=True, tag="RetryDeadLetters"):
    """Send records that were put aside to their topics again, with their own key and bytes: those that fulfil all that is given.

    What was sent again before is left out, but for ``again``; ``since`` and ``until`` are times of putting aside;
    ``everything`` must be said where nothing else is. At most ``limit`` records, the oldest first.
    """

    about_a_model: ClassVar[bool] = False

    model_type: str = ""
    ids: tuple[int, ...] = ()
    reason: str | None = None
    topic: str | None = None
    producer: str | None = None
    partition: int | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    everything: bool = False
    again: bool = False
    limit: int = 1_000

    @property
    def subject(self) -> str:
        """What the audit log says it is about."""
        return "dead letters"


class ApproveDataset(Command, frozen=True, kw_only=True, tag="ApproveDataset"):
    """Release the open data set that waits for its quality; ``epoch`` guards against approving the next one by mistake."""

    reason: str
    epoch: int | None = None


class QuarantineDataset(Command, frozen=True, kw_only=True, tag="QuarantineDataset"):
    """Let a data set, the open one where no ``epoch`` is given, reach no further training: itself and its offsets in any other."""

    reason: str
    epoch: int | None = None


class CommandOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a command: a sentence for people, and facts for programs. Executors return it; the answer carries it."""

    detail: str
    result: dict[str, Any] = msgspec.field(default_factory=dict)
    status: CommandStatus = CommandStatus.SUCCEEDED


class RetryResult(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of RetryDeadLetters: how many records were sent again, how many were meant, and why the others were left out.

    Those that only wait for the next command are left out as ``LEFT_WAITING``.
    """

    LEFT_WAITING: ClassVar[str] = "waiting"

    sent_again: int
    matched: int
    left_out: dict[str, int]


class CommandResult(Message, frozen=True, kw_only=True):
    """An answer on control-results; key and ``command_id`` are the command's ``event_id``."""

    command_id: UUID
    command_type: str
    issuer: str
    executor: str
    detail: str
    result: dict[str, Any] = msgspec.field(default_factory=dict)


class CommandSucceeded(CommandResult, frozen=True, kw_only=True, tag="CommandSucceeded"):
    """The command took effect; the audit log holds it in the same transaction."""


class CommandRejected(CommandResult, frozen=True, kw_only=True, tag="CommandRejected"):
    """The command was refused; ``detail`` says what to do instead."""


class CommandFailed(CommandResult, frozen=True, kw_only=True, tag="CommandFailed"):
    """The command was accepted but could not be finished."""


class UnreadableCommand(Command, frozen=True, kw_only=True, tag="UnreadableCommand"):
    """What can be read of a command whose type or fields nobody knows; made by the reader, so that it can be answered. On no topic."""

    command_name: str
