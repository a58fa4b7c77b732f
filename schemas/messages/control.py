"""Administrative commands and their answers. ``model_type`` is plain text, so that an unknown model is answered, not lost."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

import msgspec

from schemas.messages.envelope import AwareDatetime, Message
from schemas.vocabulary import CommandStatus


class Command(Message, frozen=True, kw_only=True):
    """A command, unique by (issuer, event_id). After ``expires_at`` it is rejected."""

    about_a_model: ClassVar[bool] = True

    issuer: str
    expires_at: AwareDatetime
    model_type: str

    @property
    def subject(self) -> str:
        """The subject of its audit entry."""
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
    """Change parts of a model's rule; omitted parts stay as they are.

    ``adaptive``: whether size, season, cost and drift adapt the threshold, between ``least`` and ``most``. ``blackouts``: weekly
    windows in UTC without a training, such as ``Mon 08:00-12:00``; an empty list removes all. ``user_share`` (0..0.5): one
    user's maximum share of a threshold, or ``even_share`` times the even share if larger. 0 unsets ``least``, ``most``,
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
    """Send dead letters to their topics again, with their own key and bytes: those that match all given filters.

    Dead letters that were sent again before are left out, unless ``again`` is set. ``since`` and ``until`` bound their creation
    time. Without any filter ``everything`` must be set. At most ``limit`` records are sent, the oldest first.
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
        """The subject of its audit entry."""
        return "dead letters"


class ApproveDataset(Command, frozen=True, kw_only=True, tag="ApproveDataset"):
    """Release the open data set that waits for its quality; ``epoch`` prevents the approval of the next one by mistake."""

    reason: str
    epoch: int | None = None


class QuarantineDataset(Command, frozen=True, kw_only=True, tag="QuarantineDataset"):
    """Keep a data set and its offsets out of all further training. Without ``epoch`` this is the open data set."""

    reason: str
    epoch: int | None = None


class CommandOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a command: a sentence for people, and facts for programs. Executors return it; the answer carries it."""

    detail: str
    result: dict[str, Any] = msgspec.field(default_factory=dict)
    status: CommandStatus = CommandStatus.SUCCEEDED


class RetryResult(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of RetryDeadLetters: how many records matched, how many were sent again, and why others were left out.

    Records beyond the limit, which the next command can send, count as ``LEFT_WAITING``.
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
    """What is readable of a command with unknown type or fields. The reader creates it to answer the command; no topic has it."""

    command_name: str
