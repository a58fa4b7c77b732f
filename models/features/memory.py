"""What a state remembers only so that later events can be checked against it. Pure; no feature reads it.

Recommendations are known by the CRC-32 of their id: of some hundred that a user was shown, a wrong answer is taken
for one of them once in thirty million times.
"""

from __future__ import annotations

import zlib

from fincoach_events.events import RecommendationInteraction
from models.features.state import MAX_SHOWN, UserState

# A host may show recommendations under one name; then the prediction tells them apart.
UNNAMED = frozenset({"auto_generated"})
UNKNOWN_VIEW = 0  # something was shown, and nobody can say what
MOST_VOTES = 8  # a user who moves abroad is blamed for so many transactions, then believed


def remember_currency(state: UserState, currency: str) -> None:
    """Count ``currency`` for or against the user's (the majority vote of Boyer and Moore, with a bounded lead)."""
    if currency == state.currency:
        state.currency_votes = min(state.currency_votes + 1, MOST_VOTES)
    elif state.currency_votes:
        state.currency_votes -= 1
    else:
        state.currency, state.currency_votes = currency, 1


def remember_session(state: UserState, session_id: str, at: int) -> None:
    """Move the session on; another session takes its place."""
    session = session_key(session_id)
    if session != state.session:
        state.session, state.session_at = session, at
    elif at > state.session_at:
        state.session_at = at


def remember_view(state: UserState, event: RecommendationInteraction) -> None:
    """Note that a recommendation was shown; one that is shown again stays as it is."""
    key, shown = view_key(event), state.shown
    if key not in shown and -key not in shown:
        shown.append(key)
        if len(shown) > MAX_SHOWN:
            del shown[0]


def remember_answer(state: UserState, event: RecommendationInteraction) -> None:
    """Note that a shown recommendation was answered."""
    key = open_view(state, event)
    if key:
        state.shown[state.shown.index(key)] = -key


def open_view(state: UserState, event: RecommendationInteraction) -> int:
    """Return the key of the view that ``event`` is the first answer to; 0 where there is none."""
    return next((key for key in answer_keys(event) if key in state.shown), 0)


def was_shown(state: UserState, event: RecommendationInteraction) -> bool:
    """Say whether what ``event`` answers may have been shown; views beyond the memory are given the benefit of the doubt."""
    shown = state.shown
    if len(shown) >= MAX_SHOWN or UNKNOWN_VIEW in shown:
        return True
    return any(key in shown or -key in shown for key in answer_keys(event))


def view_key(event: RecommendationInteraction) -> int:
    """Return what a view is remembered by; :data:`UNKNOWN_VIEW` where it has no name of its own."""
    if event.recommendation_id not in UNNAMED:
        return zlib.crc32(event.recommendation_id.encode())
    return zlib.crc32(event.prediction_id.bytes) if event.prediction_id else UNKNOWN_VIEW


def answer_keys(event: RecommendationInteraction) -> tuple[int, ...]:
    """Return what the view that is answered may be remembered by."""
    named = zlib.crc32(event.recommendation_id.encode())
    return (named, zlib.crc32(event.prediction_id.bytes)) if event.prediction_id else (named,)


def session_key(session_id: str) -> int:
    """Return what a session is remembered by."""
    return zlib.crc32(session_id.encode())
