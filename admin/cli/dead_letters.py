"""The commands about dead letters: list them with their reasons, send them again, export them."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO, TypeVar

import msgspec
import typer
from rich.markup import escape

from admin.cli.actions import (
    LISTING,
    FolderOption,
    JsonOption,
    LimitOption,
    ListingGroup,
    WaitOption,
    answer_document,
    commanded,
    fail,
    folder_or_default,
    print_answer,
    reading,
    run,
)
from admin.cli.rendering import console, errors, json_line, print_facts, print_json, print_rows
from admin.dead_letters import as_document, bytes_for_people, moment_of
from backends.clock import SystemClock
from backends.database.repositories.dead_letters import DeadLetterQueries, LetterFilter, RetryFate, RetryRule
from schemas.dead_letters import MOST_ATTEMPTS, REASONS, explained
from schemas.messages.control import CommandResult, RetryDeadLetters, RetryResult
from schemas.rows import DeadLetter, DeadLetterTry
from schemas.vocabulary import DeadLetterReason

LETTERS_OF_A_COMMAND = 1_000
LARGEST_ID, LARGEST_PARTITION = 2**63 - 1, 2**31 - 1
COLUMNS = ("id", "created_at", "topic", "partition", "offset", "producer", "reason", "state", "attempts", "detail")
CHAIN_COLUMNS = ("id", "created_at", "reason", "state", "attempts", "retried_at", "detail")
FACTS = (
    "id", "state", "topic", "partition", "offset", "key", "producer", "reason", "detail", "record_at", "created_at", "attempts",
    "retry_of", "retried_at", "resolved_at", "bytes",
)  # fmt: skip

Answer = TypeVar("Answer")

app = typer.Typer(
    name="dead-letters",
    cls=ListingGroup,
    help="Records that could not be taken in: list, show, retry, export. Alone, it lists them.",
)

ReasonOption = Annotated[
    DeadLetterReason | None, typer.Option("--reason", help="Only this reason; `dead-letters reasons` explains them.")
]
TopicOption = Annotated[str | None, typer.Option("--topic", help="Only records of this topic.")]
ProducerOption = Annotated[
    str | None, typer.Option("--producer", help="Only records of this producer (source of the event).")
]
PartitionOption = Annotated[
    int | None, typer.Option("--partition", min=0, max=LARGEST_PARTITION, help="Only records of this partition.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Put aside from then on: 2026-03-04T12:00Z, or 30m, 12h, 7d ago.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Put aside before then; as --since.")]


class Choice(NamedTuple):
    """The filter options of a command, as they were given."""

    reason: DeadLetterReason | None
    topic: str | None
    producer: str | None
    partition: int | None
    since: str | None
    until: str | None

    def filter(self, ids: tuple[int, ...] = ()) -> LetterFilter:
        """Return the filter; exit with a sentence if a time cannot be read."""
        since, until = (_moment(text) for text in (self.since, self.until))
        return LetterFilter(
            ids=ids, reason=self.reason, topic=self.topic, producer=self.producer, partition=self.partition, since=since, until=until
        )  # fmt: skip


def _moment(text: str | None) -> dt.datetime | None:
    try:
        return moment_of(text, now=SystemClock().now()) if text else None
    except ValueError as error:
        fail(str(error))
        raise


def _ask(folder: Path | None, question: Callable[[DeadLetterQueries], Awaitable[Answer]]) -> Answer:
    answer: Answer = run(reading(folder_or_default(folder), lambda connection: question(DeadLetterQueries(connection))))
    return answer


@app.command(LISTING)
def list_letters(
    folder: FolderOption = None,
    *,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    producer: ProducerOption = None,
    partition: PartitionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List records that could not be taken in, newest first: their place, producer and reason, and what became of a retry."""
    chosen = Choice(reason, topic, producer, partition, since, until).filter()
    rows = _ask(folder, lambda letters: letters.listed(chosen, limit=limit))
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, title="Dead letters", empty="No dead letters.")


@app.command()
def reasons(*, as_json: JsonOption = False) -> None:
    """Explain every reason: what it means, whose fault it is, whether a retry can help, and what to do."""
    rows = [{"reason": str(code), **reason._asdict()} for code, reason in REASONS.items()]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("reason", "meaning", "fault", "retry_helps", "next_step"), title="Reasons", empty="")


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="A number from the list.")],
    folder: FolderOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter whole: its bytes, what the reason means, what to do, and its retries."""

    async def look(letters: DeadLetterQueries) -> tuple[DeadLetter | None, list[DeadLetterTry]]:
        letter = await letters.letter(letter_id)
        return letter, await letters.chain(letter) if letter else []

    letter, chain = _ask(folder, look)
    if letter is None:
        fail(f"there is no dead letter {letter_id}; `fincoach-learning dead-letters` lists them")
        return
    reason = explained(letter.reason)
    if as_json:
        print_json(as_document(letter) | {"explanation": reason._asdict(), "chain": chain})
        return
    facts = msgspec.structs.asdict(letter)
    print_facts({**facts, "bytes": len(letter.raw), "key": bytes_for_people(letter.key or b"")}, FACTS)
    console.print(
        f"\n[bold]Meaning[/] {escape(reason.meaning)} Fault: {reason.fault}. A retry helps: {reason.retry_helps}."
    )
    console.print(f"[bold]Next[/]    {escape(reason.next_step)}\n")
    if len(chain) > 1:
        print_rows(chain, CHAIN_COLUMNS, title="Tries of this record", empty="")
    console.print(escape(bytes_for_people(letter.raw)), soft_wrap=True)


@app.command()
def retry(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", min=1, max=LARGEST_ID, help="Numbers from the list.")
    ] = None,
    folder: FolderOption = None,
    wait: WaitOption = None,
    *,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    producer: ProducerOption = None,
    partition: PartitionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters, where nothing else is chosen.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent again before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; say what would be sent and what left out.")
    ] = False,
    limit: LimitOption = 100_000,
    as_json: JsonOption = False,
) -> None:
    """Send records to their topics again, with their own key and bytes: by numbers, by filters, or --all.

    A record that is valid now is archived once, however often it is sent. One that fails again is a new dead letter that names the first.
    For example, after an upgrade: `dead-letters retry --reason unknown_version --since 7d --dry-run`, then without --dry-run.
    """
    chosen = Choice(reason, topic, producer, partition, since, until).filter(tuple(ids or ()))
    if chosen.is_empty and not everything:
        fail("choose letters: numbers, --reason, --topic, --producer, --partition, --since, --until, or --all")
    if dry_run:
        rule = RetryRule(most_attempts=MOST_ATTEMPTS, again=again, limit=limit)
        _show_fates(_ask(folder, lambda letters: letters.fates(chosen, rule)), limit=limit, as_json=as_json)
        return
    wanted = {
        "ids": tuple(chosen.ids), "reason": chosen.reason, "topic": topic, "producer": producer, "partition": partition,
        "since": chosen.since, "until": chosen.until, "everything": everything, "again": again,
    }  # fmt: skip
    answers = run(_sent_again(folder_or_default(folder), wanted, limit=limit, wait=wait))
    sent = sum(_retried(answer).sent_again for answer in answers)
    if as_json:
        print_json({**answer_document(answers[-1]), "sent_again": sent, "commands": len(answers)})
        return
    print_answer(answers[-1])
    if len(answers) > 1:
        console.print(f"{sent} dead letters sent again in {len(answers)} commands")
    if sent:
        console.print("What became of them: `fincoach-learning dead-letters list` (state resolved, or failed again)")


@app.command()
def export(
    folder: FolderOption = None,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="File to write (it must not exist); else standard output.")
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    producer: ProducerOption = None,
    partition: PartitionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many letters at most.")] = 1_000_000,
) -> None:
    """Write dead letters as JSON lines, oldest first: raw bytes as base64, and as text where they are text."""
    chosen = Choice(reason, topic, producer, partition, since, until).filter()
    if to is not None and to.exists():
        fail(f"{to} is there already; name another file")

    async def write(letters: DeadLetterQueries) -> int:
        with _opened(to) as file:
            number = 0
            async for row in letters.exported(chosen, limit=limit):
                file.write(json_line(as_document(row)))
                number += 1
        return number

    number = _ask(folder, write)
    errors.print(f"{number} dead letters written to {to or 'standard output'}")


async def _sent_again(folder: Path, wanted: dict[str, Any], *, limit: int, wait: float | None) -> list[CommandResult]:
    """Give commands until all is sent; with ``--again``, give one only."""
    answers: list[CommandResult] = []
    left = limit
    while True:
        size = min(left, LETTERS_OF_A_COMMAND)
        answers.append(await commanded(folder, RetryDeadLetters, "", wait=wait, limit=size, **wanted))
        last = _retried(answers[-1])
        left -= last.sent_again
        waiting = last.left_out.get(RetryResult.LEFT_WAITING)
        if wanted["again"] or left <= 0 or not last.sent_again or waiting is None:
            return answers
        errors.print(f"{limit - left} sent again, {waiting} to go")


def _retried(answer: CommandResult) -> RetryResult:
    return msgspec.convert(answer.result, RetryResult)


def _show_fates(fates: list[RetryFate], *, limit: int, as_json: bool) -> None:
    sums: Counter[str] = Counter()
    for fate in fates:
        sums[fate.fate] += fate.letters
    would = min(sums["retry"], limit)
    rows = [{**fate._asdict(), "retry_helps": str(explained(fate.reason).retry_helps)} for fate in fates]
    if as_json:
        print_json({"would_send": would, "fates": rows})
        return
    print_rows(
        rows, ("fate", "reason", "letters", "retry_helps"), title="What a retry would do", empty="No such dead letters."
    )
    console.print(f"{would} dead letters would be sent again; nothing was sent.")


def _opened(to: Path | None) -> contextlib.AbstractContextManager[TextIO]:
    return contextlib.nullcontext(sys.stdout) if to is None else to.open("x", encoding="utf-8")
