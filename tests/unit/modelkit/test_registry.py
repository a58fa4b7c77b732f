"""How models are found: sound packages by their name, broken ones as a sentence each."""

from __future__ import annotations

from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from modelkit.definition import ModelPackageError, Part
from modelkit.registry import GROUP, Discovery, definition_of, discovery_of, installed
from tests.four_models import FOUR_MODELS
from tests.model_packages import write_package


def found_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Discovery:
    """Return what the entry points of the packages in ``folder`` give."""
    monkeypatch.syspath_prepend(folder)
    points = [
        point for each in distributions(path=[str(folder)]) for point in each.entry_points if point.group == GROUP
    ]
    return discovery_of(points)


def test_the_four_models_come_through_the_door() -> None:
    """Our models are found as anybody's are: by the entry-point group, each under its own name."""
    assert set(installed()) >= set(FOUR_MODELS)
    for model_type in FOUR_MODELS:
        assert installed()[model_type].model_type == model_type


def test_a_package_of_somebody_else_is_found_with_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth model would stay unknown, or nobody could say where it comes from."""
    found = found_in(write_package(tmp_path, "fifth"), monkeypatch)
    assert list(found.definitions) == ["fifth"]
    assert found.distributions["fifth"] == "of-test-fifth 0.3"
    assert found.problems == ()


@pytest.mark.parametrize(
    ("name", "source", "sentence"),
    [
        ("raises", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("number", "DEFINITION = 5", "it is a int, not a ModelDefinition"),
        ("goal_like", "from models.goal import DEFINITION", "its definition says model_type='goal'"),
        ("Big", None, "a model's name has small letters"),
        ("x" * 33, None, "a model's name has small letters"),
    ],
)
def test_a_broken_package_is_left_out_with_a_sentence(
    name: str, source: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken package is left out, its distribution is named, and a sound one beside it is found."""
    write_package(write_package(tmp_path, f"sound_{len(name)}"), name, source=source)
    found = found_in(tmp_path, monkeypatch)
    (problem,) = found.problems
    assert sentence in problem
    assert problem.startswith(f"{name} of of-test-{name} 0.3 (of_test_{name}:DEFINITION) is left out: ")
    assert list(found.definitions) == [f"sound_{len(name)}"]


def test_a_package_of_another_contract_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was written for another contract does not reach a process."""
    (problem,) = found_in(write_package(tmp_path, "older", contract=0), monkeypatch).problems
    assert "it was written for contract 0, this is contract 1" in problem


def test_the_second_of_two_packages_with_one_name_is_left_out() -> None:
    """Which of two packages serves a model would depend on the order of a folder."""
    points = [
        EntryPoint(name="goal", value="models.goal:DEFINITION", group=GROUP),
        EntryPoint(name="goal", value="tests.model_packages:TWIN", group=GROUP),
    ]
    found = discovery_of(points)
    assert found.definitions["goal"] is definition_of("goal")
    (problem,) = found.problems
    assert "another distribution brings a model of this name already" in problem


def test_a_model_that_is_not_installed_is_named_beside_those_that_are() -> None:
    """Who mistypes a name sees the names that there are."""
    with pytest.raises(ModelPackageError, match="no model 'weather' is installed here; installed are goal,"):
        definition_of("weather")


@pytest.mark.parametrize("address", ["no_such_module_anywhere:X", "models.goal:nothing"])
def test_a_part_that_cannot_be_loaded_names_its_address(address: str) -> None:
    """The address of a missing part is in the sentence."""
    with pytest.raises(ModelPackageError, match=f"the part {address} cannot be loaded"):
        Part[object](address).load()
