"""Keys that sign artifacts and keys that are trusted: Ed25519, one file a key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import ArtifactRejectedError, SettingsError

FINGERPRINT_BYTES = 16
SIGNATURE_BYTES = FINGERPRINT_BYTES + 64


class SigningKey:
    """A private key. A signature is 80 bytes: 16 of the public key's fingerprint, 64 of Ed25519; none of them is redundant."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._fingerprint = _fingerprint(private.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Return the key in the PEM file at ``path``.

        Raises:
            SettingsError: when there is no such key.
        """
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            message = f"no signing key can be read from {path}: {error}"
            raise SettingsError(message) from error
        if not isinstance(private, Ed25519PrivateKey):
            message = f"the key in {path} is not an Ed25519 key"
            raise SettingsError(message)
        return cls(private)

    def save(self, path: Path) -> None:
        """Write the private key to ``path`` (mode 600) and the public one beside it with the suffix ``.pub``.

        Raises:
            FileExistsError: a key is never overwritten.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(
                self._private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        path.with_suffix(".pub").write_bytes(self.public_pem())

    def public_pem(self) -> bytes:
        """Return the public key as PEM."""
        return self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def trusted(self) -> TrustedKeys:
        """Return a set of trusted keys with this key alone."""
        return TrustedKeys([self._private.public_key()])

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``; the same for the same message."""
        return self._fingerprint + self._private.sign(message)


class TrustedKeys:
    """The public keys whose signatures are accepted."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {_fingerprint(key): key for key in keys}

    @classmethod
    def load(cls, folder: Path) -> TrustedKeys:
        """Return the keys of all ``*.pub`` files in ``folder``.

        Raises:
            SettingsError: when there is none, or one is not an Ed25519 key.
        """
        keys = [_public_key(path) for path in sorted(folder.glob("*.pub"))]
        if not keys:
            message = f"there is no trusted key (*.pub) in {folder}"
            raise SettingsError(message)
        return cls(keys)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Accept ``message`` or raise.

        Raises:
            ArtifactRejectedError: when the signature is malformed, of an unknown key, or not of this message.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise ArtifactRejectedError(
                f"the signature has {len(signature)} bytes, not {SIGNATURE_BYTES}", file="manifest.sig"
            )
        key = self._keys.get(signature[:FINGERPRINT_BYTES])
        if key is None:
            raise ArtifactRejectedError(
                f"signed by an unknown key {signature[:FINGERPRINT_BYTES].hex()}", file="manifest.sig"
            )
        try:
            key.verify(signature[FINGERPRINT_BYTES:], message)
        except InvalidSignature as error:
            raise ArtifactRejectedError("manifest.json does not have its signature", file="manifest.json") from error


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        message = f"no public key can be read from {path}: {error}"
        raise SettingsError(message) from error
    if not isinstance(key, Ed25519PublicKey):
        message = f"the key in {path} is not an Ed25519 key"
        raise SettingsError(message)
    return key


def _fingerprint(key: Ed25519PublicKey) -> bytes:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).digest()[:FINGERPRINT_BYTES]
