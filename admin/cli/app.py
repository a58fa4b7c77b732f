"""The part of ``fincoach-learning`` that works on any installation: lists, status and commands.

What starts processes on this machine is added by :mod:`stack.cli`.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import typer

from admin import installation as installations
from admin.cli import datasets as cli_datasets
from admin.cli import dead_letters as cli_dead_letters
from admin.cli import models as cli_models
from admin.cli.actions import (
    HELP_OPTIONS,
    FolderOption,
    JsonOption,
    LimitOption,
    ModelArgument,
    OptionalModel,
    WaitOption,
    folder_or_default,
    order,
    run,
    show,
)
from admin.cli.rendering import console, print_json, print_links, print_rows
from admin.cli.thresholds import thresholds
from admin.cli.watching import follow, since
from admin.status.gathering import StatusService
from admin.status.loop import first_broken, links
from backends.clock import SystemClock
from backends.database.engine import create_engine
from backends.database.unit_of_work import Database
from schemas.messages.control import DeployModel, RollBackModel, TriggerTraining
from schemas.topics import ALERTS, TRAINING_PROGRESS
from schemas.vocabulary import ModelType, Service

FOLLOWED_PAST = dt.timedelta(minutes=1)

app = typer.Typer(
    name="fincoach-learning",
    help="FinCoach Continuous Learning: models that learn by themselves from behavioural events.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": list(HELP_OPTIONS)},
)
app.add_typer(cli_datasets.app)
app.add_typer(cli_dead_letters.app)
app.add_typer(cli_models.app)
app.command()(thresholds)


@app.command()
def status(folder: FolderOption = None, *, as_json: JsonOption = False) -> None:
    """Look at every link of the loop and name the first broken one: since when, what it means, what to do. Exit status 1 if one is broken."""

    async def look() -> Any:  # noqa: ANN401 - facts
        place = folder_or_default(folder)
        installation = installations.load(place)
        database = Database(
            create_engine(installation.database_url, application_name="fincoach-admin", pool_size=1), Service.ADMIN
        )
        try:
            return await StatusService(installation, database, SystemClock(), folder=place).facts()
        finally:
            await database.close()

    facts = run(look())
    chain = links(facts)
    broken = first_broken(chain)
    if as_json:
        print_json(
            {
                "whole": broken is None,
                "first_broken": broken,
                "links": chain,
                "processes": facts.processes,
                "readers": facts.readers,
            }
        )
    else:
        print_links(chain)
    raise typer.Exit(0 if broken is None else 1)


@app.command()
def train(
    model: ModelArgument,
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    reason: str = "by command",
    as_json: JsonOption = False,
) -> None:
    """Train a model now, on all data since its champion's cut, whatever its threshold says."""
    order(folder, TriggerTraining, model, wait=wait, as_json=as_json, reason=reason)


@app.command()
def deploy(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="A known version, see `versions`.")],
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Serve a known version on every replica (also the way forward again after a rollback)."""
    order(folder, DeployModel, model, wait=wait, as_json=as_json, version=version)


@app.command()
def rollback(
    model: ModelArgument,
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    reason: str = "by command",
    as_json: JsonOption = False,
) -> None:
    """Serve the previous version again; it is still warm on every replica."""
    order(folder, RollBackModel, model, wait=wait, as_json=as_json, reason=reason)


@app.command()
def versions(
    model: OptionalModel = None,
    folder: FolderOption = None,
    *,
    decisions: Annotated[bool, typer.Option("--decisions", help="Show why each was or was not served.")] = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the versions of the models, the served one marked active."""
    if decisions:
        columns: tuple[str, ...] = ("model_type", "version", "decision", "reason", "decided_at")
        show(
            folder,
            lambda ask: ask.decisions(model, limit=limit),
            columns=columns,
            title="Rollout decisions",
            empty="No decision yet.",
            as_json=as_json,
        )
        return
    columns = (
        "model_type",
        "version",
        "kind",
        "is_active",
        "performance_current",
        "performance_baseline",
        "rollback_count",
        "deployment_date",
    )
    show(
        folder,
        lambda ask: ask.versions(model),
        columns=columns,
        title="Versions",
        empty="No version yet: is the deployer running?",
        as_json=as_json,
    )


@app.command()
def trainings(
    model: OptionalModel = None,
    folder: FolderOption = None,
    *,
    queue: Annotated[bool, typer.Option("--queue", help="Show the jobs that wait or run instead.")] = False,
    following: Annotated[
        bool, typer.Option("--follow", help="Print the progress of running trainings until Ctrl-C.")
    ] = False,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List trainings with their verdicts and reasons."""
    if following:
        run(_follow_trainings(folder_or_default(folder), model))
        return
    if queue:
        columns: tuple[str, ...] = (
            "model_type",
            "epoch",
            "status",
            "attempts",
            "leased_by",
            "lease_until",
            "created_at",
        )
        show(
            folder,
            lambda ask: ask.jobs(),
            columns=columns,
            title="Training queue",
            empty="The queue is empty.",
            as_json=as_json,
        )
        return
    columns = (
        "model_type",
        "status",
        "verdict",
        "epochs",
        "training_data_size",
        "validation_score",
        "reasons",
        "start_time",
        "end_time",
    )
    empty = "No training yet: a model trains when its data set reaches its threshold, or by `fincoach-learning train MODEL`."
    show(
        folder,
        lambda ask: ask.trainings(model, limit=limit),
        columns=columns,
        title="Trainings",
        empty=empty,
        as_json=as_json,
    )


@app.command()
def events(
    folder: FolderOption = None,
    *,
    user: Annotated[UUID | None, typer.Option("--user", help="Only events of this user id.")] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", help="Only this event type, for example transaction_creation.")
    ] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List archived behavioural events, newest first."""
    columns = ("occurred_at", "event_type", "interaction_type", "user_id", "source", "partition", "offset")
    show(
        folder,
        lambda ask: ask.events(user_id=user, event_type=event_type, limit=limit),
        columns=columns,
        title="Events",
        empty="No such event.",
        as_json=as_json,
    )


async def _follow_trainings(folder: Path, model: ModelType | None) -> None:
    moment = SystemClock().now() - FOLLOWED_PAST
    async for step in follow(installations.load(folder).brokers, TRAINING_PROGRESS, moment):
        if model in {None, step.model_type}:
            loss = "" if step.loss is None else f", loss {step.loss:.4f}"
            end = "" if step.verdict is None else f": {step.verdict}"
            console.print(
                f"{step.occurred_at:%H:%M:%S} {step.model_type} {step.phase} {step.step}/{step.steps}{loss}{end}"
            )


@app.command()
def alerts(
    folder: FolderOption = None,
    *,
    hours: Annotated[float, typer.Option("--hours", min=0.0, help="How far to look back.")] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """List alerts that were raised or cleared lately, oldest first."""

    async def read() -> list[dict[str, Any]]:
        moment = SystemClock().now() - dt.timedelta(hours=hours)
        messages = await since(installations.load(folder_or_default(folder)).brokers, ALERTS, moment)
        return [{"state": type(message).__name__, **msgspec.structs.asdict(message)} for message in messages]

    rows = run(read())
    if as_json:
        print_json(rows)
    else:
        columns = ("occurred_at", "state", "service", "name", "subject", "detail")
        print_rows(rows, columns, title="Alerts", empty=f"No alert within the last {hours:g} hours.")


@app.command()
def audit(folder: FolderOption = None, *, limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List administrative acts from the append-only log, newest first."""
    columns = ("id", "recorded_at", "actor", "action", "subject", "outcome", "details")
    show(
        folder,
        lambda ask: ask.audit(limit=limit),
        columns=columns,
        title="Audit log",
        empty="Nobody has given a command yet.",
        as_json=as_json,
    )
