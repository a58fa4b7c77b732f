"""The command that sends dead letters again in its transaction, and reports which were left out and why."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from backends.database.repositories.dead_letters import DeadLetterRepository, LetterFilter, RetryFate, RetryRule
from schemas.dead_letters import MOST_ATTEMPTS
from schemas.errors import CommandRejectedError
from schemas.messages.control import CommandOutcome, RetryDeadLetters, RetryResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backends.database.unit_of_work import UnitOfWork

MOST_DEAD_LETTERS = 10_000  # of one command
LARGEST_ID = 2**63 - 1
LARGEST_PARTITION = 2**31 - 1


async def retry_dead_letters(work: UnitOfWork, command: RetryDeadLetters, _model_type: None) -> CommandOutcome:
    """Send the chosen dead letters again through the outbox. The answer describes the state before the retry.

    Raises:
        CommandRejectedError: nothing is chosen, or a value is out of range.
    """
    chosen = checked_filter(command)
    rule = RetryRule(most_attempts=MOST_ATTEMPTS, again=command.again, limit=command.limit)
    repository = DeadLetterRepository(work)
    fates = await repository.queries.fates(chosen, rule)
    sent = await repository.send_again(chosen, rule)
    result = RetryResult(sent_again=sent, matched=sum(fate.letters for fate in fates), left_out=left_out(fates, sent))
    return CommandOutcome(detail=sentence(fates, sent), result=msgspec.structs.asdict(result))


def checked_filter(command: RetryDeadLetters) -> LetterFilter:
    """Return which dead letters the command chooses.

    Raises:
        CommandRejectedError: the message says what is valid.
    """
    chosen = LetterFilter(
        ids=command.ids, reason=command.reason, topic=command.topic, producer=command.producer, partition=command.partition,
        since=_in_utc(command.since), until=_in_utc(command.until),
    )  # fmt: skip
    if chosen.is_empty and not command.everything:
        raise CommandRejectedError(
            "nothing is chosen: give ids, a reason, topic, producer, partition or time, or everything"
        )
    if not 1 <= command.limit <= MOST_DEAD_LETTERS or len(command.ids) > MOST_DEAD_LETTERS:
        raise CommandRejectedError(f"one command sends 1 to {MOST_DEAD_LETTERS} dead letters again; give more commands")
    if not all(0 < each <= LARGEST_ID for each in command.ids):
        raise CommandRejectedError("an id is a positive number, as `fincoach-learning dead-letters` lists it")
    if command.partition is not None and not 0 <= command.partition <= LARGEST_PARTITION:
        raise CommandRejectedError(f"there is no partition {command.partition}")
    return chosen


def left_out(fates: Iterable[RetryFate], sent: int) -> dict[str, int]:
    """Return how many of the chosen dead letters were not sent, by cause. Pure."""
    causes: Counter[str] = Counter()
    for fate in fates:
        causes[fate.fate] += fate.letters
    waiting = causes.pop("retry", 0) - sent
    return {**causes, **({RetryResult.LEFT_WAITING: waiting} if waiting > 0 else {})}


def sentence(fates: Iterable[RetryFate], sent: int) -> str:
    """Return a sentence about what was sent again and what was left out. Pure."""
    fates = list(fates)
    matched = sum(fate.letters for fate in fates)
    causes = ", ".join(f"{number} {cause}" for cause, number in sorted(left_out(fates, sent).items()))
    return f"{sent} of {matched} dead letters sent again" + (f"; left out: {causes}" if causes else "")


def _in_utc(moment: dt.datetime | None) -> dt.datetime | None:
    try:
        return moment.astimezone(dt.UTC) if moment else None
    except OverflowError as error:
        raise CommandRejectedError("a time lies outside the calendar; give it in UTC") from error
