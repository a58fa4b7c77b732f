"""The file that says where an installation's parts are."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from admin.installation import FILE, Endpoint, Installation, load, save
from admin.settings import AdminSettings
from schemas.errors import SettingsError

INSTALLATION = Installation(
    database_url="postgresql+asyncpg://fincoach:secret@127.0.0.1:5432/fincoach", brokers="127.0.0.1:9092", store_url="file:///s",
    keys_folder="/k", wide_partitions=4,
    processes=(
        Endpoint(name="streams-1", service="streams", url="http://127.0.0.1:1"),
        Endpoint(name="replica-1", service="serving", url="http://127.0.0.1:2"),
        Endpoint(name="replica-2", service="serving", url="http://127.0.0.1:3"),
    ),
)  # fmt: skip


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """A saved installation is loaded unchanged."""
    save(tmp_path, INSTALLATION)
    assert load(tmp_path) == INSTALLATION
    assert [replica.name for replica in load(tmp_path).replicas] == ["replica-1", "replica-2"]


def test_only_the_owner_reads_the_password(tmp_path: Path) -> None:
    """Only the owner can read the file with the password."""
    (tmp_path / FILE).write_text("{}")
    (tmp_path / FILE).chmod(0o644)
    save(tmp_path, INSTALLATION)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_folder_where_nothing_was_started_says_what_to_do(tmp_path: Path) -> None:
    """A folder where nothing was started yields a sentence that says what to do."""
    with pytest.raises(SettingsError, match=r"nothing was started in .* yet: run `fincoach-learning up`"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"brokers": "b"}', '{"database_url": 7}'])
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is reported in a sentence."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SettingsError, match="is not readable"):
        load(tmp_path)


def test_commands_are_given_in_somebodys_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command names an issuer."""
    user, _, machine = AdminSettings().resolved_issuer.partition("@")
    assert user
    assert machine
    monkeypatch.setenv("FINCOACH_ISSUER", "ann")
    assert AdminSettings().resolved_issuer == "ann"
