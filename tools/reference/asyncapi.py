"""Renders the register of topics as an AsyncAPI 3.0 document."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from schemas.topics import DEFAULT_WIDE_PARTITIONS, TOPICS, Topic
from tools.reference.markdown import first_paragraph

VERSION = "3.0.0"
BINDING_VERSION = "0.5.0"
CONTENT_TYPE = "application/json"
RAW = "RawMessage"


def channel_id(topic: Topic) -> str:
    """Return the name of ``topic`` inside the document: ``fincoach.model-ready`` is ``modelReady``."""
    first, *rest = topic.name.removeprefix("fincoach.").split("-")
    return first + "".join(word.capitalize() for word in rest)


def message_names(topic: Topic) -> list[str]:
    """Return the names of the message types; a topic of raw bytes has a special one."""
    return [message.__name__ for message in topic.messages] or [RAW]


def kafka_binding(topic: Topic) -> dict[str, Any]:
    """Return the Kafka binding of ``topic``."""
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup], "max.message.bytes": topic.max_message_bytes}
    if topic.retention_seconds is not None:
        configuration["retention.ms"] = topic.retention_seconds * 1000
    return {
        "topic": topic.name,
        "partitions": topic.partitions(DEFAULT_WIDE_PARTITIONS),
        "topicConfiguration": configuration,
        "bindingVersion": BINDING_VERSION,
    }


def channel(topic: Topic) -> dict[str, Any]:
    """Return the channel of ``topic``."""
    return {
        "address": topic.name,
        "description": f"Keyed by {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in message_names(topic)},
        "bindings": {"kafka": kafka_binding(topic)},
    }


def operations(topic: Topic) -> dict[str, Any]:
    """Return one operation for each service that writes or reads ``topic``."""
    ends = [("send", package) for package in topic.producers] + [("receive", package) for package in topic.consumers]
    identity = channel_id(topic)
    return {
        f"{package}.{action}.{identity}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{identity}"},
            "tags": [{"name": str(package)}],
        }
        for action, package in ends
    }


def component_messages() -> dict[str, Any]:
    """Return every message type once."""
    messages: dict[str, Any] = {
        message.__name__: {
            "name": message.__name__,
            "contentType": CONTENT_TYPE,
            "summary": first_paragraph(message.__doc__),
            "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
        }
        for topic in TOPICS.values()
        for message in topic.messages
    }
    messages[RAW] = {
        "name": RAW,
        "contentType": "application/octet-stream",
        "summary": "The original bytes; the headers give the reason.",
    }
    return messages


def component_schemas() -> dict[str, Any]:
    """Return the JSON schema of every message type and of its parts."""
    types = [message for topic in TOPICS.values() for message in topic.messages]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return dict(sorted(schemas.items()))


def document() -> dict[str, Any]:
    """Return the whole document as plain data."""
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "FinCoach Continuous Learning",
            "version": "1.0.0",
            "description": "Every topic, from the register in schemas/topics.py.",
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {channel_id(topic): channel(topic) for topic in TOPICS.values()},
        "operations": {name: each for topic in TOPICS.values() for name, each in operations(topic).items()},
        "components": {"messages": component_messages(), "schemas": component_schemas()},
    }


def render() -> str:
    """Return docs/reference/asyncapi.yaml."""
    plain = msgspec.to_builtins(document())
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return "# Written by `make docs` from the code; edit the code instead.\n" + text
