"""The environments of peers that are installed beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.environments import PeerMissingError, environment, environment_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cache folder of the test's own."""
    monkeypatch.setenv("FINCOACH_CACHE_FOLDER", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """Give the requirements of a peer that does not exist."""
    path = tmp_path / "requirements.txt"
    path.write_text(f"{tmp_path}/no-such-package\n")
    return path


def marked_as_installed(cache: Path) -> list[Path]:
    """Return the marks of whole environments."""
    return list(cache.glob("*/installed"))


async def test_a_peer_that_cannot_be_installed_is_named_in_a_sentence(cache: Path, requirements: Path) -> None:
    """A machine without a package index would end the whole benchmark, or take half an environment for a whole one."""
    said: list[str] = []
    with pytest.raises(PeerMissingError, match="Some Peer could not be installed"):
        await environment("Some Peer", requirements, said.append)
    assert [line.startswith("installing Some Peer into") for line in said] == [True]
    assert marked_as_installed(cache) == []


async def test_an_environment_is_made_once(cache: Path, requirements: Path) -> None:
    """Every run would install the peer anew."""
    said: list[str] = []
    folder = environment_folder("Some Peer", requirements)
    assert folder.parent == cache
    folder.mkdir(parents=True)
    (folder / "installed").touch()
    assert await environment("Some Peer", requirements, said.append) == folder
    assert said == []


def test_a_changed_requirement_asks_for_another_environment(cache: Path, requirements: Path) -> None:
    """A new pin would be measured with the old version."""
    before = environment_folder("Some Peer", requirements)
    requirements.write_text("some-peer==1.7.0\n")
    assert environment_folder("Some Peer", requirements) != before
    assert before.parent == cache
