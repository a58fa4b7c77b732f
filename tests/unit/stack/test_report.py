"""The demo's report: its promises, its tables, and its JSON."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

import msgspec
import pytest
from rich.console import Console

from backends.database.repositories.recount import EventRecount, Evidence, ModelRecount, PromotionLatency, TracedChain
from stack.report import (
    DemoReport,
    Promise,
    balance,
    event_figures,
    model_figures,
    prediction_figures,
    print_report,
    served_seconds,
)
from stack.simulation.replica_client import PredictionTally

# A run in which 100 events were sent, 5 of them twice, and 3 records that are invalid.
RECOUNT = EventRecount(
    archived=100,
    distinct_archived=100,
    counted=100,
    delivered=108,
    pane_records=108,
    duplicates=5,
    dead_lettered=3,
    pane_dead_lettered=3,
    holes=0,
)
# What must be in the JSON; `*` stands for any key.
PROMISED_KEYS: dict[str, Any] = {
    "events": {"produced": None, "archived": None, "counted": None, "duplicates": None, "dead_lettered": None},
    "balanced": None,
    "models": {
        "*": dict.fromkeys(
            (
                "crossings",
                "trainings",
                "deployed",
                "kept_champion",
                "rejected",
                "version",
                "score",
                "baseline_score",
                "metric",
            )
        )
    },
    "replicas": {"*": {"*": None}},
    "predictions": dict.fromkeys(("total", "failed", "learned", "baseline", "p50_ms", "p99_ms", "p99_ms_during_swaps")),
    "swaps": None,
    "crossing_to_served_seconds": {"p50": None, "max": None},
    "seconds": None,
}  # fmt: skip
MODEL_ROW = ModelRecount(
    model_type="goal",
    crossings=3,
    trainings=3,
    deployed=1,
    kept_champion=1,
    failed=0,
    rejected=1,
    version="1.0.0",
    kind="learned",
)
CHAIN = TracedChain(
    prediction_id=UUID(int=1),
    answered_by="0.0.0",
    action=3,
    propensity=0.2,
    feedback="click",
    feedback_event_id=UUID(int=2),
    partition=1,
    offset=7,
    epochs=[1],
    snapshot_digest="abcdef0123456789",
    training_event_id=UUID(int=3),
    new_version="1.0.0",
    verdict="candidate_wins",
)


def evidence(**comparison: object) -> dict[str, Evidence]:
    """Return the evidence of a training of the goal model."""
    metrics = {"comparison": comparison}
    return {"goal": Evidence(model_type="goal", verdict=None, performance_metrics=metrics, reasons=None)}


def latency(seconds: float) -> PromotionLatency:
    """Return the way of one version from its crossing to the last replica."""
    return PromotionLatency(model_type="goal", version="1.0.0", seconds=seconds)


def tally() -> PredictionTally:
    """Return four answered requests, one of them slow."""
    return PredictionTally(
        total=4, learned=3, baseline=1, latencies_ms=[1.0, 2.0, 3.0, 40.0], moments=[10.0, 20.0, 30.0, 40.0]
    )


def report(**changes: object) -> DemoReport:
    """Return a report in which everything holds, with changes."""
    fields: dict[str, Any] = {
        "events": event_figures(100, RECOUNT),
        "balanced": True,
        "models": model_figures([MODEL_ROW], evidence(candidate=0.75, baseline=0.5, metric="auc")),
        "replicas": {"replica-1": {"goal": "1.0.0"}, "replica-2": {"goal": "1.0.0"}},
        "predictions": prediction_figures(tally(), [40.2]),
        "swaps": 4,
        "crossing_to_served_seconds": {"p50": 5.5, "max": 9.0},
        "seconds": 83.2,
        "chain": CHAIN,
        "notes": ("a note with [/brackets]",),
        "promises": (Promise(name="events balance", holds=True, detail="all [/of] them"),),
        **changes,
    }
    return DemoReport(**fields)


def printed(what: DemoReport) -> str:
    """Return the printed report."""
    console = Console(file=io.StringIO(), width=300)
    print_report(what, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def missing(promised: Any, found: Any, where: str = "") -> list[str]:  # noqa: ANN401 - any JSON
    """Return the promised keys that a document lacks."""
    if promised is None:
        return []
    names = list(found) if "*" in promised else list(promised)
    assert names, f"{where} is empty, so nothing in it was checked"
    absent = [f"{where}/{name}" for name in names if name not in found]
    present = [name for name in names if name in found]
    return absent + [
        key
        for name in present
        for key in missing(promised.get(name, promised.get("*")), found[name], f"{where}/{name}")
    ]


def test_a_balanced_run_holds_and_shows_its_figures() -> None:
    """A balanced run holds, and the promise shows all figures."""
    promise = balance(108, 100, RECOUNT)
    assert promise.holds
    assert "100 distinct valid events in the journal, 100 archived" in promise.detail
    assert "100 archived + 5 duplicates + 3 dead letters = 108" in promise.detail


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"archived": 99, "counted": 99, "duplicates": 6}, "100 distinct valid events in the journal, 99 archived"),
        ({"distinct_archived": 99}, "100 distinct valid events in the journal"),
        ({"counted": 101}, "100 archived, 101 counted in panes"),
        ({"delivered": 107}, "108 acknowledged by the broker, 107 in the ledger"),
        ({"pane_records": 109, "duplicates": 6}, "108 in the ledger, 109 in panes"),
        ({"duplicates": 4}, "100 archived + 4 duplicates + 3 dead letters = 108"),
        ({"dead_lettered": 4}, "100 archived + 5 duplicates + 4 dead letters = 108"),
        ({"holes": 1}, "1 gaps between panes"),
    ],
)
def test_each_equation_that_fails_is_named(changed: dict[str, int], sentence: str) -> None:
    """Each balance equation that fails is named."""
    promise = balance(108, 100, msgspec.structs.replace(RECOUNT, **changed))
    assert not promise.holds
    assert sentence in promise.detail
    assert "0 gaps" not in promise.detail  # what holds is left out


@pytest.mark.parametrize("changes", [{"acknowledged": 109}, {"distinct": 101}])
def test_the_journal_is_compared_with_the_database(changes: dict[str, int]) -> None:
    """The counts of the producers' journal must match those of the database."""
    assert not balance(changes.get("acknowledged", 108), changes.get("distinct", 100), RECOUNT).holds


def test_the_json_has_every_promised_key() -> None:
    """The JSON of the report has every promised key."""
    document = msgspec.json.decode(msgspec.json.encode(report(), enc_hook=str))
    assert missing(PROMISED_KEYS, document) == []
    assert document["models"]["goal"]["metric"] == "auc"
    assert document["events"] == {
        "produced": 100,
        "archived": 100,
        "counted": 100,
        "duplicates": 5,
        "dead_lettered": 3,
    }


def test_the_check_above_sees_a_missing_key() -> None:
    """The check of the keys finds a missing one."""
    document = msgspec.json.decode(msgspec.json.encode(report(), enc_hook=str))
    del document["models"]["goal"]["score"], document["swaps"]
    assert missing(PROMISED_KEYS, document) == ["/swaps", "/models/goal/score"]


@pytest.mark.parametrize("row", [{}, evidence()])
def test_a_model_without_evidence_has_no_score(row: dict[str, Evidence]) -> None:
    """A model without evidence is reported without a score."""
    figures = model_figures([MODEL_ROW], row)["goal"]
    assert (figures.score, figures.baseline_score, figures.metric) == (None, None, None)
    assert (figures.trainings, figures.deployed, figures.kept_champion, figures.rejected) == (3, 1, 1, 1)


def test_latencies_around_swaps_are_separate() -> None:
    """Latencies around swaps are reported separately from those of all requests."""
    figures = prediction_figures(tally(), [40.2])
    assert (figures.p50_ms, figures.p99_ms_during_swaps) == (2.5, 40.0)
    assert figures.p99_ms is not None
    assert 2.5 < figures.p99_ms < 40.0
    assert prediction_figures(tally(), []).p99_ms_during_swaps is None
    assert prediction_figures(PredictionTally(), [1.0]).p50_ms is None


def test_the_way_from_a_crossing_to_the_last_replica_is_median_and_worst() -> None:
    """The time from a crossing to the last replica is reported as median and longest."""
    assert served_seconds([latency(4.0), latency(10.0), latency(5.123)]) == {"p50": 5.12, "max": 10.0}
    assert served_seconds([]) == {"p50": None, "max": None}


def test_everything_holds_only_when_every_promise_does() -> None:
    """A report holds only if every promise does, and names those that fail."""
    broken = Promise(name="no failed prediction", holds=False, detail="1 of 900")
    whole, failed = report(), report(promises=(*report().promises, broken))
    assert whole.holds
    assert not failed.holds
    assert "Everything holds, after 0:01:23." in printed(whole)
    assert "FAILS  no failed prediction: 1 of 900" in printed(failed)
    assert "Not everything holds" in printed(failed)


def test_people_see_the_same_figures_and_the_traced_chain() -> None:
    """The printed report shows the figures of the JSON and the traced chain; brackets in notes are escaped."""
    text = printed(report())
    assert "100 produced, 100 archived, 100 counted, 5 duplicates, 3 dead letters" in text
    assert "4 asked, 0 failed, 75% by learned versions, 25% by baselines" in text
    assert "0.7500" in text
    assert f"prediction {UUID(int=1)} (version 0.0.0, action 3, propensity 0.200)" in text
    assert "→ snapshot abcdef012345 of training" in text
    assert "version 1.0.0" in text
    assert "a note with [/brackets]" in text
    assert "holds  events balance: all [/of] them" in text


def test_a_run_with_little_to_show_is_printed_too() -> None:
    """A run with little evidence is printed and says what is missing."""
    kept = msgspec.structs.replace(CHAIN, new_version=None, verdict="champion_kept")
    assert "version none (champion_kept)" in printed(report(chain=kept))
    empty = printed(
        report(chain=None, predictions=prediction_figures(PredictionTally(), []), models=model_figures([MODEL_ROW], {}))
    )
    assert "one chain" not in empty
    assert "none by learned versions" in empty
