"""The commands about data sets: what gathers, how far it is, how good it is."""

from __future__ import annotations

from typing import Annotated

import typer

from admin.cli_actions import LISTING, FolderOption, JsonOption, LimitOption, ListingGroup, OptionalModel, show

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
