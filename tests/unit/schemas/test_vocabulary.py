"""Versions, model names, topics and errors."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas import api
from schemas.errors import CommandRejectedError, FinCoachError
from schemas.topics import DEAD_LETTERS, MIB, MODEL_DEPLOYMENTS, PREDICTIONS, TOPICS, Topic
from schemas.vocabulary import LONGEST_MODEL_TYPE, ModelType, SemanticVersion, is_model_type

parts = st.integers(0, 10_000)


@given(st.tuples(parts, parts, parts))
def test_a_version_reads_what_it_writes(numbers: tuple[int, int, int]) -> None:
    """A version survives its text form."""
    version = SemanticVersion(*numbers)
    assert SemanticVersion.parse(str(version)) == version


@given(st.tuples(parts, parts, parts), st.tuples(parts, parts, parts))
def test_versions_order_as_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    """Versions are ordered numerically."""
    assert (SemanticVersion(*one) < SemanticVersion(*other)) == (one < other)


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "-1.2.3", "1.2.3 "])
def test_what_is_no_version_is_refused(text: str) -> None:
    """Text that is not a semantic version is rejected."""
    with pytest.raises(ValueError, match="semantic version"):
        SemanticVersion.parse(text)


@pytest.mark.parametrize("text", ["goal", "a", "will_buy_again_60", "m" * LONGEST_MODEL_TYPE])
def test_a_model_is_named_by_a_plain_word(text: str) -> None:
    """A valid model name is accepted everywhere."""
    assert is_model_type(text)
    assert msgspec.json.decode(msgspec.json.encode(text), type=ModelType) == text


@pytest.mark.parametrize("text", ["", "Goal", "1st", "a-b", "a b", "goal\n", "\u00e4", "m" * (LONGEST_MODEL_TYPE + 1)])
def test_other_names_are_refused_everywhere(text: str) -> None:
    """A name that would break a path or a column is rejected when it is first read."""
    assert not is_model_type(text)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(text), type=ModelType)
    with pytest.raises(ValidationError):
        TypeAdapter(api.ModelType).validate_python(text)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: str(topic.name))
def test_every_topic_is_stamped_by_the_broker(topic: Topic) -> None:
    """The broker sets timestamps, so that retention does not delete a replay of old events."""
    assert topic.configuration()["message.timestamp.type"] == "LogAppendTime"


def test_compacted_topics_have_no_time_limit() -> None:
    """Compacted topics have no retention limit."""
    assert MODEL_DEPLOYMENTS.configuration()["cleanup.policy"] == "compact"
    assert "retention.ms" not in MODEL_DEPLOYMENTS.configuration()


def test_only_topics_by_user_are_spread() -> None:
    """Only topics keyed by user have more than one partition."""
    assert {topic.name: topic.partitions(12) for topic in TOPICS.values() if topic.wide} == {
        "fincoach.behavioral-events": 12,
        "fincoach.predictions": 12,
    }
    assert {topic.partitions(12) for topic in TOPICS.values() if not topic.wide} == {1}


def test_dead_letters_hold_the_largest_message_and_its_headers() -> None:
    """The dead-letter topic holds the largest message of any topic."""
    assert DEAD_LETTERS.configuration()["max.message.bytes"] == str(5 * MIB)
    assert max(topic.max_message_bytes for topic in TOPICS.values() if topic is not DEAD_LETTERS) < 5 * MIB
    assert PREDICTIONS.configuration()["retention.ms"] == str(14 * 86_400 * 1000)


def test_an_errors_docstring_is_its_message() -> None:
    """An error without a message uses its class's docstring."""
    assert str(CommandRejectedError()).startswith("A command cannot be carried out")
    error = FinCoachError("why", model="goal")
    assert (str(error), error.facts) == ("why", {"model": "goal"})
