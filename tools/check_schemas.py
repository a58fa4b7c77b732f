"""Fails if a message changed without a new version, or if messages of the last release can no longer be read.

:mod:`tools.schema_lock` finds the former. For the latter, this compares the message schemas of docs/reference/asyncapi.yaml
with those of the last release tag. A reader must be able to read all messages in a topic: no optional or absent field may
become required, no field may change its type, no message may disappear. A breaking change needs a new schema version and
an upcast in the codec; therefore messages with a raised version are left to the tests of their versions.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import yaml

from schemas.codec import version_of
from tools import schema_lock
from tools.reference.packages import ROOT
from tools.schema_lock import Lock, last_release, register, released_lock

DOCUMENT = "docs/reference/asyncapi.yaml"

Schemas = dict[str, dict[str, Any]]


def released_schemas(tag: str) -> Schemas:
    """Return the message schemas at ``tag``; empty if the document did not exist yet."""
    command = ["git", "show", f"{tag}:{DOCUMENT}"]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return schemas_of(found.stdout) if found.returncode == 0 else {}


def schemas_of(text: str) -> Schemas:
    """Return the schemas of an AsyncAPI document."""
    schemas: Schemas = yaml.safe_load(text)["components"]["schemas"]
    return schemas


def breaks(old: Schemas, new: Schemas) -> list[str]:
    """Return a sentence for each way in which ``new`` cannot read messages of ``old``."""
    gone = [f"{name}: is gone" for name in old if name not in new]
    return gone + [line for name in old if name in new for line in struct_breaks(name, old[name], new[name])]


def struct_breaks(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the breaks inside one struct or enumeration."""
    required = [
        f"{name}.{field}: is now required" for field in new.get("required", []) if field not in old.get("required", [])
    ]
    fields = new.get("properties", {})
    changed = [
        f"{name}.{field}: its type changed"
        for field, shape in old.get("properties", {}).items()
        if field in fields and without_words(fields[field]) != without_words(shape)
    ]
    narrowed = [
        f"{name}: no longer knows {value!r}" for value in old.get("enum", []) if value not in new.get("enum", [])
    ]
    return required + changed + narrowed


def without_words(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a field's shape without its descriptions and its default."""
    return {key: value for key, value in shape.items() if key not in {"description", "title", "default"}}


def raised(released: Lock) -> set[str]:
    """Return the message classes with a later version than the release."""
    return {
        message.__name__
        for name, (_, message) in register().items()
        if name in released and str(version_of(message)) not in released[name]["versions"]
    }


def broken_since(tag: str) -> list[str]:
    """Return a sentence for each break since the release ``tag``."""
    old = released_schemas(tag)
    kept = {name: shape for name, shape in old.items() if name not in raised(released_lock(tag))}
    found = breaks(kept, schemas_of((ROOT / DOCUMENT).read_text(encoding="utf-8")))
    return [f"{line} (since {tag})" for line in found]


def main() -> int:
    """Print each complaint; return 1 if there is one."""
    tag = last_release()
    complaints = schema_lock.check() + (broken_since(tag) if tag else [])
    for line in complaints:
        print(f"schemas: {line}")
    if not complaints:
        print(f"schemas: as locked, nothing broken since {tag}" if tag else "schemas: as locked; no release yet")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
