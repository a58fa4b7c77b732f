"""Fails where a message of the last release could no longer be read.

Compares the message schemas of docs/reference/asyncapi.yaml with the same file at the last release tag. A reader
must stay able to read what is still in a topic: nothing that was optional or absent may become required, no
field may change its type, no message may go away. A break goes through a new schema version and an upcast in the codec.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import yaml

from tools.reference.rooms import ROOT

DOCUMENT = "docs/reference/asyncapi.yaml"

Schemas = dict[str, dict[str, Any]]


def last_release() -> str | None:
    """Return the newest tag that is an ancestor of the work tree, or None before the first release."""
    command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v*"]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return found.stdout.strip() or None


def released_schemas(tag: str) -> Schemas:
    """Return the message schemas at ``tag``; empty where the document did not exist yet."""
    command = ["git", "show", f"{tag}:{DOCUMENT}"]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return schemas_of(found.stdout) if found.returncode == 0 else {}


def schemas_of(text: str) -> Schemas:
    """Return the schemas of an AsyncAPI document."""
    schemas: Schemas = yaml.safe_load(text)["components"]["schemas"]
    return schemas


def breaks(old: Schemas, new: Schemas) -> list[str]:
    """Return a sentence for each way in which ``new`` cannot read what ``old`` wrote."""
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
    """Return a field's shape without what only people read, and without its default."""
    return {key: value for key, value in shape.items() if key not in {"description", "title", "default"}}


def main() -> int:
    """Print each break; return 1 where there is one."""
    tag = last_release()
    if tag is None:
        print("schemas: no release yet, nothing to compare with")
        return 0
    found = breaks(released_schemas(tag), schemas_of((ROOT / DOCUMENT).read_text(encoding="utf-8")))
    for line in found:
        print(f"schemas: {line} (since {tag})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
