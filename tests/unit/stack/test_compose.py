"""The compose file and the Dockerfile agree with the code: services, commands, settings, broker, extras."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.settings import ProcessSettings
from schemas.topics import DEAD_LETTERS, DEFAULT_WIDE_PARTITIONS
from schemas.vocabulary import Service
from stack.broker import EmbeddedBroker
from stack.system import System, SystemPlan

ROOT = Path(__file__).parents[3]
APPLICATION = ("streams", "trainer", "deployer", "replica-1", "replica-2")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Give the parsed compose file."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="module")
def extras() -> set[str]:
    """Give the extras of the application wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


def test_each_process_of_the_stack_is_a_service(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers run the same processes as `fincoach-learning up`."""
    monkeypatch.setenv("FINCOACH_DATABASE_URL", "postgresql+asyncpg://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("FINCOACH_BROKERS", "127.0.0.1:1")
    planned = System(SystemPlan(folder=tmp_path)).planned
    in_compose = sorted(compose["services"][name]["command"][-1] for name in APPLICATION)
    assert in_compose == sorted(str(endpoint.service) for endpoint in planned)


@pytest.mark.parametrize("service", APPLICATION)
def test_commands_name_modules_that_exist(compose: dict[str, Any], service: str) -> None:
    """Each container starts a module that exists."""
    interpreter, flag, module = compose["services"][service]["command"]
    assert (interpreter, flag) == ("python", "-m")
    assert module in set(Service)
    assert find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("service", [*APPLICATION, "prepare"])
def test_settings_are_known(compose: dict[str, Any], service: str) -> None:
    """Containers get only settings that the code reads."""
    known = {f"FINCOACH_{name.upper()}" for name in ProcessSettings.model_fields}
    assert set(compose["services"][service]["environment"]) <= known


@pytest.mark.parametrize("service", [*APPLICATION, "prepare"])
def test_images_carry_the_extra_of_their_service(compose: dict[str, Any], extras: set[str], service: str) -> None:
    """Each image has the libraries of its own process only."""
    asked = compose["services"][service]["build"]["args"]["EXTRAS"].split(",")
    assert set(asked) <= extras
    if service != "prepare":
        assert asked == [compose["services"][service]["command"][-1]]


def test_partitions_agree(compose: dict[str, Any]) -> None:
    """Topics have as many partitions as the workers expect."""
    environments = [compose["services"][name]["environment"] for name in (*APPLICATION, "prepare")]
    assert {environment["FINCOACH_WIDE_PARTITIONS"] for environment in environments} == {str(DEFAULT_WIDE_PARTITIONS)}


def test_the_broker_is_set_up_as_the_embedded_one(compose: dict[str, Any], tmp_path: Path) -> None:
    """Time stamps, sizes and topic creation are configured as in the embedded broker."""
    embedded = EmbeddedBroker(tmp_path, port=1, controller_port=2).properties()
    environment = compose["services"]["kafka"]["environment"]
    for name in (
        "log.message.timestamp.type",
        "auto.create.topics.enable",
        "message.max.bytes",
        "replica.fetch.max.bytes",
        "process.roles",
    ):
        assert environment[f"KAFKA_{name.upper().replace('.', '_')}"] == embedded[name]
    assert int(environment["KAFKA_MESSAGE_MAX_BYTES"]) >= DEAD_LETTERS.max_message_bytes


def test_the_image_is_that_of_the_tested_broker(compose: dict[str, Any]) -> None:
    """Containers run the tested version of Kafka."""
    version = re.search(
        r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", (ROOT / "stack" / "broker_pom.xml").read_text()
    )
    assert version is not None
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{version.group(1)}"


def test_the_dockerfile_copies_every_package() -> None:
    """The image contains every package of the wheels."""
    copied = set(re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert copied == {*packages, "fincoach_events"}
