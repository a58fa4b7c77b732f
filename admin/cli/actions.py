"""What the commands of ``fincoach-learning`` share: options, queries, commands to the system, and errors."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer
from rich.markup import escape
from typer.core import TyperGroup

from admin import installation as installations
from admin.cli.rendering import console, errors, print_json, print_rows
from admin.gateway import CommandGateway
from admin.settings import AdminSettings
from admin.status.gathering import first_line
from backends.clock import SystemClock
from backends.database.engine import DATABASE_AWAY_ERRORS, create_engine
from backends.database.repositories.queries import QueryRepository
from backends.database.unit_of_work import Database
from modelkit.registry import installed
from schemas.errors import DatabaseAwayError, FinCoachError
from schemas.messages.control import Command, CommandResult
from schemas.vocabulary import ModelType, Service

# A database without our tables, which only a statement reveals, counts as one that is away.
DATABASE_SILENT: tuple[type[Exception], ...] = (DatabaseAwayError, *DATABASE_AWAY_ERRORS)
HELP_OPTIONS = ("-h", "--help")
LISTING = "list"

FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Folder of the installation (default: FINCOACH_FOLDER or .fincoach).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many rows at most.")]
if TYPE_CHECKING:
    InstalledModel = ModelType
else:
    # Typer offers the members of an enumeration as choices, in help, errors and completion.
    InstalledModel = enum.StrEnum("InstalledModel", {model_type: model_type for model_type in installed()})
ModelArgument = Annotated[InstalledModel, typer.Argument(help="Which model.", case_sensitive=False)]
OptionalModel = Annotated[InstalledModel | None, typer.Argument(help="Only this model.", case_sensitive=False)]
WaitOption = Annotated[
    float | None,
    typer.Option("--wait", min=0.1, help="Seconds to wait for the answer (default: FINCOACH_ANSWER_SECONDS or 15)."),
]

Answer = TypeVar("Answer")
Query = Callable[[QueryRepository], Awaitable[Answer]]


class ListingGroup(TyperGroup):
    """A group of commands whose default is ``list``: ``datasets MODEL`` means ``datasets list MODEL``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click types are private
        """Put ``list`` before arguments that name no command and ask for no help."""
        named = bool(args) and (args[0] in self.commands or args[0] in HELP_OPTIONS)
        return super().parse_args(ctx, args if named else [LISTING, *args])


def folder_or_default(folder: Path | None) -> Path:
    """Return the installation's folder."""
    return folder or AdminSettings().folder


def run(action: Awaitable[Any]) -> Any:  # noqa: ANN401 - any result of the action
    """Run ``action``; an expected failure becomes one sentence on standard error and exit status 1."""

    async def guarded() -> Any:  # noqa: ANN401 - see above
        return await action

    try:
        return asyncio.run(guarded())
    except DATABASE_SILENT as error:
        fail(f"the database does not answer ({first_line(error)}); run `fincoach-learning status`")
    except FinCoachError as error:
        fail(str(error))


def fail(sentence: str) -> None:
    """Print a sentence to standard error and leave with exit status 1."""
    errors.print(f"[red]error[/]: {escape(sentence)}", soft_wrap=True)
    raise typer.Exit(1)


async def reading(folder: Path, query: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Return what ``query`` finds over a connection to the installation's database."""
    database = Database(
        create_engine(installations.load(folder).database_url, application_name="fincoach-admin", pool_size=1),
        Service.ADMIN,
    )
    try:
        async with database.reading() as connection:
            return await query(connection)
    finally:
        await database.close()


async def asked(folder: Path, query: Query[Answer]) -> Answer:
    """Return what the installation's database answers."""
    return await reading(folder, lambda connection: query(QueryRepository(connection)))


def show(
    folder: Path | None,
    query: Query[Sequence[msgspec.Struct]],
    *,
    columns: Iterable[str],
    title: str,
    empty: str,
    as_json: bool,
) -> None:
    """Ask the database and print the rows: a table for people, JSON for programs."""
    rows = run(asked(folder_or_default(folder), query))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, columns, title=title, empty=empty)


async def commanded(
    folder: Path, kind: type[Command], model_type: str, *, wait: float | None, **fields: object
) -> CommandResult:
    """Give a command and return its answer; raise if it was rejected, failed, or not answered in time."""
    settings = AdminSettings()
    gateway = CommandGateway(installations.load(folder).brokers, issuer=settings.resolved_issuer, clock=SystemClock())
    await gateway.start()
    try:
        return await gateway.execute(
            gateway.command(kind, model_type, **fields), timeout_seconds=wait or settings.answer_seconds
        )
    finally:
        await gateway.stop()


def order(
    folder: Path | None,
    kind: type[Command],
    model_type: ModelType,
    *,
    wait: float | None,
    as_json: bool,
    **fields: object,
) -> None:
    """Give a command and print its answer as a sentence or as JSON."""
    answer = run(commanded(folder_or_default(folder), kind, model_type, wait=wait, **fields))
    if as_json:
        print_json(answer_document(answer))
    else:
        print_answer(answer)


def answer_document(answer: CommandResult) -> dict[str, Any]:
    """Return an answer as programs read it: its facts and its executor."""
    plain = {"detail": answer.detail, "executor": answer.executor, "command_id": str(answer.command_id)}
    return {**plain, **answer.result}


def print_answer(answer: CommandResult) -> None:
    """Print an answer in a sentence."""
    console.print(f"[green]done[/] by {answer.executor}: {escape(answer.detail)}")
