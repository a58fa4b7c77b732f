"""The key pair of one installation: made by the first process, the same for all others."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from modelkit.signing import SigningKey

SIGNING_KEY_FILE = "signing.pem"


def installation_key(folder: Path) -> SigningKey:
    """Return the signing key in ``folder``, made at the first call; its public half lies beside it and is trusted.

    Several processes may call it at the same moment: all get the same key. Readable by its owner alone.
    """
    path = folder / SIGNING_KEY_FILE
    if not path.exists():
        _create(folder, path)
    key = SigningKey.load(path)
    _publish(key, path.with_suffix(".pub"))
    return key


def _create(folder: Path, path: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        SigningKey.generate().save(draft / path.name)
        with suppress(FileExistsError):  # another process was first: its key counts
            os.link(draft / path.name, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(key: SigningKey, path: Path) -> None:
    if path.exists():
        return
    descriptor, draft = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.public_pem())
    Path(draft).replace(path)
