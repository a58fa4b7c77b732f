"""The cleaning of one snapshot: its tables with the reason beside each row, and the record of what was decided.

Tables become the columns that the rules of :mod:`modelkit.training.cleaning` look at, and the decisions are recorded. The record is a
file of the snapshot, so its digest names the decisions as well as the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelkit.statistics.transactions import says_nothing
from modelkit.training.cleaning import (
    CLEANING_VERSION,
    RULES,
    AmountLimits,
    Decision,
    FeedbackReasons,
    Reason,
    TransactionColumns,
    feedback_reasons,
    first_reason,
    implausible_times,
    transaction_reasons,
)
from schemas.codec import decode_behavioral_event

if TYPE_CHECKING:
    from fincoach_events.events import RecommendationInteraction, TransactionCreated

IntArray = npt.NDArray[np.int64]
MOST_EXAMPLES = 10
TRANSACTION, INTERACTION, VIEW = "transaction_creation", "recommendation_interaction", "view"


class CleanTables(NamedTuple):
    """Events with the columns ``cleaning`` (reason, null: kept) and ``repaired_minor``, feedback with ``cleaning``, the record."""

    events: pa.Table
    feedback: pa.Table
    record: dict[str, Any]


class _Named(msgspec.Struct):
    event_id: str = ""


_named = msgspec.json.Decoder(_Named)


def clean(events: pa.Table, feedback: pa.Table) -> CleanTables:
    """Decide about every row; ``events`` come in the order of the log within each user."""
    reasons, repaired, limits = _event_reasons(events, served=set(feedback["prediction_id"].to_pylist()))
    decided = _feedback_reasons(feedback)
    answers = first_reason(decided.reasons, rows=feedback.num_rows)
    record = {
        "version": CLEANING_VERSION,
        "events": _counts(reasons),
        "feedback": _counts(answers),
        "reasons": _by_reason(reasons, events) | _by_reason(answers, feedback),
        "limits": {name: _limits(limit) for name, limit in sorted(limits.items())},
        "views_are_reported": decided.views_are_reported,
        "most_recommendations_of_a_user": decided.most_of_a_user,
    }
    columns = {"cleaning": pa.array(reasons, pa.string()), "repaired_minor": repaired}
    return CleanTables(_with(events, columns), _with(feedback, {"cleaning": pa.array(answers, pa.string())}), record)


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record without its examples and sentences: the counts that a training's row shows."""
    reasons = {name: entry["rows"] for name, entry in record["reasons"].items()}
    return {name: record[name] for name in ("version", "events", "feedback")} | {"reasons": reasons}


def _with(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _event_reasons(
    events: pa.Table, *, served: set[bytes]
) -> tuple[list[str | None], pa.Array, dict[str, AmountLimits]]:
    moments = events["occurred_at"].cast(pa.int64()).to_numpy()
    places = np.flatnonzero(pc.equal(events["event_type"], TRANSACTION).to_numpy(zero_copy_only=False))
    transactions, names = _transactions(events.take(pa.array(places)), moments[places])
    found, limits = transaction_reasons(transactions)
    masks = {Reason.IMPLAUSIBLE_TIME: implausible_times(moments), **{name: _spread(mask, places, moments.size) for name, mask in found.items()}}  # fmt: skip
    masks[Reason.ANSWER_TO_NOTHING_SERVED] = _answers_to_nothing(events, served)
    reasons = first_reason(masks, rows=events.num_rows)
    most = {code: limit.repaired_above for code, limit in limits.items()}
    repaired = [
        int(most[flow]) if reasons[place] == Reason.ANOMALOUS_AMOUNT else None
        for place, flow in zip(places.tolist(), transactions.flows.tolist(), strict=True)
    ]
    whole: list[int | None] = [None] * events.num_rows
    for place, amount in zip(places.tolist(), repaired, strict=True):
        whole[place] = amount
    return reasons, pa.array(whole, pa.int64()), {names[code]: limit for code, limit in limits.items()}


def _spread(mask: npt.NDArray[np.bool_], places: IntArray, rows: int) -> npt.NDArray[np.bool_]:
    whole = np.zeros(rows, dtype=np.bool_)
    whole[places] = mask
    return whole


def _transactions(table: pa.Table, moments: IntArray) -> tuple[TransactionColumns, list[str]]:
    """Return the transactions as numbers, and the name of each flow."""
    transactions = [
        cast("TransactionCreated", decode_behavioral_event(payload)) for payload in table["payload"].to_pylist()
    ]
    sources = table["source"].to_pylist()
    flows = [
        f"{source} {one.currency} {one.transaction_type}" for source, one in zip(sources, transactions, strict=True)
    ]
    contents = [f"{flow}\n{one.category}\n{one.merchant}" for flow, one in zip(flows, transactions, strict=True)]
    flow_codes, names = _codes(flows)
    columns = TransactionColumns(
        users=_codes(table["user_id"].to_pylist())[0], moments=moments, flows=flow_codes, contents=_codes(contents)[0],
        amounts=np.array([one.amount_minor for one in transactions], dtype=np.int64),
        is_vague=np.array([says_nothing(one.category) for one in transactions], dtype=np.bool_),
    )  # fmt: skip
    return columns, names


def _codes(values: list[Any]) -> tuple[IntArray, list[Any]]:
    known: dict[Any, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64), list(known)


def _answers_to_nothing(events: pa.Table, served: set[bytes]) -> npt.NDArray[np.bool_]:
    is_answer = pc.and_(pc.equal(events["event_type"], INTERACTION), pc.not_equal(events["interaction_type"], VIEW))
    places = np.flatnonzero(pc.fill_null(is_answer, False).to_numpy(zero_copy_only=False))  # noqa: FBT003 - arrow's own shape
    found = np.zeros(events.num_rows, dtype=np.bool_)
    for place, payload in zip(places.tolist(), events["payload"].take(pa.array(places)).to_pylist(), strict=True):
        name = cast("RecommendationInteraction", decode_behavioral_event(payload)).prediction_id
        found[place] = name is None or name.bytes not in served
    return found


def _feedback_reasons(feedback: pa.Table) -> FeedbackReasons:
    answered = pc.greater(pc.list_value_length(feedback["responses"]), 0)
    return feedback_reasons(
        feedback["user_id"].to_pylist(),
        feedback["prediction_id"].to_pylist(),
        is_seen=feedback["shown_at"].is_valid().to_numpy(zero_copy_only=False),
        is_answered=answered.to_numpy(zero_copy_only=False),
    )


def _counts(reasons: list[str | None]) -> dict[str, int]:
    by_decision = Counter(str(RULES[Reason(reason)].decision if reason else Decision.KEPT) for reason in reasons)
    return {str(decision): by_decision[decision] for decision in Decision}


def _by_reason(reasons: list[str | None], table: pa.Table) -> dict[str, dict[str, Any]]:
    """Return for each reason that concerned a row: its decision, its sentence, how many rows, and some of their names."""
    counts = Counter(reason for reason in reasons if reason)
    return {
        name: {
            "decision": str(RULES[Reason(name)].decision),
            "sentence": RULES[Reason(name)].sentence,
            "rows": count,
            "examples": list(_examples(name, reasons, table)),
        }
        for name, count in sorted(counts.items())
    }


def _examples(name: str, reasons: list[str | None], table: pa.Table) -> Iterator[str]:
    rows = [row for row, reason in enumerate(reasons) if reason == name][:MOST_EXAMPLES]
    if "prediction_id" in table.column_names:
        yield from (str(UUID(bytes=raw)) for raw in table["prediction_id"].take(pa.array(rows)).to_pylist())
    else:
        yield from (_named.decode(raw).event_id for raw in table["payload"].take(pa.array(rows)).to_pylist())


def _limits(limit: AmountLimits) -> dict[str, float | None]:
    return {
        name: value if np.isfinite(value) else None for name, value in limit._asdict().items()
    }  # fmt: skip
