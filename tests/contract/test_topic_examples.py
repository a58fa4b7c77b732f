"""One suite for every example of a message: it is read by the codec and written again as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from schemas.codec import CURRENT_VERSIONS, decode, encode
from schemas.topics import TOPICS, Topic

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
FILES = sorted(EXAMPLES.glob("*/*/v*/*.json"))
TYPES = [pytest.param(topic, message, id=message.__name__) for topic in TOPICS.values() for message in topic.messages]


def topic_of(path: Path) -> Topic:
    """Return the topic in whose folder the example lies."""
    return TOPICS[path.parents[2].name]


def shown(path: Path) -> str:
    """Return how a test of the example is called."""
    return "/".join(path.relative_to(EXAMPLES).parts[1:])


def is_current(path: Path) -> bool:
    """Return whether the example is of the version that is written today."""
    tag = msgspec.json.decode(path.read_bytes())[topic_of(path).tag_field]
    return path.parent.name == f"v{CURRENT_VERSIONS.get(tag, 1)}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_it_is_read_as_the_type_whose_folder_it_lies_in(path: Path) -> None:
    """An example is read as the type whose folder contains it."""
    assert type(decode(topic_of(path), path.read_bytes())).__name__ == path.parents[1].name


@pytest.mark.parametrize("path", [path for path in FILES if is_current(path)], ids=shown)
def test_it_is_written_again_as_it_was(path: Path) -> None:
    """Reading and writing an example changes nothing."""
    message = decode(topic_of(path), path.read_bytes())
    assert msgspec.json.decode(encode(message)) == msgspec.json.decode(path.read_bytes())


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_it_says_the_version_whose_folder_it_lies_in(path: Path) -> None:
    """An example has the version of its folder."""
    document = msgspec.json.decode(path.read_bytes())
    assert f"v{document.get('schema_version', 1)}" == path.parent.name


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_it_fits_the_published_json_schema(path: Path) -> None:
    """An example is valid under the published JSON schema."""
    schema = msgspec.json.schema(topic_of(path).union)
    jsonschema.validate(msgspec.json.decode(path.read_bytes()), schema)


@pytest.mark.parametrize(("topic", "message"), TYPES)
def test_each_type_has_an_example_of_each_version(topic: Topic, message: type[Any]) -> None:
    """Every version of every type has an example."""
    versions = range(1, CURRENT_VERSIONS.get(message.__struct_config__.tag, 1) + 1)
    folders = [EXAMPLES / topic.name / message.__name__ / f"v{version}" for version in versions]
    assert [folder for folder in folders if not list(folder.glob("*.json"))] == []


def test_no_example_lies_outside_the_layout() -> None:
    """Every example is in a folder that the checks read."""
    assert sorted(EXAMPLES.rglob("*.json")) == FILES
