"""The generated reference: AsyncAPI is valid, every setting and metric says what it means, and nothing is behind the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from pydantic_settings import BaseSettings

from schemas.topics import TOPICS
from tools import generate_docs
from tools.reference import asyncapi
from tools.reference.metrics import registered_metrics
from tools.reference.packages import ROOT, settings_modules
from tools.reference.settings import own_fields, settings_classes

ASYNCAPI_SCHEMA = Path(__file__).parent / "asyncapi-3.0.0.schema.json"
SETTINGS = [
    pytest.param(found, id=f"{package}.{found.__name__}")
    for package, module in settings_modules().items()
    for found in settings_classes(module)
]


def validator() -> jsonschema.Draft7Validator:
    """Return a validator of AsyncAPI 3.0 documents."""
    return jsonschema.Draft7Validator(msgspec.json.decode(ASYNCAPI_SCHEMA.read_bytes()))


def resolve(document: dict[str, Any], reference: str) -> Any:  # noqa: ANN401 - a JSON value
    """Return what ``reference`` (``#/a/b``) points at; raises KeyError where there is nothing."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> list[str]:  # noqa: ANN401 - a JSON value
    """Return every reference inside ``value``."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for part in value.values() for each in references(part)]
    return [each for part in value for each in references(part)] if isinstance(value, list) else []


def test_asyncapi_is_valid() -> None:
    """The AsyncAPI document is valid."""
    errors = [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(asyncapi.document())]
    assert errors == []


def test_the_validator_refuses_a_wrong_document() -> None:
    """The check above refuses a wrong document."""
    broken = asyncapi.document() | {"operations": {"x": {"action": "shout"}}}
    assert list(validator().iter_errors(broken))


def test_every_reference_of_asyncapi_leads_somewhere() -> None:
    """Every reference in the AsyncAPI document resolves."""
    document = msgspec.to_builtins(asyncapi.document())
    found = references(document)
    assert found
    for reference in found:
        assert resolve(document, reference)


def test_asyncapi_has_every_topic_and_each_of_its_ends() -> None:
    """The AsyncAPI document has every topic with its producers and consumers."""
    document = asyncapi.document()
    assert {channel["address"] for channel in document["channels"].values()} == set(TOPICS)
    ends = sum(len(topic.producers) + len(topic.consumers) for topic in TOPICS.values())
    assert len(document["operations"]) == ends


def test_asyncapi_is_yaml_that_reads_back() -> None:
    """The written YAML reads back as the same document."""
    assert yaml.safe_load(asyncapi.render()) == msgspec.json.decode(msgspec.json.encode(asyncapi.document()))


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_says_what_it_means(settings: type[BaseSettings]) -> None:
    """Every setting has a description."""
    silent = [name for name, field in own_fields(settings).items() if not field.description]
    assert silent == []


def test_settings_are_frozen_and_carry_our_prefix() -> None:
    """Settings are frozen and have the prefix ``FINCOACH_``."""
    classes = [found for module in settings_modules().values() for found in settings_classes(module)]
    assert classes
    for found in classes:
        assert found.model_config.get("frozen"), found
        assert found.model_config.get("env_prefix") == "FINCOACH_", found


def test_every_metric_carries_prefix_unit_and_description() -> None:
    """Every metric has a prefix, a unit and a description."""
    metrics = registered_metrics()
    assert metrics
    for metric in metrics:
        family = next(iter(metric.describe()))
        assert family.name.startswith("fincoach_")
        assert family.documentation.endswith(".")


def test_the_reference_is_not_behind_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The pages in docs/reference match the code."""
    assert generate_docs.check() == 0, capsys.readouterr().out


def test_the_check_sees_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make docs-check` finds an outdated page."""
    monkeypatch.setattr(generate_docs, "REFERENCE", tmp_path / "reference")
    generate_docs.write()
    assert generate_docs.check() == 0
    page = tmp_path / "reference" / "topics.md"
    page.write_text(page.read_text(encoding="utf-8").replace("fincoach.control", "fincoach.orders"), encoding="utf-8")
    assert generate_docs.check() == 1


def test_every_page_is_listed_and_none_is_left_over() -> None:
    """Every page is listed, and no page is left over."""
    assert {path.name for path in (ROOT / "docs" / "reference").iterdir()} == set(generate_docs.PAGES)
