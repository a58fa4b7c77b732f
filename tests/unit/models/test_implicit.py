"""What is done without answering: recorded as what it is, weighed apart, and never an answer."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import AnyBehavioralEvent, PageViewed, RecommendationInteraction
from modelkit.manifest import open_artifact
from modelkit.registry import runtime_for
from models.recommendation.settings import RecommendationTrainingSettings
from models.recommendation.training import TRAINER, RecommendationTrainer
from models.recommendation.training.cql import FitPlan, fit_cql, values_of
from models.recommendation.training.evidence import evidence_of
from models.recommendation.training.implicit import ImplicitSignals, stays_of
from tests.recommendation_factories import WEIGHTS, Row, Workshop, served, snapshot_of


def viewed(
    row: Row, *, seconds: float | None, minutes: float = 1.0, url: str = "/coach", session: str | None = None
) -> list[AnyBehavioralEvent]:
    """Return the view of a recommendation on ``/coach`` in session ``s``, and a page view of the same user beside it."""
    who: dict[str, Any] = {"user_id": UUID(bytes=row["user_id"]), "consent": True}
    name, seen = UUID(bytes=row["prediction_id"]), row["shown_at"]
    return [
        RecommendationInteraction(
            event_id=UUID(int=2 * name.int + 10**6), occurred_at=seen, recommendation_id="r", prediction_id=name, interaction_type="view",
            page_url="/coach", session_id="s", **who,
        ),
        PageViewed(
            event_id=UUID(int=2 * name.int + 10**6 + 1), occurred_at=seen + dt.timedelta(minutes=minutes), page_url=url,
            session_id=session, duration_seconds=seconds, **who,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("named", "seconds"),
    [
        ({"seconds": 30.0}, 30.0), ({"seconds": 30.0, "session": "s"}, 30.0), ({"seconds": None}, None),
        ({"seconds": 30.0, "session": "other"}, None), ({"seconds": 30.0, "url": "/else"}, None), ({"seconds": 30.0, "minutes": 31}, None),
    ],
)  # fmt: skip
def test_time_on_page_is_that_of_the_page_and_visit_where_it_was_seen(
    named: dict[str, Any], seconds: float | None
) -> None:
    """Time counts only on the page, and in the visit, where the recommendation was seen."""
    (row,) = served(1, seed=1)
    assert stays_of(viewed(row, **named)).get(UUID(bytes=row["prediction_id"])) == seconds


def test_an_unanswered_view_is_recorded_as_that_and_never_becomes_an_answer() -> None:
    """An unanswered view is recorded as that, however long it lasts."""
    rows = served(400, seed=1)
    silent = [number for number, row in enumerate(rows) if not row["responses"]]
    events = [event for number in silent[:20] for event in viewed(rows[number], seconds=3_600.0)]
    found = TRAINER.prepare(snapshot_of(rows, events), seed=0).rows
    assert np.flatnonzero(found.unanswered).tolist() == silent
    assert np.flatnonzero(np.isfinite(found.page_seconds)).tolist() == silent[:20]
    assert set(found.log.rewards[silent].tolist()) == {0.0}
    assert not (found.clicked | found.helpful | found.not_helpful)[silent].any()
    assert found.taught[silent[0]] == pytest.approx(0.04)
    assert found.taught[silent[-1]] == pytest.approx(-0.01)
    answered = ~found.unanswered
    assert np.array_equal(found.taught[answered], found.log.rewards[answered])


@given(st.booleans(), st.floats(0, 1e6) | st.just(float("nan")), st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
def test_whatever_is_done_without_answering_weighs_less_than_any_answer(
    is_unanswered: bool, seconds: float, view: float, page: float  # noqa: FBT001 - drawn
) -> None:  # fmt: skip
    """No implicit signal weighs as much as an answer."""
    signals = ImplicitSignals(np.array([is_unanswered]), np.array([seconds]))
    (worth,) = signals.taught({"unanswered_view": view, "time_on_page": page}).tolist()
    assert abs(worth) <= 0.1 < min(abs(weight) for weight in WEIGHTS.values())
    assert is_unanswered or worth == 0.0


@pytest.mark.parametrize("weights", ['{"unanswered_view": -0.5}', '{"scrolled": 0.01}', '{"time_on_page": NaN}'])
def test_implicit_weights_as_heavy_as_answers_are_refused(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    """Implicit weights as heavy as an answer are refused."""
    monkeypatch.setenv("FINCOACH_RECOMMENDATION_IMPLICIT_WEIGHTS", weights)
    with pytest.raises(ValueError, match=r"implicit"):
        RecommendationTrainingSettings()


def test_implicit_signals_teach_a_fit_and_move_no_judgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Implicit signals change what is learned and no judgement."""
    rows, workshop = served(800, seed=6), Workshop(tmp_path)
    monkeypatch.setenv("FINCOACH_RECOMMENDATION_IMPLICIT_WEIGHTS", '{"unanswered_view": -0.1}')
    louder = RecommendationTrainer(RecommendationTrainingSettings())
    quiet, loud = (trainer.prepare(snapshot_of(rows), seed=0) for trainer in (TRAINER, louder))
    champion = runtime_for(open_artifact(workshop.store.get(workshop.champion), workshop.key.trusted()))
    judged = [evidence_of(given, candidate=champion, champion=None, most_effective=500) for given in (quiet, loud)]
    assert {name: row.tolist() for name, row in judged[0].rows.items()} == {name: row.tolist() for name, row in judged[1].rows.items()}  # fmt: skip
    plan = FitPlan(steps=20, learning_rate=1e-3, seed=0)
    values = [values_of(fit_cql(given.train, plan).network, given.rows.features) for given in (quiet, loud)]
    assert float(np.abs(values[0] - values[1]).max()) > 1e-4
    assert judged[0].reports["logged"]["unanswered_views"] > 0.1
