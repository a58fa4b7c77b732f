"""The register of metrics: names that fit the house, each with its description, rendered for Prometheus."""

from __future__ import annotations

import re

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from backends.telemetry.metrics import METRICS, REGISTRY, MetricRegister, render

NAME = re.compile(r"fincoach_[a-z]+(_[a-z]+)+")
UNITS = ("seconds", "records", "offset", "events", "ratio", "jobs", "number")


def test_every_metric_follows_the_naming_of_the_house_and_says_what_it_is() -> None:
    """Every metric follows the naming rules and has a description."""
    for family in REGISTRY.collect():
        assert NAME.fullmatch(family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert family.type == "counter" or family.name.endswith(UNITS), family.name


def test_every_metric_is_an_attribute_of_the_register() -> None:
    """Every metric is an attribute of the register."""
    attributes = [m for m in vars(MetricRegister).values() if isinstance(m, Counter | Gauge | Histogram)]
    assert len(attributes) == len(list(REGISTRY.collect()))


def test_what_is_counted_is_rendered() -> None:
    """What is counted is rendered."""
    METRICS.commands_answered.labels(command="TestCommand", outcome="succeeded").inc(3)
    families = {family.name: family for family in text_string_to_metric_families(render().decode())}
    samples = {
        tuple(sorted(sample.labels.items())): sample.value
        for sample in families["fincoach_commands_answered"].samples
        if sample.name.endswith("_total")
    }
    assert samples[("command", "TestCommand"), ("outcome", "succeeded")] == 3.0
