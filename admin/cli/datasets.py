"""The commands about data sets: what they hold, how far they are, how good they are."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from admin.cli.actions import (
    LISTING,
    FolderOption,
    JsonOption,
    LimitOption,
    ListingGroup,
    ModelArgument,
    OptionalModel,
    WaitOption,
    asked,
    fail,
    folder_or_default,
    order,
    run,
    show,
)
from admin.cli.rendering import console, print_json, print_rows
from admin.status.explaining import Factor, explained, made_of, shown
from schemas.messages.control import ApproveDataset, QuarantineDataset
from schemas.rows import ExplainedDataset
from schemas.vocabulary import ThresholdDecision

NEXT_STEP = (
    "Next: look at the data; `fincoach-learning datasets approve {model} --reason ...` lets it train all the same,"
    " `... quarantine {model} --reason ...` never."
)
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why; it is kept with your name in the audit log and shown with the data set.")
]

app = typer.Typer(
    name="datasets",
    cls=ListingGroup,
    help="Data sets: how far they are from their thresholds, and how good their data is. Alone, it lists them.",
)


@app.command(LISTING)
def list_datasets(
    model: OptionalModel = None,
    folder: FolderOption = None,
    *,
    evaluations: Annotated[
        bool, typer.Option("--evaluations", help="Show the decisions about thresholds, as sentences.")
    ] = False,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List the data sets: how far they are from their thresholds, and how good their data is."""
    if evaluations:
        columns: tuple[str, ...] = ("model_type", "epoch", "decision", "sentence", "evaluated_at")
        show(
            folder,
            lambda ask: ask.evaluations(model, limit=limit),
            columns=columns,
            title="Evaluations",
            empty="Nothing was evaluated yet.",
            as_json=as_json,
        )
        return
    columns = (
        "dataset_type",
        "epoch",
        "data_count",
        "threshold",
        "threshold_reached",
        "data_quality_score",
        "anomaly_count",
        "duplicate_count",
        "missing_values_count",
        "review",
        "updated_at",
    )
    show(
        folder,
        lambda ask: ask.datasets(model, limit=limit),
        columns=columns,
        title="Data sets",
        empty="No data set yet: run the migrations.",
        as_json=as_json,
    )


@app.command()
def explain(
    model: ModelArgument,
    folder: FolderOption = None,
    *,
    epoch: Annotated[int | None, typer.Option("--epoch", min=1, help="This epoch (default: the open one).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say in one sentence why a model was or was not made to train, and show every factor of that decision with its meaning.

    Below them: what each dimension of quality was made of when it was last written down.
    """
    found: ExplainedDataset | None = run(
        asked(folder_or_default(folder), lambda ask: ask.explanation(model, epoch=epoch))
    )
    if found is None:
        wanted = (
            "no open data set: run the migrations"
            if epoch is None
            else f"no epoch {epoch}; `datasets {model}` lists them"
        )
        fail(f"{model} has {wanted}")
        return
    evaluation = found.evaluation
    factors = explained(evaluation) if evaluation else []
    if as_json:
        print_json(_document(found, factors))
        return
    state = "open" if found.closed_at is None else "closed"
    sentence = evaluation.sentence if evaluation else "nothing was evaluated yet"
    console.print(f"[bold]{model} epoch {found.epoch}[/] ({state}): {escape(sentence)}", soft_wrap=True)
    if evaluation and evaluation.decision == ThresholdDecision.WAITING_FOR_QUALITY:
        console.print(NEXT_STEP.format(model=model), soft_wrap=True)
    rows = [{**factor._asdict(), "value": shown(factor.value)} for factor in factors]
    print_rows(rows, ("factor", "value", "meaning"), title="", empty="It is looked at when its first data arrives.")
    if found.quality_parts:
        parts = [part._asdict() for part in made_of(found.quality_parts)]
        print_rows(parts, ("dimension", "made_of"), title=f"Quality, judged {found.assessed_at:%F %T}", empty="")


def _document(found: ExplainedDataset, factors: list[Factor]) -> dict[str, Any]:
    plain, evaluation = msgspec.structs.asdict(found), found.evaluation
    del plain["evaluation"]
    return {
        **plain,
        "decision": evaluation.decision if evaluation else None,
        "sentence": evaluation.sentence if evaluation else None,
        "factors": [factor._asdict() for factor in factors],
    }


@app.command()
def approve(
    model: ModelArgument,
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    reason: ReasonOption,
    epoch: Annotated[
        int | None, typer.Option("--epoch", help="Only if this is the epoch that waits; else nothing is approved.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Release the open data set that waits for its quality: it trains once count, cool-down and blackouts allow.

    Look first: `datasets explain MODEL` says what is wrong with it. The approval holds for this epoch alone.
    """
    order(folder, ApproveDataset, model, wait=wait, as_json=as_json, reason=reason, epoch=epoch)


@app.command()
def quarantine(
    model: ModelArgument,
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    reason: ReasonOption,
    epoch: Annotated[
        int | None, typer.Option("--epoch", help="A closed epoch instead of the open one, see `datasets list`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a data set out of all further training, for good: the open one, or a closed one with --epoch.

    The open one is closed without a training and the next begins behind it. A training that has begun goes on: if a version
    of it is served, `rollback MODEL`.
    """
    order(folder, QuarantineDataset, model, wait=wait, as_json=as_json, reason=reason, epoch=epoch)
