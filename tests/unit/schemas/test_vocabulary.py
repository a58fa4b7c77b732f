"""Words and register: versions order as numbers, topics are configured as they are described."""

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
    """A version would change between the database and a manifest."""
    version = SemanticVersion(*numbers)
    assert SemanticVersion.parse(str(version)) == version


@given(st.tuples(parts, parts, parts), st.tuples(parts, parts, parts))
def test_versions_order_as_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    """Version 1.10.0 would be taken for one before 1.9.0."""
    assert (SemanticVersion(*one) < SemanticVersion(*other)) == (one < other)


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "-1.2.3", "1.2.3 "])
def test_what_is_no_version_is_refused(text: str) -> None:
    """A misspelt version would be looked for, and not found, or found as another."""
    with pytest.raises(ValueError, match="semantic version"):
        SemanticVersion.parse(text)


@pytest.mark.parametrize("text", ["goal", "a", "will_buy_again_60", "m" * LONGEST_MODEL_TYPE])
def test_a_model_is_named_by_a_plain_word(text: str) -> None:
    """A package may choose any name that fits into topics, paths and columns."""
    assert is_model_type(text)
    assert msgspec.json.decode(msgspec.json.encode(text), type=ModelType) == text


@pytest.mark.parametrize("text", ["", "Goal", "1st", "a-b", "a b", "goal\n", "\u00e4", "m" * (LONGEST_MODEL_TYPE + 1)])
def test_other_names_are_refused_everywhere(text: str) -> None:
    """A name that would break a path or a column is refused where it is first read."""
    assert not is_model_type(text)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(text), type=ModelType)
    with pytest.raises(ValidationError):
        TypeAdapter(api.ModelType).validate_python(text)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: str(topic.name))
def test_every_topic_is_stamped_by_the_broker(topic: Topic) -> None:
    """With the producers' own times a replay of 1997 would be deleted within a minute."""
    assert topic.configuration()["message.timestamp.type"] == "LogAppendTime"


def test_compacted_topics_have_no_time_limit() -> None:
    """The desired state of a model that has not changed for a month would be gone."""
    assert MODEL_DEPLOYMENTS.configuration()["cleanup.policy"] == "compact"
    assert "retention.ms" not in MODEL_DEPLOYMENTS.configuration()


def test_only_topics_by_user_are_spread() -> None:
    """Messages whose order matters would overtake each other on two partitions."""
    assert {topic.name: topic.partitions(12) for topic in TOPICS.values() if topic.wide} == {
        "fincoach.behavioral-events": 12,
        "fincoach.predictions": 12,
    }
    assert {topic.partitions(12) for topic in TOPICS.values() if not topic.wide} == {1}


def test_dead_letters_hold_the_largest_message_and_its_headers() -> None:
    """The message that could not be taken in could not be put aside either."""
    assert DEAD_LETTERS.configuration()["max.message.bytes"] == str(5 * MIB)
    assert max(topic.max_message_bytes for topic in TOPICS.values() if topic is not DEAD_LETTERS) < 5 * MIB
    assert PREDICTIONS.configuration()["retention.ms"] == str(14 * 86_400 * 1000)


def test_an_errors_docstring_is_its_message() -> None:
    """An error without words of its own would say nothing."""
    assert str(CommandRejectedError()).startswith("A command cannot be carried out")
    error = FinCoachError("why", model="goal")
    assert (str(error), error.facts) == ("why", {"model": "goal"})
