"""The commands about dead letters on a real database, and a retry through a real broker."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.installation import Installation, save
from backends.database.unit_of_work import Database
from schemas.tables import dead_letters
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import DeadLetterReason, Service
from stack.ports import free_port
from tests.integration.admin_rows import Rows
from tests.integration.backends_topics import database_of
from tests.integration.streams_workers import (
    begin_at_the_end,
    outgoing,
    producing,
    settings_for,
    transaction,
    until,
    worker_process,
)
from tests.services import connect

MOMENT = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def installed(folder: Path, database_url: str, brokers: str) -> Path:
    """Make ``folder`` that of an installation."""
    installation = Installation(
        database_url=database_url, brokers=brokers, store_url=f"file://{folder}/store", keys_folder=str(folder),
        wide_partitions=4, processes=(),
    )  # fmt: skip
    save(folder, installation)
    return folder


@pytest.fixture
def folder(tmp_path: Path, database_url: str) -> Path:
    """Return the folder of an installation whose broker is away."""
    return installed(tmp_path, database_url, f"127.0.0.1:{free_port()}")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a way to the database."""
    async with database_of(Service.ADMIN, database_url) as database:
        yield database


async def command(*arguments: str, folder: Path) -> Result:
    """Return what a command about dead letters does."""
    line = ["dead-letters", *arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, [*line, "--folder", str(folder)]))


async def lay(database: Database) -> None:
    """Lay four letters: a record that failed twice, one that came in at its second try, and one that nobody retried."""
    rows = Rows(database)
    common: dict[str, Any] = {"topic": BEHAVIORAL_EVENTS.name, "generation": 1, "partition": 2, "detail": "[red]why[/]"}
    first: dict[str, Any] = {"reason": "unknown_version", "producer": "shop", "key": b"user", "raw": b'{"a": 1}'}
    await rows.add(dead_letters, offset=1, attempts=1, retried_at=MOMENT, **common, **first)
    await rows.add(dead_letters, offset=2, attempts=1, retry_of=1, **common, **first)
    done = {"attempts": 1, "retried_at": MOMENT, "resolved_at": MOMENT, "reason": "unknown_version", "raw": b"b"}
    await rows.add(dead_letters, offset=3, **common, **done)
    await rows.add(dead_letters, offset=4, reason="not_json", raw=b"\xff\x1b[2J", **common)


async def test_the_list_says_what_became_of_each_letter(folder: Path, database: Database) -> None:
    """The list says what became of each dead letter."""
    await lay(database)
    rows = msgspec.json.decode((await command("--json", folder=folder)).stdout)
    shown = (await command("list", "--producer", "shop", folder=folder)).stdout
    assert [row["state"] for row in rows] == ["open", "resolved", "open", "failed again"]
    assert [row["id"] for row in rows] == [4, 3, 2, 1]
    assert "[red]why[/]" in shown
    assert "failed again" in shown
    for arguments, ids in [
        (("--reason", "not_json"), [4]),
        (("--topic", "fincoach.control"), []),
        (("--partition", "2", "--limit", "1"), [4]),
        (("--since", "1h", "--producer", "shop"), [2, 1]),
        (("--until", "2020-01-01"), []),
    ]:
        found = msgspec.json.decode((await command("list", *arguments, "--json", folder=folder)).stdout)
        assert [row["id"] for row in found] == ids, arguments


async def test_one_letter_is_shown_with_its_tries_and_what_to_do(folder: Path, database: Database) -> None:
    """A dead letter is shown with its tries and what to do next."""
    await lay(database)
    for_people = await command("show", "1", folder=folder)
    for_programs = msgspec.json.decode((await command("show", "1", "--json", folder=folder)).stdout)
    hostile = (await command("show", "4", folder=folder)).stdout
    missing = await command("show", "99", folder=folder)
    text = " ".join(for_people.stdout.split())
    assert "Upgrade this installation, then `dead-letters retry --reason unknown_version`." in text
    assert "Tries of this record" in text
    assert '{"a": 1}' in text
    assert (for_programs["raw_text"], for_programs["explanation"]["fault"]) == ('{"a": 1}', "receiver")
    assert [letter["id"] for letter in for_programs["chain"]] == [1, 2]
    assert "\x1b" not in hostile
    assert (missing.exit_code, "there is no dead letter 99" in missing.stderr) == (1, True)


async def test_an_export_holds_every_byte(folder: Path, database: Database, tmp_path: Path) -> None:
    """An export holds every byte of the dead letters."""
    await lay(database)
    to_pipe = await command("export", folder=folder)
    to_file = await command("export", "--to", str(tmp_path / "letters.jsonl"), "--reason", "not_json", folder=folder)
    refused = await command("export", "--to", str(tmp_path / "letters.jsonl"), folder=folder)
    lines = [msgspec.json.decode(line) for line in to_pipe.stdout.splitlines()]
    (line,) = (tmp_path / "letters.jsonl").read_text().splitlines()
    assert [each["id"] for each in lines] == [1, 2, 3, 4]
    assert base64.b64decode(msgspec.json.decode(line)["raw_base64"]) == b"\xff\x1b[2J"
    assert "1 dead letters written to" in " ".join(to_file.stderr.split())
    assert (refused.exit_code, "is there already" in refused.stderr) == (1, True)


async def test_a_dry_run_says_what_a_retry_would_do_and_does_nothing(folder: Path, database: Database) -> None:
    """A dry run says what a retry does, and changes nothing."""
    await lay(database)
    result = await command("retry", "--all", "--dry-run", folder=folder)
    answer = msgspec.json.decode((await command("retry", "--all", "--dry-run", "--json", folder=folder)).stdout)
    assert "2 dead letters would be sent again; nothing was sent." in result.stdout
    assert answer["would_send"] == 2
    assert {(fate["fate"], fate["reason"], fate["letters"], fate["retry_helps"]) for fate in answer["fates"]} == {
        ("retry", "unknown_version", 1, "after an upgrade"),
        ("retry", "not_json", 1, "never"),
        ("failed again", "unknown_version", 1, "after an upgrade"),
        ("resolved", "unknown_version", 1, "after an upgrade"),
    }
    of_two = msgspec.json.decode((await command("retry", "3", "4", "--dry-run", "--json", folder=folder)).stdout)
    assert of_two["would_send"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retry",), "choose letters: numbers, --reason"),
        (("list", "--since", "yesterday"), "'yesterday' is no time; write 2026-03-04T12:00Z"),
    ],
)
async def test_wrong_use_is_one_sentence(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """Wrong use is refused with one sentence."""
    result = await command(*arguments, folder=folder)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (1, True), result.stderr


async def test_the_reasons_are_explained_without_a_database() -> None:
    """The reasons are explained without a database."""
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["dead-letters", "reasons", "--json"]))
    assert [row["reason"] for row in msgspec.json.decode(result.stdout)] == list(DeadLetterReason)


async def test_a_retry_goes_through_control_worker_and_topic(
    own_broker: str, database_url: str, tmp_path: Path
) -> None:
    """A retry goes through control topic, worker and back to the record's topic."""
    # On a broker of its own: commands live for minutes, and workers of other tests would carry them out too.
    await begin_at_the_end(own_broker, database_url)
    folder = installed(tmp_path, database_url, own_broker)
    connection = await connect(database_url)

    async def ids() -> list[int]:  # others share the broker, and their letters come too
        ours = "SELECT id FROM dead_letters WHERE topic = $1 ORDER BY id"
        return [row["id"] for row in await connection.fetch(ours, BEHAVIORAL_EVENTS.name)]

    async def letters(number: int) -> bool:
        return len(await ids()) == number

    settings = settings_for(own_broker, database_url, tmp_path)
    with worker_process(settings, name="retrying"):
        async with producing(own_broker) as producer:
            await producer.publish_batch([outgoing(transaction(1), raw=b"no json")])
        await until(lambda: letters(1), what="the dead letter")
        result = await command("retry", str((await ids())[0]), "--json", "--wait", "30", folder=folder)
        await until(lambda: letters(2), what="the letter of the second try")
        chain = msgspec.json.decode((await command("show", str((await ids())[0]), "--json", folder=folder)).stdout)[
            "chain"
        ]
        again = await command("retry", str((await ids())[0]), "--wait", "30", folder=folder)
    audited = await connection.fetchrow("SELECT action, subject, outcome FROM audit_log")
    await connection.close()
    assert result.exit_code == 0, result.stderr
    assert msgspec.json.decode(result.stdout)["sent_again"] == 1
    assert [(letter["state"], letter["attempts"]) for letter in chain] == [("failed again", 1), ("open", 1)]
    assert "0 of 1 dead letters sent again; left out: 1 failed again" in " ".join(again.stdout.split())
    assert tuple(audited) == ("RetryDeadLetters", "dead letters", "succeeded")
