"""The environment of the HTTP peer."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import mlserver
from benchmarks.mlserver import PeerMissingError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cache folder of the test's own."""
    monkeypatch.setenv("FINCOACH_CACHE_FOLDER", str(tmp_path))
    return tmp_path


def marked_as_installed(cache: Path) -> list[Path]:
    """Return the marks of whole environments."""
    return list(cache.glob("*/installed"))


async def test_a_peer_that_cannot_be_installed_is_named_in_a_sentence(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a package index would end the whole benchmark, or take half an environment for a whole one."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{tmp_path}/no-such-package\n")
    monkeypatch.setattr(mlserver, "REQUIREMENTS", requirements)
    said: list[str] = []
    with pytest.raises(PeerMissingError, match="MLServer could not be installed"):
        await mlserver.environment(said.append)
    assert [line.startswith("installing MLServer into") for line in said] == [True]
    assert marked_as_installed(cache) == []


async def test_an_environment_is_made_once(cache: Path) -> None:
    """Every run would install the peer anew."""
    said: list[str] = []
    folder = cache / mlserver.environment_name()
    folder.mkdir()
    (folder / "installed").touch()
    assert await mlserver.environment(said.append) == folder
    assert said == []


def test_a_changed_requirement_asks_for_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new pin would be measured with the old version."""
    before = mlserver.environment_name()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("mlserver==1.7.0\n")
    monkeypatch.setattr(mlserver, "REQUIREMENTS", requirements)
    assert mlserver.environment_name() != before
