"""The error tree of the system. A class's docstring is its default message; facts are attributes."""

from __future__ import annotations


class FinCoachError(Exception):
    """Something went wrong in the learning system."""

    def __init__(self, message: str | None = None, **facts: object) -> None:
        text = message or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(text)
        self.facts = facts


class InvalidMessageError(FinCoachError):
    """A message breaks its contract.

    Attributes:
        reason: code from :class:`schemas.vocabulary.DeadLetterReason`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}", reason=reason)
        self.reason = reason
        self.detail = detail


class RetryLaterError(FinCoachError):
    """A dependency is away for now; back off and try again."""


class DatabaseAwayError(RetryLaterError):
    """The database does not answer for now; back off and try again."""


class LostLeaseError(FinCoachError):
    """Another owner has taken over; this work must be dropped."""


class CommandRejectedError(FinCoachError):
    """A command cannot be carried out; the message says what to do instead."""


class ArtifactRejectedError(FinCoachError):
    """An artifact is corrupted, unsigned or does not do what its manifest claims."""


class SettingsError(FinCoachError):
    """A setting or a part of the machine is missing; the message names it and says how to get it."""
