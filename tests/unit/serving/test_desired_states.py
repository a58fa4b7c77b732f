"""Desired states on the replica's own disk."""

from __future__ import annotations

from pathlib import Path

from serving.desired_states import DesiredStateFiles
from tests.versions import desired, reference_of

REFERENCE = reference_of(f"artifacts/{'0' * 64}", version="1.0.0")


def test_the_last_state_of_each_model_comes_back(tmp_path: Path) -> None:
    """The last state of each model comes back."""
    files = DesiredStateFiles(tmp_path / "states")
    assert files.load() == []
    newest = [desired(2, REFERENCE), desired(5, REFERENCE, model_type="spending")]
    for state in (desired(1, REFERENCE), *newest):
        files.save(state)
    assert DesiredStateFiles(tmp_path / "states").load() == newest


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """A file that cannot be read is left out, and the others are loaded."""
    files = DesiredStateFiles(tmp_path)
    files.save(desired(2, REFERENCE))
    (tmp_path / "spending.json").write_bytes(b"{")
    (tmp_path / ".goal.new").write_bytes(b"{")
    assert [state.model_type for state in files.load()] == ["goal"]
