"""The messages between parent and child: one order in, then progress and one result out, each a JSON line. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.messages.training import MetricComparison
from schemas.vocabulary import ModelType, Verdict


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to do. Addresses are of the store at ``store_url``; the child needs neither database nor broker."""

    model_type: ModelType
    run_id: str
    snapshot: str
    seed: int
    store_url: str
    keys_folder: str
    cpu_seconds: int
    parent_pid: int
    niceness: int = 0
    champion: str | None = None
    champion_checkpoint: str | None = None


class WorkProgressed(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """``step`` of ``steps`` in a phase."""

    phase: str
    step: int
    steps: int
    loss: float | None = None
    eta_seconds: float | None = None


class WorkResult(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """How it ended. ``artifact`` is the candidate's address, ``checkpoint`` that of its training state; both only when it won."""

    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: dict[str, Any]
    samples: int = 0
    comparison: MetricComparison | None = None
    artifact: str | None = None
    checkpoint: str | None = None


class WorkFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The child came to no verdict because of an error."""

    error: str


WorkMessage = WorkProgressed | WorkResult | WorkFailed
message_of = msgspec.json.Decoder(WorkMessage)
order_of = msgspec.json.Decoder(WorkOrder)


def line_of(message: msgspec.Struct) -> bytes:
    """Return one line for the pipe."""
    return msgspec.json.encode(message) + b"\n"
