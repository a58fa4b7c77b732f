"""The command line where nothing runs: what it says about wrong input, and what it refuses to do."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.installation import Installation, save
from stack.cli import _detach, _say_phase
from stack.folder import FolderLock
from stack.ports import free_port
from stack.processes import Phase, ProcessState
from stack.replay.catalogue import SOURCES

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an installation that was started once, and whose services are away."""
    save(tmp_path, Installation(
        database_url=f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none", brokers=f"127.0.0.1:{free_port()}", store_url="",
        keys_folder="", wide_partitions=4, processes=(),
    ))  # fmt: skip
    return tmp_path


def command(*arguments: str) -> Result:
    """Return what a command does."""
    return CliRunner().invoke(app, list(arguments))


def said(result: Result) -> str:
    """Return what went to standard error, on one line."""
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--jsonl", "/nowhere/events.jsonl"), "/nowhere/events.jsonl is not there: name a file with one JSON event per line, or - for"),
        (("astrology",), "there is no data set 'astrology'; choose one of cdnow, openbandit,"),
        (("jsonl",), "or --jsonl FILE"),
    ],
)  # fmt: skip
def test_a_replay_of_what_is_not_there_says_what_there_is(
    folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """A mistyped file would end in a traceback, or in a replay of nothing."""
    result = command("replay", *arguments, "--folder", str(folder))
    assert result.exit_code == 1
    assert sentence in said(result)
    assert isinstance(result.exception, SystemExit)


def test_a_foreign_file_cannot_be_moved_in_time(folder: Path) -> None:
    """Lines would be sent with other dates than asked, without a word."""
    lines = folder / "events.jsonl"
    lines.write_text("{}\n")
    result = command("replay", "--jsonl", str(lines), "--shift-to-now", "--folder", str(folder))
    assert result.exit_code == 1
    assert "leave out --shift-to-now" in said(result)


@pytest.mark.parametrize("option", [("--speed", "-1"), ("--limit", "0"), ("--duplicates", "2")])
def test_a_replay_that_cannot_be_meant_is_refused(folder: Path, option: tuple[str, str]) -> None:
    """A negative speed would play nothing, or everything."""
    result = command("replay", "cdnow", *option, "--folder", str(folder))
    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_the_help_of_replay_names_every_data_set() -> None:
    """Nobody would find the data sets that are there."""
    text = command("replay", "--help").stdout
    assert all(name in text for name in SOURCES)


def test_nothing_is_stopped_where_nothing_runs(tmp_path: Path) -> None:
    """`down` would kill whatever has the process id now, or end with a traceback."""
    result = command("down", "--folder", str(tmp_path))
    assert result.exit_code == 0
    assert "nothing runs in" in result.stdout


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """`up --fresh` would remove somebody's files."""
    (tmp_path / "thesis.tex").write_text("years of work")
    result = command("up", "--fresh", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "choose an empty folder with --folder" in said(result)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("arguments", [("up",), ("up", "--fresh")])
def test_a_second_system_on_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Two systems would work on one database, or the second remove the data of the first."""
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
    assert "is in use by process" in said(result)
    assert "stop it with `fincoach-learning down`, or choose another folder" in said(result)


def test_preparing_services_that_are_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who sets up a cluster would see a traceback about a socket."""
    monkeypatch.setenv("FINCOACH_DATABASE_URL", f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none")
    result = command("prepare")
    assert result.exit_code == 1
    assert "the database does not answer" in said(result)


def test_the_doctor_speaks_to_people_and_to_programs(tmp_path: Path) -> None:
    """A script that sets a machine up could not ask what is missing."""
    for_people = command("doctor", "--folder", str(tmp_path))
    for_programs = command("doctor", "--json", "--folder", str(tmp_path))
    rows = msgspec.json.decode(for_programs.stdout)
    assert "This machine" in for_people.stdout
    assert for_people.exit_code == for_programs.exit_code == (0 if all(row["ok"] for row in rows) else 1)
    assert all(row["ok"] or row["how_to_fix"] for row in rows)
    assert {"name", "ok", "found", "needed", "how_to_fix"} == set(rows[0])


def test_a_log_gets_each_change_of_a_process_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log would repeat the state of all processes at each change of one, or hide a death."""
    listen = _say_phase()
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
    """`up --detach` would wait for ever, or leave the reason in a log that nobody knows of."""
    with pytest.raises(typer.Exit) as ended:
        _detach(tmp_path, ["--no-such-option"])
    error = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert f"the end of {tmp_path}/up.log" in error
    assert "No such option" in error
