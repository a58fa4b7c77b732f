"""Artifacts: what is opened is what was signed, to the byte."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from modelkit.features import REDUCER_VERSION
from modelkit.manifest import (
    GOLDEN,
    MANIFEST,
    METRICS,
    MODEL,
    PARAMETERS,
    SIGNATURE,
    Manifest,
    build_artifact,
    golden_file,
    load_artifact,
    open_artifact,
    write_artifact,
)
from modelkit.registry import definition_of
from modelkit.signing import SigningKey, TrustedKeys
from modelkit.version_zero import baseline_artifact
from schemas.errors import ArtifactRejectedError, SettingsError
from tests.unit.models.samples import CREATED_AT, KEY, learned, manifest, opened

FLIPS = 200


@pytest.fixture(scope="module")
def artifact() -> dict[str, bytes]:
    """Give a signed artifact with a graph, golden predictions and metrics."""
    weights = np.full((61, 1), 1 / 61, dtype=np.float32)
    return learned(manifest("goal"), weights, metrics_json=b'{"auc":0.8}')


def test_opened_artifact_is_what_was_built(artifact: dict[str, bytes]) -> None:
    """Opening an artifact gives the very bytes that were signed."""
    loaded = opened(artifact)
    assert loaded.files == {name: raw for name, raw in artifact.items() if name not in {MANIFEST, SIGNATURE}}
    assert loaded.manifest.golden_digest == loaded.manifest.files[GOLDEN]


def test_flipped_bytes_are_rejected(artifact: dict[str, bytes]) -> None:
    """An artifact with a flipped bit is rejected."""
    generator = np.random.default_rng(11)
    names = sorted(artifact)
    for _ in range(FLIPS):
        name = names[generator.integers(len(names))]
        damaged = bytearray(artifact[name])
        damaged[generator.integers(len(damaged))] ^= 1 << int(generator.integers(8))
        with pytest.raises(ArtifactRejectedError) as caught:
            opened({**artifact, name: bytes(damaged)})
        assert caught.value.facts["file"] in {name, MANIFEST, SIGNATURE}


def test_every_byte_of_the_signature_counts(artifact: dict[str, bytes]) -> None:
    """A signature with any byte changed is rejected."""
    for place in range(len(artifact[SIGNATURE])):
        damaged = bytearray(artifact[SIGNATURE])
        damaged[place] ^= 0x20
        with pytest.raises(ArtifactRejectedError):
            opened({**artifact, SIGNATURE: bytes(damaged)})


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, MODEL, GOLDEN])
def test_missing_file_is_named(artifact: dict[str, bytes], name: str) -> None:
    """An artifact that lacks a file is rejected, and the error names the file."""
    with pytest.raises(ArtifactRejectedError, match=name):
        opened({other: raw for other, raw in artifact.items() if other != name})


def test_unexpected_file_is_rejected(artifact: dict[str, bytes]) -> None:
    """A file that is not in the manifest is rejected."""
    with pytest.raises(ArtifactRejectedError, match=r"extra\.json is not in the manifest"):
        opened({**artifact, "extra.json": b"{}"})


def test_short_signature_is_rejected(artifact: dict[str, bytes]) -> None:
    """A signature of the wrong length is rejected."""
    with pytest.raises(ArtifactRejectedError, match="bytes"):
        opened({**artifact, SIGNATURE: b""})


def test_unknown_key_is_rejected(artifact: dict[str, bytes]) -> None:
    """The signature of an unknown key is rejected."""
    with pytest.raises(ArtifactRejectedError, match="unknown key"):
        open_artifact(artifact, SigningKey.generate().trusted())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("reducer_version", REDUCER_VERSION + 1, "reducer version"), ("format_version", 99, "format 99")],
)
def test_other_versions_are_rejected(artifact: dict[str, bytes], field: str, value: int, message: str) -> None:
    """A manifest of another format or reducer version is rejected."""
    foreign = build_artifact(
        msgspec.structs.replace(opened(artifact).manifest, **{field: value}), opened(artifact).files, KEY
    )
    with pytest.raises(ArtifactRejectedError, match=message):
        opened(foreign)


def test_signed_nonsense_is_rejected(artifact: dict[str, bytes]) -> None:
    """A signed file that is no manifest is rejected."""
    with pytest.raises(ArtifactRejectedError, match="not a manifest"):
        opened({**artifact, MANIFEST: b"{}", SIGNATURE: KEY.sign(b"{}")})


def test_content_digest_ignores_times_names_and_lineage(artifact: dict[str, bytes]) -> None:
    """Times, names and lineage leave the content digest unchanged."""
    loaded = opened(artifact)
    later = msgspec.structs.replace(
        loaded.manifest,
        created_at=CREATED_AT + dt.timedelta(days=1),
        snapshot_digest="s",
        parent_digest="p",
        metrics={"auc": 0.9},
        library_versions={"numpy": "9"},
    )
    again = opened(build_artifact(later, {**loaded.files, METRICS: b"{}"}, KEY))
    assert again.digest == loaded.digest
    assert again.manifest != loaded.manifest


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_content_digest_covers_every_file_that_decides(artifact: dict[str, bytes], name: str) -> None:
    """A change in any file that decides an answer changes the content digest."""
    loaded = opened(artifact)
    other = build_artifact(loaded.manifest, {**loaded.files, name: loaded.files[name] + b" "}, KEY)
    assert opened(other).digest != loaded.digest


def test_content_digest_covers_parameters(artifact: dict[str, bytes]) -> None:
    """A change of parameters changes the content digest."""
    loaded = opened(artifact)
    other = msgspec.structs.replace(loaded.manifest, parameters={"output_column": 0})
    assert opened(build_artifact(other, loaded.files, KEY)).digest != loaded.digest


def test_same_input_gives_the_same_bytes() -> None:
    """The same input gives the same bytes."""
    first, second = (baseline_artifact(definition_of("spending"), KEY, CREATED_AT) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["../model.onnx", "manifest.json", "Model", "a/b.json", ".json"])
def test_odd_file_names_are_refused(name: str) -> None:
    """A file name that could leave the folder is refused."""
    drafted = manifest("goal")
    with pytest.raises(ValueError, match="not a name"):
        build_artifact(drafted, {name: b"", GOLDEN: b""}, KEY)


def test_artifact_without_golden_predictions_is_refused() -> None:
    """An artifact without golden predictions is refused."""
    with pytest.raises(ValueError, match=r"golden\.json"):
        build_artifact(manifest("goal"), {PARAMETERS: b"{}"}, KEY)


def test_golden_file_needs_pairs() -> None:
    """Golden predictions have as many outputs as inputs, and at least one."""
    with pytest.raises(ValueError, match="got 0 for 0"):
        golden_file([], [])
    with pytest.raises(ValueError, match="got 0 for 1"):
        golden_file([[1.0]], [])


def test_folder_holds_the_same_artifact(artifact: dict[str, bytes], tmp_path: Path) -> None:
    """A folder gives back the same artifact, and no temporary folder stays."""
    write_artifact(tmp_path / "v1", artifact)
    assert load_artifact(tmp_path / "v1", KEY.trusted()) == opened(artifact)
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]
    with pytest.raises(FileExistsError):
        write_artifact(tmp_path / "v1", artifact)


def test_interrupted_write_leaves_nothing(artifact: dict[str, bytes], tmp_path: Path) -> None:
    """An interrupted write leaves nothing behind."""
    broken = {**artifact, "z/z.json": b""}
    with pytest.raises(FileNotFoundError):
        write_artifact(tmp_path / "v1", broken)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_folder_is_rejected(tmp_path: Path) -> None:
    """A folder that cannot be read is rejected as an artifact."""
    with pytest.raises(ArtifactRejectedError, match="cannot be read"):
        load_artifact(tmp_path / "nowhere", KEY.trusted())


def test_keys_survive_the_disk(tmp_path: Path) -> None:
    """A key that is loaded from disk signs as before."""
    key = SigningKey.generate()
    key.save(tmp_path / "signing.pem")
    signature = SigningKey.load(tmp_path / "signing.pem").sign(b"message")
    TrustedKeys.load(tmp_path).verify(b"message", signature)
    assert (tmp_path / "signing.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(FileExistsError):
        key.save(tmp_path / "signing.pem")


EC_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("content", [None, b"nonsense", EC_KEY])
def test_folder_without_a_good_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A folder without a usable trusted key is refused."""
    if content is not None:
        (tmp_path / "one.pub").write_bytes(content)
    with pytest.raises(SettingsError):
        TrustedKeys.load(tmp_path)


def test_missing_signing_key_is_named(tmp_path: Path) -> None:
    """A missing signing key is a settings error that says so."""
    with pytest.raises(SettingsError, match="no signing key"):
        SigningKey.load(tmp_path / "signing.pem")


def test_signing_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A signing key of another kind is refused."""
    pem = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "signing.pem").write_bytes(pem)
    with pytest.raises(SettingsError, match="not an Ed25519 key"):
        SigningKey.load(tmp_path / "signing.pem")


def test_manifest_survives_json() -> None:
    """A manifest survives its encoding, field by field."""
    drafted = manifest("spending", metrics={"mae": 1.5}, library_versions={"numpy": "2"})
    assert msgspec.json.decode(msgspec.json.encode(drafted), type=Manifest) == drafted
