"""The lock of message shapes: records the shape of each version of each message, and fails if a message changed.

``schemas/shapes.lock.json`` holds the exact shape for each type (by its name on the wire) and version. A changed message
fails the check until somebody rewrites the lock (``make schema-lock``), and so reviews the change. A released version
keeps its shape for ever: its messages are in topics and archives, and hosts still send them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import msgspec

from schemas.codec import tag_of, version_of
from schemas.topics import TOPICS, Topic
from tools.reference.packages import ROOT
from tools.shapes import changes, digest_of, hides_its_version, shape_of

FILE = "schemas/shapes.lock.json"
WRITE = "run `make schema-lock`, review its changes, and commit them"
# Type on the wire -> {"topic": name, "versions": {number as text: {"digest": ..., "fields": shape}}}
Lock = dict[str, dict[str, Any]]


def register() -> dict[str, tuple[Topic, type[msgspec.Struct]]]:
    """Return topic and struct of each current message type, by its name on the wire."""
    return {tag_of(message): (topic, message) for topic in TOPICS.values() for message in topic.messages}


def locked_today(before: Lock, released: Lock) -> Lock:
    """Return the lock to write: current shapes beside those of earlier versions; released messages stay."""
    today: Lock = {}
    for name, (topic, message) in register().items():
        versions = {
            number: entry for number, entry in _versions(before, name).items() if int(number) < version_of(message)
        }
        shape = shape_of(message)
        versions[str(version_of(message))] = {"digest": digest_of(shape), "fields": shape}
        today[name] = {"topic": topic.name, "versions": versions}
    return today | {name: entry for name, entry in released.items() if name not in today}


def drifts(lock: Lock) -> list[str]:
    """Return a sentence for each current message that differs from the lock."""
    found = [line for name, (_, message) in register().items() for line in _drifts(lock, name, message)]
    unknown = [f"{name} is in the lock and in no topic: {WRITE}" for name in lock if name not in register()]
    return found + unknown


def breaches(lock: Lock, released: Lock, tag: str) -> list[str]:
    """Return a sentence for each released version whose shape differs in ``lock`` or is missing."""
    return [
        f"{name}: version {number} was released with {tag} and must keep its shape ({_changed(entry, _versions(lock, name).get(number))}). "
        f"Give the message `schema_version` {int(number) + 1}, an upcast in schemas/codec.py if readers need one, "
        f"and an example of the new version; then {WRITE}"
        for name, message in released.items()
        for number, entry in message["versions"].items()
        if _versions(lock, name).get(number, {}).get("digest") != entry["digest"]
    ]


def silent_versions() -> list[str]:
    """Return a sentence for each message beyond version 1 that does not write its version."""
    return [
        f"{name}: omits its defaults, and with them its version; readers would take it for version 1. "
        f"Write `schema_version: int = msgspec.field(default_factory=lambda: {version_of(message)})`"
        for name, (_, message) in register().items()
        if hides_its_version(message)
    ]


def last_release() -> str | None:
    """Return the newest release tag in the history of the work tree, or None before the first release."""
    command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v*"]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return found.stdout.strip() or None


def released_lock(tag: str | None) -> Lock:
    """Return the lock at ``tag``; empty before the first release and if it had none."""
    command = ["git", "show", f"{tag}:{FILE}"]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True) if tag else None
    return msgspec.json.decode(found.stdout, type=Lock) if found and found.returncode == 0 else {}


def written_lock() -> Lock:
    """Return the lock of the work tree; empty if there is none."""
    path = ROOT / FILE
    return msgspec.json.decode(path.read_bytes(), type=Lock) if path.is_file() else {}


def check() -> list[str]:
    """Return all complaints."""
    lock, tag = written_lock(), last_release()
    return [*silent_versions(), *drifts(lock), *breaches(lock, released_lock(tag), str(tag))]


def write() -> list[str]:
    """Write the lock unless that would change a released shape; return the complaints."""
    tag = last_release()
    released = released_lock(tag)
    lock = locked_today(written_lock(), released)
    refused = [*silent_versions(), *breaches(lock, released, str(tag))]
    if not refused:
        (ROOT / FILE).write_text(rendered(lock), encoding="utf-8")
    return refused


def rendered(lock: Lock) -> str:
    """Return the lock as JSON with one line per field, for readable diffs."""
    return "{\n" + ",\n".join(_rendered_message(name, lock[name]) for name in sorted(lock)) + "\n}\n"


def _drifts(lock: Lock, name: str, message: type[msgspec.Struct]) -> list[str]:
    version = version_of(message)
    entry = _versions(lock, name).get(str(version))
    if entry is None:
        return [f"{name}: version {version} is not in the lock: {WRITE}"]
    if entry["digest"] != digest_of(entry["fields"]):
        return [f"{name}: version {version} was changed in the lock by hand: {WRITE}"]
    differences = changes(entry["fields"], shape_of(message))
    if not differences:
        return []
    return [
        f"{name}: changed without a new version ({', '.join(differences)}). An unreleased version may change: {WRITE}"
    ]


def _versions(lock: Lock, name: str) -> dict[str, Any]:
    versions: dict[str, Any] = lock.get(name, {}).get("versions", {})
    return versions


def _changed(released: dict[str, Any], now: dict[str, Any] | None) -> str:
    return ", ".join(changes(released["fields"], now["fields"])) if now else "it is missing"


def _rendered_message(name: str, message: dict[str, Any]) -> str:
    versions = ",\n".join(
        f'      "{number}": {{\n        "digest": {_line(entry["digest"])},\n        "fields": {{\n'
        + ",\n".join(f"          {_line(field)}: {_line(shape)}" for field, shape in entry["fields"].items())
        + "\n        }\n      }"
        for number, entry in sorted(message["versions"].items(), key=lambda item: int(item[0]))
    )
    return f'  {_line(name)}: {{\n    "topic": {_line(message["topic"])},\n    "versions": {{\n{versions}\n    }}\n  }}'


def _line(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def main() -> int:
    """Check, or write with --write; print each complaint and return 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the lock of the current shapes")
    is_writing = parser.parse_args().write
    complaints = write() if is_writing else check()
    for line in complaints:
        print(f"schemas: {line}")
    if not complaints:
        print(f"{FILE}: {len(register())} messages {'written' if is_writing else 'as locked'}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
