"""Which comparisons a run makes, and how large they are."""

from __future__ import annotations

import pytest

from benchmarks.plan import NAMES, plan_for


def test_without_options_everything_is_measured_in_five_rounds() -> None:
    """The published table would lack a comparison, or rest on too few rounds."""
    plan = plan_for()
    assert plan.names == NAMES
    assert plan.rounds == 5


def test_only_keeps_the_order_of_the_table() -> None:
    """The same comparisons would come in another order than in the table of a whole run."""
    plan = plan_for(only=(NAMES[3], NAMES[0]))
    assert plan.names == (NAMES[0], NAMES[3])
    assert plan.wants(NAMES[1], NAMES[3])
    assert not plan.wants(NAMES[1])


def test_a_quick_run_is_smaller_in_every_size() -> None:
    """The check that the benchmark runs would take as long as the benchmark."""
    quick, whole = plan_for(quick=True), plan_for()
    assert quick.rounds < whole.rounds
    assert quick.events < whole.events
    assert quick.http_seconds < whole.http_seconds


def test_an_unknown_comparison_is_answered_with_the_known_ones() -> None:
    """A misspelt name would measure nothing and say nothing."""
    with pytest.raises(ValueError, match="no comparison ingest; there are ingest_vs_naive_faust"):
        plan_for(only=("ingest",))


def test_the_naive_agent_never_runs_out_of_events() -> None:
    """It would wait for events that were never produced."""
    for plan in (plan_for(), plan_for(quick=True)):
        assert plan.naive_events < plan.events
