"""The bookkeeping of the sweep: what is tried, at which passage, and what a resumed sweep skips."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.chaos.rig.crash_points import RESULTS, CrashPoint, Result, completed_points, crash_points, main


def result(name: str, repeat: int, *, ok: bool) -> bytes:
    """Return a line of results."""
    return msgspec.json.encode(Result(point=name, repeat=repeat, ok=ok, seconds=1.0, broken={})) + b"\n"


def test_a_resumed_sweep_leaves_out_what_held_and_nothing_else(tmp_path: Path) -> None:
    """A resumed sweep skips what held, and nothing else."""
    (tmp_path / RESULTS).write_bytes(result("a", 0, ok=True) + result("a", 1, ok=False) + result("b", 0, ok=True))
    assert completed_points(tmp_path) == {("a", 0), ("b", 0)}
    assert completed_points(tmp_path / "new") == set()


@pytest.mark.parametrize(("passages", "hits"), [(1, [1, 1, 1]), (2, [1, 1, 1]), (4, [1, 3, 1]), (8, [1, 3, 5])])
def test_a_repetition_dies_at_another_passage_where_there_are_several(passages: int, hits: list[int]) -> None:
    """Each repetition dies at another passage if a run is sure to have several."""
    point = CrashPoint("streams", "IngestionRepository.save_pane", "before", passages)
    assert [point.trap(repeat).hit for repeat in range(3)] == hits
    assert all(point.trap(repeat).hit <= passages for repeat in range(100))


def test_points_can_be_listed_and_chosen_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Points can be listed and chosen by name."""
    monkeypatch.setattr("sys.argv", ["crash_points", "--list", "--only", "commit of an epoch"])
    assert main() == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == ["streams: commit of an epoch:before", "streams: commit of an epoch:after"]
    assert set(listed) <= {point.name for point in crash_points()}
