"""The artifact: a handful of files, a manifest with the digest of each, and its signature.

``build_artifact`` and ``open_artifact`` work on bytes, so that any store can carry them; ``write_artifact`` and
``load_artifact`` do the same with a folder. What is opened is what was verified: bytes are read once. Nothing here
loads a model.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from modelkit.features.state import REDUCER_VERSION
from modelkit.signing import SigningKey, TrustedKeys
from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ArtifactKind, ModelType

__all__ = [
    "CALIBRATION",
    "FEATURES",
    "FORMAT_VERSION",
    "GOLDEN",
    "MANIFEST",
    "METRICS",
    "MODEL",
    "PARAMETERS",
    "PROFILES",
    "SIGNATURE",
    "Golden",
    "LoadedArtifact",
    "Manifest",
    "SigningKey",
    "TrustedKeys",
    "build_artifact",
    "golden_file",
    "load_artifact",
    "open_artifact",
    "write_artifact",
]

FORMAT_VERSION = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MODEL, FEATURES, CALIBRATION, GOLDEN = "model.onnx", "features.json", "calibration.json", "golden.json"
PARAMETERS, PROFILES, METRICS = "parameters.json", "profiles.json", "metrics.json"

_CONTENT_FIELDS = (
    "model_type",
    "kind",
    "feature_names",
    "reducer_version",
    "context_schema",
    "action_set",
    "actions",
    "propensity_floor",
    "parameters",
)
_PLAIN_NAME = re.compile(r"[a-z0-9_]+\.[a-z0-9]+")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact is and where it comes from.

    Attributes:
        feature_names: the columns of the row that the runtime makes, in order.
        files: SHA-256 (hex) of every other file; ``golden_digest`` is that of the golden predictions. Filled by ``build_artifact``.
        context_schema, action_set, actions, propensity_floor: only where actions are chosen; each keeps at least the floor.
        parent_digest: content digest of the champion that it was compared with or grew from.
        parameters: small settings of the runtime (policy, output names); what is large is in ``parameters.json``.
        metrics: the summary that people see; the whole is in ``metrics.json``.
    """

    model_type: ModelType
    kind: ArtifactKind
    feature_names: tuple[str, ...]
    reducer_version: int
    created_at: dt.datetime
    format_version: int = FORMAT_VERSION
    seed: int = 0
    context_schema: str | None = None
    action_set: str | None = None
    actions: tuple[str, ...] = ()
    propensity_floor: float = 0.0
    parent_digest: str | None = None
    snapshot_digest: str | None = None
    training_event_id: UUID | None = None
    library_versions: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    files: dict[str, str] = {}
    golden_digest: str | None = None

    @property
    def content_digest(self) -> str:
        """Return the SHA-256 (hex) of what decides every answer: model, features, calibration, golden predictions, parameters.

        Times, names, lineage and metrics do not count, so the same snapshot, seed and versions give the same digest.
        """
        content = {name: getattr(self, name) for name in _CONTENT_FIELDS}
        content["files"] = {name: digest for name, digest in self.files.items() if name != METRICS}
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


# Decoders are made once, at import: the first use of a type by several threads at once can end the process (msgspec 0.22), and
# a replica loads its models side by side.
_manifest = msgspec.json.Decoder(Manifest)


class LoadedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """A verified artifact: its manifest and the very bytes that were verified, without manifest and signature."""

    manifest: Manifest
    files: dict[str, bytes]

    @property
    def digest(self) -> str:
        """Return the content digest."""
        return self.manifest.content_digest


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of shape (n, d) and the outputs of shape (n, k) that every runtime must reproduce."""

    inputs: list[list[float]]
    outputs: list[list[float]]


def golden_file(inputs: Sequence[Sequence[float]], outputs: Sequence[Sequence[float]]) -> bytes:
    """Return ``golden.json`` for rows of features and their scores (arrays or lists).

    Raises:
        ValueError: when their numbers differ or there are none.
    """
    if len(inputs) != len(outputs) or len(inputs) == 0:
        message = f"golden predictions need as many outputs as inputs, got {len(outputs)} for {len(inputs)}"
        raise ValueError(message)
    rows = [[float(value) for value in row] for row in inputs]
    return msgspec.json.encode(Golden(inputs=rows, outputs=[[float(value) for value in row] for row in outputs]))


def build_artifact(manifest: Manifest, files: Mapping[str, bytes], signing_key: SigningKey) -> dict[str, bytes]:
    """Return ``files`` with ``manifest.json`` (digests filled in) and ``manifest.sig``; the same input gives the same bytes.

    Raises:
        ValueError: for a file name that is not plain or belongs to the manifest, or without golden predictions.
    """
    for name in files:
        if not _PLAIN_NAME.fullmatch(name) or name in {MANIFEST, SIGNATURE}:
            message = f"not a name of an artifact's file: {name!r}"
            raise ValueError(message)
    if GOLDEN not in files:
        message = f"an artifact needs {GOLDEN}: inputs and the outputs that prove a runtime"
        raise ValueError(message)
    digests = {name: _digest(content) for name, content in sorted(files.items())}
    filled = msgspec.structs.replace(manifest, files=digests, golden_digest=digests[GOLDEN])
    raw = msgspec.json.encode(filled, order="sorted")
    return {**files, MANIFEST: raw, SIGNATURE: signing_key.sign(raw)}


def open_artifact(files: Mapping[str, bytes], trusted_keys: TrustedKeys) -> LoadedArtifact:
    """Return the artifact in ``files`` once its signature and every digest hold.

    Raises:
        ArtifactRejectedError: with the fact ``file`` and why.
    """
    for name in (MANIFEST, SIGNATURE):
        if name not in files:
            raise ArtifactRejectedError(f"{name} is missing: the artifact is not signed", file=name)
    trusted_keys.verify(files[MANIFEST], files[SIGNATURE])
    manifest = _decoded(files[MANIFEST])
    content = {name: raw for name, raw in files.items() if name not in {MANIFEST, SIGNATURE}}
    _check_files(manifest, content)
    return LoadedArtifact(manifest=manifest, files=content)


def write_artifact(folder: Path, artifact: Mapping[str, bytes]) -> None:
    """Write what ``build_artifact`` returned as ``folder``: under a temporary name, fsynced, renamed; it appears whole or not at all.

    Raises:
        FileExistsError: when the folder is there already; artifacts never change.
    """
    if folder.exists():
        message = f"{folder} exists; artifacts never change"
        raise FileExistsError(message)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in artifact.items():
            _write_synced(temporary / name, content)
        _sync_folder(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(folder.parent)


def load_artifact(folder: Path, trusted_keys: TrustedKeys) -> LoadedArtifact:
    """Return the artifact in ``folder``, each file read once.

    Raises:
        ArtifactRejectedError: as :func:`open_artifact`, and when the folder cannot be read.
    """
    try:
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    except OSError as error:
        raise ArtifactRejectedError(f"the artifact cannot be read: {error}", file=str(folder)) from error
    return open_artifact(files, trusted_keys)


def _decoded(raw: bytes) -> Manifest:
    try:
        manifest = _manifest.decode(raw)
    except msgspec.DecodeError as error:
        raise ArtifactRejectedError(f"{MANIFEST} is not a manifest: {error}", file=MANIFEST) from error
    if manifest.format_version != FORMAT_VERSION:
        raise ArtifactRejectedError(
            f"{MANIFEST} has format {manifest.format_version}, known is {FORMAT_VERSION}", file=MANIFEST
        )
    if manifest.reducer_version != REDUCER_VERSION:
        raise ArtifactRejectedError(
            f"made for reducer version {manifest.reducer_version}, this is {REDUCER_VERSION}", file=MANIFEST
        )
    return manifest


def _check_files(manifest: Manifest, content: Mapping[str, bytes]) -> None:
    for name in sorted(manifest.files.keys() | content.keys()):
        if name not in content:
            raise ArtifactRejectedError(f"{name} is missing", file=name)
        if name not in manifest.files:
            raise ArtifactRejectedError(f"{name} is not in the manifest", file=name)
        if _digest(content[name]) != manifest.files[name]:
            raise ArtifactRejectedError(f"{name} does not have the digest of its manifest", file=name)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
