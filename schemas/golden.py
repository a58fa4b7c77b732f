"""The golden messages: the register's examples of every version of every message, as the wheel contains them.

A process that cannot read them is itself broken.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

from schemas.topics import TOPICS, Topic


class GoldenMessage(NamedTuple):
    """One example: its topic, its path in the folder of examples, and its bytes."""

    topic: Topic
    name: str
    raw: bytes


def golden_messages() -> tuple[GoldenMessage, ...]:
    """Return all examples, by topic, type, version and name."""
    folder = resources.files("schemas") / "examples"
    return tuple(
        GoldenMessage(TOPICS[topic.name], f"{message.name}/{version.name}/{example.name}", example.read_bytes())
        for topic in _sorted(folder)
        for message in _sorted(topic)
        for version in _sorted(message)
        for example in _sorted(version)
    )


def _sorted(folder: resources.abc.Traversable) -> list[resources.abc.Traversable]:
    return sorted(folder.iterdir(), key=lambda each: each.name)
