"""Folders of files under the digest of their contents: put once, never changed, verified when read."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import ArtifactRejectedError


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 (hex) over the names and digests of ``files``, in the order of their names."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class ContentStore:
    """Stores small folders (an artifact) and single large files (a snapshot) by digest. Blocking: call it from a thread."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = url_to_fs(url)
        self._fs.makedirs(self._root, exist_ok=True)

    def put(self, kind: str, files: Mapping[str, bytes]) -> str:
        """Store ``files`` and return their address ``<kind>/<digest>``; storing the same contents again changes nothing.

        The folder gets its final name in one rename, so a reader never sees half of it.
        """
        address = f"{kind}/{digest_of(files)}"
        final = f"{self._root}/{address}"
        if self._fs.exists(final):
            return address
        temporary = f"{self._root}/{kind}/.incoming-{uuid.uuid4().hex}"
        self._fs.makedirs(temporary, exist_ok=True)
        for name, content in files.items():
            with self._fs.open(f"{temporary}/{name}", "wb") as file:
                file.write(content)
        try:
            self._move(temporary, final)
        except OSError:
            if not self._fs.exists(final):
                raise
            self._fs.rm(temporary, recursive=True)
        return address

    def _move(self, temporary: str, final: str) -> None:
        if isinstance(self._fs, LocalFileSystem):
            # fsspec would move it INTO a folder that another process has just created there.
            Path(temporary).rename(final)
        else:
            self._fs.mv(temporary, final, recursive=True)

    def get(self, address: str) -> dict[str, bytes]:
        """Return the files at ``address``, read once and verified against its digest.

        Raises:
            ArtifactRejectedError: when it is missing or does not match its digest.
        """
        folder = f"{self._root}/{address}"
        if not self._fs.exists(folder):
            message = f"nothing is stored at {address}"
            raise ArtifactRejectedError(message)
        files = {path.rsplit("/", 1)[-1]: self._fs.cat_file(path) for path in self._fs.ls(folder, detail=False)}
        if digest_of(files) != address.rsplit("/", 1)[-1]:
            message = f"the contents of {address} do not have its digest"
            raise ArtifactRejectedError(message)
        return files

    def path(self, address: str) -> str:
        """Return the full path of ``address`` on the underlying file system."""
        return f"{self._root}/{address}"

    def exists(self, address: str) -> bool:
        """Return whether something is stored at ``address``."""
        return bool(self._fs.exists(f"{self._root}/{address}"))

    def addresses(self, kind: str) -> list[str]:
        """Return all addresses of one kind."""
        folder = f"{self._root}/{kind}"
        if not self._fs.exists(folder):
            return []
        names = (path.rsplit("/", 1)[-1] for path in self._fs.ls(folder, detail=False))
        return sorted(f"{kind}/{name}" for name in names if not name.startswith("."))

    def delete(self, address: str) -> None:
        """Remove what is stored at ``address``; if nothing is there, do nothing."""
        if self.exists(address):
            self._fs.rm(f"{self._root}/{address}", recursive=True)
