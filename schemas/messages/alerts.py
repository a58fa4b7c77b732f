"""Alerts: a condition needs a person's attention, or no longer does."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.messages.envelope import Message


class Alert(Message, frozen=True, kw_only=True):
    """``name`` identifies the condition, ``subject`` the model, partition or producer that it concerns."""

    name: str
    subject: str
    service: str
    detail: str
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class AlertRaised(Alert, frozen=True, kw_only=True, tag="AlertRaised"):
    """The condition holds."""


class AlertCleared(Alert, frozen=True, kw_only=True, tag="AlertCleared"):
    """The condition is over."""
