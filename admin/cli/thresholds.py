"""The command about thresholds: shows the rules by which models learn, and changes one."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from admin.cli.actions import FolderOption, JsonOption, OptionalModel, WaitOption, fail, order, show
from schemas.messages.control import UpdateThresholds

COLUMNS = (
    "model_type", "threshold", "adaptive", "least", "most", "quality_gate", "cool_down_seconds", "max_age_seconds", "blackouts",
    "user_share", "even_share", "updated_by", "updated_at",
)  # fmt: skip
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str | None) -> int | None:
    """Return the seconds in ``90``, ``90s``, ``15m``, ``12h`` or ``30d``.

    Raises:
        typer.BadParameter: when it has none of these forms.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([smhd]?)", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time; write it as 90s, 15m, 12h or 30d, or 0 for none")
    return int(found[1]) * UNIT_SECONDS[found[2] or "s"]


def thresholds(
    model: OptionalModel = None,
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    threshold: Annotated[
        int | None, typer.Option("--set", help="New data points that trigger a training (at least 1).")
    ] = None,
    quality_gate: Annotated[float | None, typer.Option("--quality", help="Least quality score, 0 to 1.")] = None,
    cool_down: Annotated[int | None, typer.Option("--cool-down", help="Least seconds between two crossings.")] = None,
    adaptive: Annotated[
        bool | None,
        typer.Option(
            "--adaptive/--fixed", help="Let size, season, cost and drift move the threshold, or hold it as it is set."
        ),
    ] = None,
    least: Annotated[
        int | None, typer.Option("--least", help="The adapted threshold is never less (0: half of --set).")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--most", help="The adapted threshold is never more (0: 20 times --set).")
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option("--max-age", help="After so long (12h, 30d) a fifth of --set is enough; quality counts as ever (0: never)."),
    ] = None,
    blackout: Annotated[
        list[str] | None,
        typer.Option("--blackout", help="No training then, in UTC: 'Mon 08:00-12:00', 'Mon-Fri 22:00-06:00'. Repeat for more; replaces all."),
    ] = None,
    no_blackouts: Annotated[bool, typer.Option("--no-blackouts", help="Take all blackouts away.")] = False,
    user_share: Annotated[
        float | None, typer.Option("--user-share", help="One user's part of the threshold, 0.0001 to 0.5 (default 0.02).")
    ] = None,
    even_share: Annotated[
        float | None, typer.Option("--even-share", help="Or so many even shares, where that is more (default 3).")
    ] = None,
    reference_cost: Annotated[
        float | None, typer.Option("--reference-cost", help="Seconds that a training should cost (0: as the first five did).")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show the thresholds, or change one model's. What is not given stays; `datasets explain MODEL` shows what came of it."""
    changes = {
        "threshold": threshold,
        "quality_gate": quality_gate,
        "cool_down_seconds": cool_down,
        "adaptive": adaptive,
        "least": least,
        "most": most,
        "max_age_seconds": seconds(max_age),
        "blackouts": () if no_blackouts else tuple(blackout) if blackout else None,
        "user_share": user_share,
        "even_share": even_share,
        "reference_cost_seconds": reference_cost,
    }
    if all(value is None for value in changes.values()):
        show(
            folder,
            lambda ask: ask.thresholds(model),
            columns=COLUMNS,
            title="Thresholds",
            empty="No thresholds: run the migrations.",
            as_json=as_json,
        )
        return
    if model is None:
        fail("name the model whose threshold is to change, for example `fincoach-learning thresholds MODEL --set 500`")
        return
    order(folder, UpdateThresholds, model, wait=wait, as_json=as_json, **changes)
