"""The command line without a running system: errors about wrong input, and refusals."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.installation import Installation, save
from stack.cli import _detach, _phase_printer
from stack.folder import FolderLock
from stack.ports import free_port
from stack.processes import Phase, ProcessState
from stack.replay.catalogue import SOURCES

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of an installation whose services do not run."""
    save(
        tmp_path,
        Installation(
            database_url=f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none",
            brokers=f"127.0.0.1:{free_port()}",
            store_url="",
            keys_folder="",
            wide_partitions=4,
            processes=(),
        ),
    )
    return tmp_path


def command(*arguments: str) -> Result:
    """Return the result of a command."""
    return CliRunner().invoke(app, list(arguments))


def error_text(result: Result) -> str:
    """Return the standard error of a command on one line."""
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--jsonl", "/nowhere/events.jsonl"),
            "/nowhere/events.jsonl is not there: name a file with one JSON event per line, or - for",
        ),
        (("astrology",), "there is no data set 'astrology'; choose one of cdnow, openbandit,"),
        (("jsonl",), "or --jsonl FILE"),
    ],
)
def test_a_replay_of_a_missing_source_lists_the_sources(
    folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """A missing file or unknown data set ends with a message that lists the choices."""
    result = command("replay", *arguments, "--folder", str(folder))
    assert result.exit_code == 1
    assert sentence in error_text(result)
    assert isinstance(result.exception, SystemExit)


def test_a_foreign_file_cannot_be_moved_in_time(folder: Path) -> None:
    """`--shift-to-now` is refused for a file, whose lines are sent as they are."""
    lines = folder / "events.jsonl"
    lines.write_text("{}\n")
    result = command("replay", "--jsonl", str(lines), "--shift-to-now", "--folder", str(folder))
    assert result.exit_code == 1
    assert "leave out --shift-to-now" in error_text(result)


@pytest.mark.parametrize("option", [("--speed", "-1"), ("--limit", "0"), ("--duplicates", "2")])
def test_invalid_replay_options_are_refused(folder: Path, option: tuple[str, str]) -> None:
    """A speed, limit or share out of range is refused by the option's name."""
    result = command("replay", "cdnow", *option, "--folder", str(folder))
    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_the_help_of_replay_names_every_data_set() -> None:
    """The help of `replay` names every data set that can be played."""
    text = command("replay", "--help").stdout
    assert all(name in text for name in SOURCES)


def test_nothing_is_stopped_where_nothing_runs(tmp_path: Path) -> None:
    """`down` without a running system says so and kills nothing."""
    result = command("down", "--folder", str(tmp_path))
    assert result.exit_code == 0
    assert "nothing runs in" in result.stdout


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """`up --fresh` refuses a folder that is not an installation."""
    (tmp_path / "thesis.tex").write_text("years of work")
    result = command("up", "--fresh", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "choose an empty folder with --folder" in error_text(result)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("arguments", [("up",), ("up", "--fresh")])
def test_a_second_system_on_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """A second system on one folder is refused with a way out."""
    monkeypatch.setenv("FINCOACH_DATABASE_URL", "postgresql+asyncpg://a:b@127.0.0.1:1/x")
    monkeypatch.setenv("FINCOACH_BROKERS", "127.0.0.1:1")
    (tmp_path / "logs").mkdir()
    lock = FolderLock(tmp_path)
    lock.acquire()
    try:
        result = command(*arguments, "--folder", str(tmp_path))
    finally:
        lock.release()
    assert result.exit_code == 1
    assert "is in use by process" in error_text(result)
    assert "stop it with `fincoach-learning down`, or choose another folder" in error_text(result)


def test_preparing_services_that_are_away_fails_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` without a database ends with one sentence and no traceback."""
    monkeypatch.setenv("FINCOACH_DATABASE_URL", f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none")
    result = command("prepare")
    assert result.exit_code == 1
    assert "the database does not answer" in error_text(result)


def test_the_doctor_speaks_to_people_and_to_programs(tmp_path: Path) -> None:
    """`doctor` reports the same findings as a table and as JSON."""
    for_people = command("doctor", "--folder", str(tmp_path))
    for_programs = command("doctor", "--json", "--folder", str(tmp_path))
    rows = msgspec.json.decode(for_programs.stdout)
    assert "This machine" in for_people.stdout
    assert for_people.exit_code == for_programs.exit_code == (0 if all(row["ok"] for row in rows) else 1)
    assert all(row["ok"] or row["how_to_fix"] for row in rows)
    assert {"name", "ok", "found", "needed", "how_to_fix"} == set(rows[0])


def test_a_log_gets_each_change_of_a_process_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets each change of a process exactly once."""
    listen = _phase_printer()
    assert callable(listen)
    starting = ProcessState(name="broker", phase=Phase.STARTING, since=NOW, log="l")
    other = ProcessState(name="postgres", phase=Phase.READY, since=NOW, log="l")
    died = ProcessState(name="broker", phase=Phase.BACKING_OFF, since=NOW, log="l", last_exit="killed by SIGKILL")
    for states in ((starting, other), (starting, other), (died, other), (died, other)):
        listen(states)
    assert capsys.readouterr().out.splitlines() == [
        "broker: starting",
        "postgres: ready",
        "broker: backing_off (killed by SIGKILL)",
    ]


def test_a_system_that_cannot_start_in_the_background_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`up --detach` shows the reason when the system cannot start."""
    with pytest.raises(typer.Exit) as ended:
        _detach(tmp_path, ["--no-such-option"])
    error = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert f"the end of {tmp_path}/up.log" in error
    assert "No such option" in error
