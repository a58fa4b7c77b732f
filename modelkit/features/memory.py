"""What a state remembers only so that later events can be checked against it. Pure; no feature reads it.

Recommendations are known by 32 bits of their id: among some hundred that a user was shown, a foreign id matches one
once in ten million times.
"""

from __future__ import annotations

import zlib

from fincoach_events.events import RecommendationInteraction, TransactionCreated
from modelkit.features.state import MAX_SHOWN, UserState

# A host may show recommendations under one name; then the prediction's id tells them apart.
UNNAMED = frozenset({"auto_generated"})
UNKNOWN_VIEW = 0  # something unidentified was shown
MOST_BALANCES = 8
_LOW_BITS = (1 << 32) - 1
MOST_VOTES = 8  # a user who moves abroad is doubted for this many transactions, then believed


def remember_currency(state: UserState, currency: str) -> None:
    """Count ``currency`` for or against the user's (the majority vote of Boyer and Moore, with a bounded lead)."""
    if currency == state.currency:
        if state.currency_votes < MOST_VOTES:
            state.currency_votes += 1
    elif state.currency_votes:
        state.currency_votes -= 1
    else:
        state.currency, state.currency_votes = currency, 1


def remember_balance(state: UserState, event: TransactionCreated, at: int) -> None:
    """Update every possible balance by this transaction; its own balance selects one of them or is added.

    So one wrong balance counts once, and after a missing transaction the chain goes on from where it is. Call it before
    the transaction is added to the recent ones; a late one was in the newer balance already.
    """
    balance, balances = event.balance_after_minor, state.balances
    if (balance is None and not balances) or (state.recent and at < state.recent[-1][0]):
        return
    following = balances_after(state, event)
    if balance is None:
        state.balances = following
    else:
        state.balances = [balance] if balance in following else [*following, balance][-MOST_BALANCES:]


def balances_after(state: UserState, event: TransactionCreated) -> list[int]:
    """Return what the possible balances become by ``event``."""
    moved = event.amount_minor if event.transaction_type == "credit" else -event.amount_minor
    return [balance + moved for balance in state.balances]


def remember_session(state: UserState, session_id: str, at: int) -> None:
    """Update the session's moment; another session replaces it."""
    session = session_key(session_id)
    if session != state.session:
        state.session, state.session_at = session, at
    elif at > state.session_at:
        state.session_at = at


def remember_view(state: UserState, event: RecommendationInteraction) -> None:
    """Record that a recommendation was shown; showing it again changes nothing."""
    key, shown = view_key(event), state.shown
    if key not in shown and -key not in shown:
        shown.append(key)
        if len(shown) > MAX_SHOWN:
            del shown[0]


def remember_answer(state: UserState, event: RecommendationInteraction) -> None:
    """Record that a shown recommendation was answered."""
    shown = state.shown
    for key in answer_keys(event):
        if key in shown:
            shown[shown.index(key)] = -key
            return


def is_answered_for_the_first_time(state: UserState, event: RecommendationInteraction) -> bool | None:
    """Say whether ``event`` is the first answer to a remembered view; None where there was no such view.

    A view that may have left the memory, or had no name of its own, counts as answered before.
    """
    shown, is_known = state.shown, False
    for key in answer_keys(event):
        if key in shown:
            return True
        is_known = is_known or -key in shown
    return False if is_known or len(shown) >= MAX_SHOWN or UNKNOWN_VIEW in shown else None


def view_key(event: RecommendationInteraction) -> int:
    """Return the key of a view; :data:`UNKNOWN_VIEW` where it has no name of its own."""
    if event.recommendation_id not in UNNAMED:
        return zlib.crc32(event.recommendation_id.encode())
    return event.prediction_id.int & _LOW_BITS if event.prediction_id else UNKNOWN_VIEW


def answer_keys(event: RecommendationInteraction) -> tuple[int, ...]:
    """Return the possible keys of the answered view."""
    named = zlib.crc32(event.recommendation_id.encode())
    return (named,) if event.prediction_id is None else (named, event.prediction_id.int & _LOW_BITS)


def session_key(session_id: str) -> int:
    """Return the key of a session."""
    return zlib.crc32(session_id.encode())
