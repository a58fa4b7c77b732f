"""Which artifacts may go. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from schemas.vocabulary import ArtifactKind, SemanticVersion


class StoredVersion(NamedTuple):
    """A version of one model, and its use now."""

    version: SemanticVersion
    kind: ArtifactKind
    address: str
    in_use: bool  # active or previous


def expendable(versions: Iterable[StoredVersion], *, kept: int) -> list[str]:
    """Return the addresses that may be deleted: learned versions beyond the newest ``kept`` that are not in use.

    The baseline stays for ever; so does every artifact that a kept version shares.
    """
    everything = list(versions)
    learned = sorted((item for item in everything if item.kind == ArtifactKind.LEARNED), reverse=True)
    staying = {item.address for item in learned[:kept]}
    staying |= {item.address for item in everything if item.in_use or item.kind == ArtifactKind.BASELINE}
    return sorted({item.address for item in learned} - staying)
