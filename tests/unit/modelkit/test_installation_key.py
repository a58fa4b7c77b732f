"""The key pair of an installation."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelkit.installation_key import SIGNING_KEY_FILE, installation_key
from modelkit.signing import TrustedKeys


def test_the_first_call_makes_a_key_that_is_trusted_and_private(tmp_path: Path) -> None:
    """The first call makes a key that only its owner can read, and its public half is trusted."""
    folder = tmp_path / "keys"
    signature = installation_key(folder).sign(b"message")
    TrustedKeys.load(folder).verify(b"message", signature)
    assert stat.S_IMODE((folder / SIGNING_KEY_FILE).stat().st_mode) == 0o600


def test_processes_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    """Processes that start at once all get the same key."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        keys = list(pool.map(lambda _: installation_key(tmp_path / "keys"), range(16)))
    assert len({key.sign(b"message") for key in keys}) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["signing.pem", "signing.pub"]
