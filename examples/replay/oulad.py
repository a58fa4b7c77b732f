"""OULAD: 19,533 enrolments in modules of the Open University with their outcome, 2013 and 2014 (CC BY 4.0).

Kuzilek, Hlosta, Zdrahal, Scientific Data 4:170171 (2017). An enrolment is a goal. It is created at registration and
updated by each submission (its score). Pass and Distinction achieve it and Fail fails it at the module's end; a
withdrawal fails it at its own date. The set counts days from a module's start; ``STARTS`` has the nominal dates.

Leaks: the date of an outcome reveals it (only withdrawals come early), and a prediction must not use submissions after
its day. Demographic columns are not played.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Literal, NamedTuple

from examples.replay.tables import Row, SortedSource, rows_of
from fincoach_events.events import GoalModified
from stack.replay.settings import ReplaySettings
from stack.replay.source import envelope

STARTS = {
    "2013B": dt.datetime(2013, 2, 1, tzinfo=dt.UTC),
    "2013J": dt.datetime(2013, 10, 1, tzinfo=dt.UTC),
    "2014B": dt.datetime(2014, 2, 1, tzinfo=dt.UTC),
}
# Only the day is known: registrations come in the morning, submissions at noon, outcomes in the evening.
_MORNING = dt.timedelta(0)
_NOON = dt.timedelta(hours=12)
_EVENING = dt.timedelta(hours=23, minutes=59, seconds=59)


class EnrolmentFact(NamedTuple):
    """A registration, a submission or an outcome of one enrolment."""

    occurred_at: dt.datetime
    interaction: Literal["create", "update", "achieve", "fail"]
    goal_id: str
    student: str
    due_at: dt.datetime
    assessment: str | None = None
    score: float | None = None
    is_banked: bool = False


def oulad(settings: ReplaySettings) -> SortedSource[EnrolmentFact]:
    """Return registrations, submissions and outcomes."""
    return SortedSource("oulad", _facts(settings), _goal)


def _facts(settings: ReplaySettings) -> Iterator[EnrolmentFact]:
    lengths = {
        _presentation(row): int(row["module_presentation_length"])
        for row in rows_of(settings.data_file("oulad/courses.csv.gz"))
    }
    registrations = {_goal_id(row): row for row in rows_of(settings.data_file("oulad/registrations.csv.gz"))}
    for row in rows_of(settings.data_file("oulad/enrolments.csv.gz")):
        yield from _enrolment(row, registrations[_goal_id(row)], lengths[_presentation(row)])
    for row in rows_of(settings.data_file("oulad/submissions.csv.gz")):
        yield _submission(row, lengths[_presentation(row)])


def _enrolment(row: Row, registration: Row, length_days: int) -> Iterator[EnrolmentFact]:
    due_at = _day(row, length_days) + _EVENING
    # 33 registrations have no date; they get the start of the module.
    created_at = _day(row, int(registration["date_registration"] or 0)) + _MORNING
    yield EnrolmentFact(created_at, "create", _goal_id(row), row["id_student"], due_at)
    is_achieved = row["final_result"] in {"Pass", "Distinction"}
    ended_at = due_at
    if row["final_result"] == "Withdrawn" and registration["date_unregistration"]:
        ended_at = _day(row, int(registration["date_unregistration"])) + _EVENING
    yield EnrolmentFact(ended_at, "achieve" if is_achieved else "fail", _goal_id(row), row["id_student"], due_at)


def _submission(row: Row, length_days: int) -> EnrolmentFact:
    return EnrolmentFact(
        _day(row, int(row["date_submitted"])) + _NOON,
        "update",
        _goal_id(row),
        row["id_student"],
        _day(row, length_days) + _EVENING,
        assessment=row["id_assessment"],
        score=float(row["score"]) if row["score"] else None,
        is_banked=row["is_banked"] == "True",
    )


def _goal(fact: EnrolmentFact) -> GoalModified:
    step = fact.assessment or ("create" if fact.interaction == "create" else "outcome")
    return GoalModified(
        **envelope("oulad", f"{fact.goal_id}:{step}", user=fact.student, occurred_at=fact.occurred_at),
        goal_id=fact.goal_id,
        interaction_type=fact.interaction,
        goal_kind="course",
        due_at=fact.due_at,
        score=fact.score,
        additional_data={"assessment": fact.assessment, "is_banked": fact.is_banked} if fact.assessment else None,
    )


def _presentation(row: Row) -> tuple[str, str]:
    return row["code_module"], row["code_presentation"]


def _goal_id(row: Row) -> str:
    return f"course:{row['code_module']}:{row['code_presentation']}:{row['id_student']}"


def _day(row: Row, day: int) -> dt.datetime:
    return STARTS[row["code_presentation"]] + dt.timedelta(days=day)
