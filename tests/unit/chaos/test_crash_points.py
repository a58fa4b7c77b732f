"""The sweep's bookkeeping: what is tried, at which passage, and what a resumed sweep leaves out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.chaos.rig.crash_points import RESULTS, CrashPoint, Result, crash_points, done_before, main


def result(name: str, repeat: int, *, ok: bool) -> bytes:
    """Return a line of results."""
    return msgspec.json.encode(Result(point=name, repeat=repeat, ok=ok, seconds=1.0, broken={})) + b"\n"


def test_a_resumed_sweep_leaves_out_what_held_and_nothing_else(tmp_path: Path) -> None:
    """A point that broke a law would be left out of every later sweep, or all would be tried again."""
    (tmp_path / RESULTS).write_bytes(result("a", 0, ok=True) + result("a", 1, ok=False) + result("b", 0, ok=True))
    assert done_before(tmp_path) == {("a", 0), ("b", 0)}
    assert done_before(tmp_path / "new") == set()


@pytest.mark.parametrize(("passages", "hits"), [(1, [1, 1, 1]), (2, [1, 1, 1]), (4, [1, 3, 1]), (8, [1, 3, 5])])
def test_a_repetition_dies_at_another_passage_where_there_are_several(passages: int, hits: list[int]) -> None:
    """Three tries would all be the first write of a young process; or one would wait for a passage that never comes."""
    point = CrashPoint("streams", "IngestionRepository.save_pane", "before", passages)
    assert [point.trap(repeat).hit for repeat in range(3)] == hits
    assert all(point.trap(repeat).hit <= passages for repeat in range(100))


def test_points_can_be_listed_and_chosen_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person at night could not try again the one point that failed."""
    monkeypatch.setattr("sys.argv", ["crash_points", "--list", "--only", "commit of an epoch"])
    assert main() == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == ["streams: commit of an epoch:before", "streams: commit of an epoch:after"]
    assert set(listed) <= {point.name for point in crash_points()}
