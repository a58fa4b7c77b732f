"""The register of topics against the packages: every topic has an example, a writer and a reader in the code."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import schemas.topics
from schemas.codec import decode, encode
from schemas.topics import COMMAND_EXECUTORS, TOPICS, Topic
from schemas.vocabulary import Service
from tests.architecture.sources import files_of, imported_names, tree_of
from tools.reference.packages import ROOT

EXAMPLES = ROOT / "schemas" / "examples"
CONSTANTS = {value.name: name for name, value in vars(schemas.topics).items() if isinstance(value, Topic)}
MESSAGES = [
    pytest.param(topic, message, id=message.__name__) for topic in TOPICS.values() for message in topic.messages
]
ENDS = [
    pytest.param(topic, package, id=f"{topic.name}-{package}")
    for topic in TOPICS.values()
    for package in (*topic.producers, *topic.consumers)
    if package != "host"
]
RAW_TOPICS = [topic for topic in TOPICS.values() if not topic.messages]


def examples_of(topic: Topic) -> list[Path]:
    """Return the example files of a topic, every version of it."""
    return sorted((EXAMPLES / topic.name).rglob("*.json"))


@pytest.mark.parametrize(("topic", "message"), MESSAGES)
def test_every_message_type_has_an_example_that_reads_back(topic: Topic, message: type[Any]) -> None:
    """Every message type has an example that reads back."""
    found = [
        each for each in (decode(topic, path.read_bytes()) for path in examples_of(topic)) if type(each) is message
    ]
    assert found
    for example in found:
        assert decode(topic, encode(example)) == example


def test_examples_belong_to_topics_of_the_register() -> None:
    """Every example belongs to a topic of the register."""
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} <= set(TOPICS)


def names_used(package: str) -> set[str]:
    """Return what the package takes from the register, as a name or as an attribute of the module."""
    return {name for path in files_of(package) for name in imported_names(path, "schemas.topics") | attributes(path)}


def attributes(path: Path) -> set[str]:
    """Return every attribute that the file reads in capitals (``topics.CONTROL``)."""
    return {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute) and node.attr.isupper()}


@pytest.mark.parametrize(("topic", "package"), ENDS)
def test_who_is_named_as_writer_or_reader_uses_the_topic(topic: Topic, package: str) -> None:
    """Every package that the register names as writer or reader uses the topic."""
    assert CONSTANTS[topic.name] in names_used(package) | names_used("backends")


def test_every_topic_has_a_writer_and_a_reader() -> None:
    """Every topic has a writer and a reader."""
    for topic in TOPICS.values():
        assert topic.producers, topic.name
        assert topic.consumers, topic.name


def test_every_command_has_one_executor_among_the_readers_of_control() -> None:
    """Every command has one executor among the readers of the control topic."""
    assert set(COMMAND_EXECUTORS) == set(schemas.topics.CONTROL.messages)
    assert set(COMMAND_EXECUTORS.values()) <= set(schemas.topics.CONTROL.consumers)


def test_only_dead_letters_are_raw_bytes() -> None:
    """Every topic except dead letters has message types."""
    assert RAW_TOPICS == [schemas.topics.DEAD_LETTERS]


def test_writers_and_readers_are_processes_or_the_host() -> None:
    """Writers and readers are processes of the system or the host."""
    ends = {end for topic in TOPICS.values() for end in (*topic.producers, *topic.consumers)}
    assert ends <= {*Service, "host"}
