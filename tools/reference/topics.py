"""Renders the register of topics as a page."""

from __future__ import annotations

from schemas.topics import COMMAND_EXECUTORS, DEFAULT_WIDE_PARTITIONS, MIB, TOPICS, Topic
from tools.reference.markdown import first_paragraph, page, table

SECONDS_A_DAY = 86_400


def kept(topic: Topic) -> str:
    """Return how long the topic keeps a message."""
    if topic.cleanup == "compact":
        return "compacted: the last message of each key"
    if topic.retention_seconds is None:
        return "for ever"
    days = topic.retention_seconds / SECONDS_A_DAY
    return f"{days:g} day{'' if days == 1 else 's'}"


def topic_row(topic: Topic) -> list[str]:
    """Return one topic as a row of the table."""
    return [
        f"`{topic.name}`",
        f"`{topic.key}`",
        str(topic.partitions(DEFAULT_WIDE_PARTITIONS)),
        kept(topic),
        f"{topic.max_message_bytes / MIB:g} MiB",
        ", ".join(topic.producers),
        ", ".join(topic.consumers),
    ]


def message_rows(topic: Topic) -> list[list[str]]:
    """Return one row for each message type of ``topic``."""
    return [
        [f"`{topic.name}`", f"`{message.__name__}`", first_paragraph(message.__doc__)] for message in topic.messages
    ]


def render() -> str:
    """Return docs/reference/topics.md."""
    overview = table(
        ["topic", "key", "partitions", "kept", "largest message", "written by", "read by"],
        [topic_row(topic) for topic in TOPICS.values()],
    )
    messages = table(["topic", "message", "meaning"], [row for topic in TOPICS.values() for row in message_rows(topic)])
    executors = table(["command", "executed by"], [[f"`{k.__name__}`", v] for k, v in COMMAND_EXECUTORS.items()])
    return page(
        "Topics",
        f"Wide topics are shown with the default number of partitions ({DEFAULT_WIDE_PARTITIONS}); the number is part of the data.",
        overview,
        f"## Messages\n\n{messages}",
        f"## Commands\n\n{executors}",
    )
