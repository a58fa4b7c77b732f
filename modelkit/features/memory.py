"""What a state remembers only so that later events can be checked against it. Pure; no feature reads it.

Recommendations are known by 32 bits of their id: of some hundred that a user was shown, a wrong answer is taken for one
of them once in ten million times.
"""

from __future__ import annotations

import zlib

from fincoach_events.events import RecommendationInteraction, TransactionCreated
from modelkit.features.state import MAX_SHOWN, UserState

# A host may show recommendations under one name; then the prediction tells them apart.
UNNAMED = frozenset({"auto_generated"})
UNKNOWN_VIEW = 0  # something was shown, and nobody can say what
MOST_BALANCES = 8
_LOW_BITS = (1 << 32) - 1
MOST_VOTES = 8  # a user who moves abroad is blamed for so many transactions, then believed


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
    """Carry every possible balance on by this transaction, whose own balance decides between them or is another one.

    So one wrong balance is one event's fault, and after a missing transaction the chain goes on from where it is. Called
    before the transaction is added to the recent ones; a late one was in the newer balance already.
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
    """Return the balances to which the possible ones lead by ``event``."""
    moved = event.amount_minor if event.transaction_type == "credit" else -event.amount_minor
    return [balance + moved for balance in state.balances]


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
    shown = state.shown
    for key in answer_keys(event):
        if key in shown:
            shown[shown.index(key)] = -key
            return


def is_answered_for_the_first_time(state: UserState, event: RecommendationInteraction) -> bool | None:
    """Say whether ``event`` is the first answer to a view that is remembered; None where no such view can have been.

    Views beyond the memory, and those without a name of their own, are given the benefit of the doubt.
    """
    shown, is_known = state.shown, False
    for key in answer_keys(event):
        if key in shown:
            return True
        is_known = is_known or -key in shown
    return False if is_known or len(shown) >= MAX_SHOWN or UNKNOWN_VIEW in shown else None


def view_key(event: RecommendationInteraction) -> int:
    """Return what a view is remembered by; :data:`UNKNOWN_VIEW` where it has no name of its own."""
    if event.recommendation_id not in UNNAMED:
        return zlib.crc32(event.recommendation_id.encode())
    return event.prediction_id.int & _LOW_BITS if event.prediction_id else UNKNOWN_VIEW


def answer_keys(event: RecommendationInteraction) -> tuple[int, ...]:
    """Return what the view that is answered may be remembered by."""
    named = zlib.crc32(event.recommendation_id.encode())
    return (named,) if event.prediction_id is None else (named, event.prediction_id.int & _LOW_BITS)


def session_key(session_id: str) -> int:
    """Return what a session is remembered by."""
    return zlib.crc32(session_id.encode())
