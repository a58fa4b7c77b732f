"""What a model package says of its version 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What makes version 0 of a model.

    Attributes:
        files: JSON files by name, as values that msgspec encodes; ``parameters.json`` describes the scorer.
        manifest: further fields of the manifest.
    """

    files: Mapping[str, object]
    manifest: Mapping[str, Any] = field(default_factory=dict)
