"""What every process reads from the environment, and what it takes when nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from backends.settings import ProcessSettings


def test_without_an_environment_everything_lies_in_the_installations_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment, store and keys are in the installation's folder."""
    monkeypatch.delenv("FINCOACH_DATABASE_URL", raising=False)
    settings = ProcessSettings(folder=Path("/srv/fincoach"))
    assert settings.resolved_store_url == "file:///srv/fincoach/store"
    assert settings.resolved_keys_folder == Path("/srv/fincoach/keys")
    assert settings.port == 0


def test_what_the_environment_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment overrides the defaults."""
    monkeypatch.setenv("FINCOACH_STORE_URL", "s3://bucket/models")
    monkeypatch.setenv("FINCOACH_KEYS_FOLDER", "/etc/fincoach/keys")
    monkeypatch.setenv("FINCOACH_WIDE_PARTITIONS", "24")
    settings = ProcessSettings()
    assert settings.resolved_store_url == "s3://bucket/models"
    assert settings.resolved_keys_folder == Path("/etc/fincoach/keys")
    assert settings.wide_partitions == 24


def test_the_password_of_the_database_shows_in_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed settings do not show the database's password."""
    monkeypatch.setenv("FINCOACH_DATABASE_URL", "postgresql+asyncpg://fincoach:hunter2@db/fincoach")
    settings = ProcessSettings()
    assert "hunter2" not in repr(settings)
    assert "hunter2" in settings.database_url.get_secret_value()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("WIDE_PARTITIONS", "0"), ("IDLE_IN_TRANSACTION_SECONDS", "0"), ("PORT", "http")],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An impossible setting is refused by name."""
    monkeypatch.setenv(f"FINCOACH_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        ProcessSettings()


def test_settings_do_not_change_while_a_process_runs() -> None:
    """Settings cannot change while a process runs."""
    with pytest.raises(ValidationError, match="frozen"):
        ProcessSettings().port = 1  # type: ignore[misc]
