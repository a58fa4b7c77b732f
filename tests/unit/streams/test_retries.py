"""The answer of a retry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.database.repositories.dead_letters import RetryFate
from streams.batches.retries import left_out, sentence

FATES = ("retry", "resolved", "failed again", "tried too often", "too large to send", "sent again")
fates = st.lists(
    st.builds(RetryFate, st.sampled_from(FATES), st.sampled_from(["not_json", "unknown_version"]), st.integers(1, 100))
)


@given(fates, st.integers(0, 50))
def test_every_dead_letter_was_sent_or_left_out_for_a_cause(found: list[RetryFate], limit: int) -> None:
    """Every matching dead letter was sent or left out for a cause."""
    sent = min(limit, sum(fate.letters for fate in found if fate.fate == "retry"))
    matched = sum(fate.letters for fate in found)
    assert sent + sum(left_out(found, sent).values()) == matched
    assert sentence(found, sent).startswith(f"{sent} of {matched} dead letters sent again")


def test_the_sentence_names_each_cause() -> None:
    """The sentence names each cause with its number."""
    found = [
        RetryFate("retry", "not_json", 5),
        RetryFate("resolved", "not_json", 2),
        RetryFate("resolved", "too_large", 1),
    ]
    assert sentence(found, 4) == "4 of 8 dead letters sent again; left out: 3 resolved, 1 waiting"
    assert sentence(found[:1], 5) == "5 of 5 dead letters sent again"
