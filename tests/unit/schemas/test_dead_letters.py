"""The register of reasons for dead letters."""

from __future__ import annotations

import pytest

from schemas.dead_letters import REASONS, Fault, Reason, RetryHelps, explained
from schemas.vocabulary import DeadLetterReason


def test_every_reason_is_in_the_register() -> None:
    """Every reason has an entry."""
    assert list(REASONS) == list(DeadLetterReason)


@pytest.mark.parametrize("reason", REASONS.values(), ids=[str(code) for code in REASONS])
def test_each_entry_is_a_sentence_and_a_next_step(reason: Reason) -> None:
    """Each entry has a meaning and a next step, both whole sentences."""
    assert reason.meaning.endswith(".")
    assert reason.next_step.endswith(".")
    assert (reason.retry_helps == RetryHelps.NEVER) <= (reason.fault == Fault.PRODUCER)


def test_what_is_our_fault_can_be_retried() -> None:
    """Dead letters by our own fault can be retried after an upgrade."""
    ours = {code for code, reason in REASONS.items() if reason.fault == Fault.RECEIVER}
    assert ours == {DeadLetterReason.UNKNOWN_VERSION, DeadLetterReason.REDUCER_ERROR}
    assert all(REASONS[code].retry_helps == RetryHelps.AFTER_UPGRADE for code in ours)


def test_a_reason_of_another_release_is_explained_as_one() -> None:
    """A reason that only another release knows is explained as such."""
    assert explained("not_json") == REASONS[DeadLetterReason.NOT_JSON]
    assert "Another release wrote it" in explained("of_tomorrow").meaning
