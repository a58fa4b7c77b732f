"""The demo's report: the promises and their recounted figures, printed for people and written for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

import msgspec
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backends.database.repositories.recount import EventRecount, Evidence, ModelRecount, PromotionLatency, TracedChain
from stack.simulation.replica_client import PredictionTally

FEWEST_TRAININGS = 2


class EventFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of events: ``produced`` from the producers' journal, the others from the database."""

    produced: int
    archived: int
    counted: int
    duplicates: int
    dead_lettered: int


class ModelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One model: crossings of its threshold, trainings and their outcomes, the served version and its evidence."""

    crossings: int
    trainings: int
    deployed: int
    kept_champion: int
    rejected: int
    version: str | None
    score: float | None
    baseline_score: float | None
    metric: str | None


class PredictionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All requests to the replicas; latencies in milliseconds, as measured by the callers."""

    total: int
    failed: int
    learned: int
    baseline: int
    p50_ms: float | None
    p99_ms: float | None
    p99_ms_during_swaps: float | None


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """One promise, whether it holds, and the figures that show it."""

    name: str
    holds: bool
    detail: str


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """The final report of the demo."""

    events: EventFigures
    balanced: bool
    models: dict[str, ModelFigures]
    replicas: dict[str, dict[str, str]]
    predictions: PredictionFigures
    swaps: int
    crossing_to_served_seconds: dict[str, float | None]
    seconds: float
    chain: TracedChain | None
    notes: tuple[str, ...]
    promises: tuple[Promise, ...]

    @property
    def holds(self) -> bool:
        """Whether every promise holds."""
        return all(promise.holds for promise in self.promises)


def event_figures(journal_distinct: int, recount: EventRecount) -> EventFigures:
    """Return the figures of the events."""
    return EventFigures(
        produced=journal_distinct,
        archived=recount.archived,
        counted=recount.counted,
        duplicates=recount.duplicates,
        dead_lettered=recount.dead_lettered,
    )


def balance(acknowledged: int, distinct: int, recount: EventRecount) -> Promise:
    """Return whether journal, archive and panes agree: no event is lost or counted twice, no gap between panes."""
    archived, duplicates, dead_lettered = recount.archived, recount.duplicates, recount.dead_lettered
    counted, delivered, pane_records = recount.counted, recount.delivered, recount.pane_records
    equations = {
        f"{distinct} distinct valid events in the journal, {archived} archived": (
            distinct == archived == recount.distinct_archived
        ),
        f"{archived} archived, {counted} counted in panes": archived == counted,
        f"{acknowledged} acknowledged by the broker, {delivered} in the ledger, {pane_records} in panes": (
            acknowledged == delivered == pane_records
        ),
        f"{archived} archived + {duplicates} duplicates + {dead_lettered} dead letters = {pane_records}": (
            archived + duplicates + dead_lettered == pane_records
        ),
        f"{recount.holes} gaps between panes": recount.holes == 0,
    }
    wrong = [sentence for sentence, holds in equations.items() if not holds]
    return Promise(name="events balance", holds=not wrong, detail="; ".join(wrong or equations))


def dead_lettered(sent: int, found: int) -> Promise:
    """Return whether each invalid record became a dead letter."""
    detail = f"{sent} invalid records sent, {found} dead letters"
    return Promise(name="bad input is dead-lettered", holds=sent == found, detail=detail)


def retrained(name: str, figures: ModelFigures) -> Promise:
    """Return whether a model was trained often enough, and each training ended in a decision."""
    ended = figures.deployed + figures.kept_champion + figures.rejected
    detail = f"{figures.trainings} trainings, {ended} ended in a deployment, a kept champion or a rejection"
    holds = figures.trainings >= FEWEST_TRAININGS and ended == figures.trainings
    return Promise(name=f"{name} was retrained", holds=holds, detail=detail)


def served_promises(
    predictions: PredictionFigures, serving: dict[str, dict[str, str]], *, swaps: int, is_traced: bool
) -> Iterator[Promise]:
    """Yield the promises about serving: no failure, equal replicas, swaps seen, one chain traced."""
    failed, total = predictions.failed, predictions.total
    yield Promise(name="no failed prediction", holds=failed == 0 and total > 0, detail=f"{failed} of {total}")
    agree = len({str(sorted(versions.items())) for versions in serving.values()}) == 1
    yield Promise(name="replicas agree", holds=agree, detail=f"{len(serving)} replicas")
    detail = f"{swaps} swaps, rollback and way forward among them"
    yield Promise(name="swaps were seen", holds=swaps >= 2 * len(serving), detail=detail)
    detail = "prediction → feedback → snapshot → version" if is_traced else "none found"
    yield Promise(name="one chain is traced", holds=is_traced, detail=detail)


def model_figures(rows: Iterable[ModelRecount], evidence: Mapping[str, Evidence]) -> dict[str, ModelFigures]:
    """Return the figures of each model."""
    figures = {}
    for row in rows:
        found = evidence.get(row.model_type)
        comparison = (found.performance_metrics.get("comparison") if found else None) or {}
        figures[row.model_type] = ModelFigures(
            crossings=row.crossings,
            trainings=row.trainings,
            deployed=row.deployed,
            kept_champion=row.kept_champion,
            rejected=row.rejected,
            version=row.version,
            score=comparison.get("candidate"),
            baseline_score=comparison.get("baseline"),
            metric=comparison.get("metric"),
        )
    return figures


def prediction_figures(tally: PredictionTally, swap_moments: list[float]) -> PredictionFigures:
    """Return the figures of the predictions; ``swap_moments`` are in seconds of the tally's clock."""
    return PredictionFigures(
        total=tally.total,
        failed=tally.failed,
        learned=tally.learned,
        baseline=tally.baseline,
        p50_ms=_rounded(tally.percentile_ms(50)),
        p99_ms=_rounded(tally.percentile_ms(99)),
        p99_ms_during_swaps=_rounded(tally.percentile_ms(99, around=swap_moments)) if swap_moments else None,
    )


def served_seconds(rows: Iterable[PromotionLatency]) -> dict[str, float | None]:
    """Return median and maximum of the time from a crossing until all replicas serve the new version."""
    seconds = [row.seconds for row in rows]
    if not seconds:
        return {"p50": None, "max": None}
    return {"p50": round(float(np.median(seconds)), 2), "max": round(max(seconds), 2)}


def print_report(report: DemoReport, console: Console) -> None:
    """Print the table of models, the figures, the traced chain and the promises."""
    e, p = report.events, report.predictions
    console.print()
    console.print(_models_table(report.models))
    console.print()
    console.print(
        f"events       {e.produced:,} produced, {e.archived:,} archived, {e.counted:,} counted, {e.duplicates:,} duplicates, {e.dead_lettered:,} dead letters"
    )
    console.print(
        f"predictions  {p.total:,} asked, {p.failed} failed, {_share(p.learned, p)} by learned versions, {_share(p.baseline, p)} by baselines; "
        f"p50 {p.p50_ms} ms, p99 {p.p99_ms} ms, p99 around {report.swaps} swaps {p.p99_ms_during_swaps} ms"
    )
    for replica, versions in report.replicas.items():
        console.print(f"{replica:<12} {', '.join(f'{model} {version}' for model, version in versions.items())}")
    served = report.crossing_to_served_seconds
    console.print(f"crossing to served by all replicas: median {served['p50']} s, longest {served['max']} s")
    _print_chain(report.chain, console)
    for note in report.notes:
        console.print(f"note         {escape(note)}")
    console.print()
    for promise in report.promises:
        console.print(
            f"{'[green]holds[/]' if promise.holds else '[bold red]FAILS[/]'}  {promise.name}: {escape(promise.detail)}",
            soft_wrap=True,
        )
    console.print(
        f"\n{'Everything holds' if report.holds else 'Not everything holds'}, after {dt.timedelta(seconds=round(report.seconds))}."
    )


def _models_table(models: dict[str, ModelFigures]) -> Table:
    table = Table(title="What the models learned", title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in (
        "model",
        "crossings",
        "trainings",
        "deployed",
        "kept champion",
        "rejected",
        "serves",
        "metric",
        "score",
        "baseline",
    ):
        table.add_column(column, justify="left" if column in {"model", "serves", "metric"} else "right")
    for name, m in models.items():
        figures = (m.crossings, m.trainings, m.deployed, m.kept_champion, m.rejected)
        table.add_row(
            name,
            *(str(figure) for figure in figures),
            m.version,
            m.metric or "-",
            _score(m.score),
            _score(m.baseline_score),
        )
    return table


def _print_chain(chain: TracedChain | None, console: Console) -> None:
    if chain is None:
        return
    console.print(
        f"one chain    prediction {chain.prediction_id} (version {chain.answered_by}, action {chain.action}, propensity {chain.propensity:.3f}) "
        f"→ {chain.feedback} {chain.feedback_event_id} (simulated host; partition {chain.partition}, offset {chain.offset}) "
        f"→ snapshot {str(chain.snapshot_digest)[:12]} of training {chain.training_event_id} → version {chain.new_version or f'none ({chain.verdict})'}",
        soft_wrap=True,
    )


def _share(part: int, figures: PredictionFigures) -> str:
    answered = figures.learned + figures.baseline
    return f"{part / answered:.0%}" if answered else "none"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
