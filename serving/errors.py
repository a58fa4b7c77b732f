"""Faults of a replica's caller, and missing versions: each a status and a sentence."""

from __future__ import annotations

from schemas.errors import FinCoachError


class RequestError(FinCoachError):
    """A request cannot be answered; the sentence says what to send instead."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence, status=status)
        self.status = status
        self.sentence = sentence


class NotLoadedError(RequestError):
    """No version of the model is loaded yet."""

    def __init__(self, model_type: str) -> None:
        super().__init__(503, f"no version of {model_type} is loaded yet; ask /v2/health/ready and try again")
