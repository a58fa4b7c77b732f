"""What a look at the installed models finds: libraries in the wrong process, parts that are missing or of another kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelkit import inspection
from modelkit.definition import PARTS_OF_PROCESS, Part
from modelkit.inspection import ALLOWED_LIBRARIES, InspectionError, LoadedPart, ProcessImports, imports_of
from modelkit.registry import definition_of
from tests.four_models import FOUR_MODELS
from tests.model_packages import environment_with, write_package


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder from which fresh interpreters import."""
    monkeypatch.setenv("PYTHONPATH", environment_with(tmp_path)["PYTHONPATH"])
    return tmp_path


def problems_of(process: str, model_type: str) -> list[str]:
    """Return what is wrong with one model in one process."""
    return [sentence for sentence in imports_of(process).problems if f" of {model_type}" in sentence]


@pytest.mark.parametrize("process", ["streams", "serving", "deployer", "admin"])
def test_light_processes_load_the_four_models_without_a_learning_library(process: str) -> None:
    """Each light process imports its parts of the four models and nothing that its extra does not install."""
    found = imports_of(process)
    assert found.problems == ()
    assert {part.model_type for part in found.parts} >= set(FOUR_MODELS)
    assert {name for part in found.parts for name in part.libraries} <= ALLOWED_LIBRARIES[process]


def test_a_package_whose_data_set_imports_a_learning_library_is_named(folder: Path) -> None:
    """The model, its part, the library and the way out stand in one sentence."""
    (folder / "heavy_dataset.py").write_text("import sklearn\nfrom models.spending.dataset import DATASET\n")
    write_package(folder, "heavy", dataset="heavy_dataset:DATASET")
    (sentence,) = [line for line in problems_of("streams", "heavy") if "scikit-learn" in line]
    assert sentence.startswith("streams: dataset of heavy imports scikit-learn, which streams does not install;")
    assert "move that import" in sentence


def test_a_part_that_needs_what_is_not_installed_says_which_module(folder: Path) -> None:
    """An operator reads which module is missing and what to install."""
    (folder / "needy.py").write_text("import no_such_module_anywhere\n")
    write_package(folder, "needy", dataset="needy:DATASET", runtime="needy_too:X")
    (sentence,) = problems_of("streams", "needy")
    assert "needs the module no_such_module_anywhere, which is not installed; install" in sentence


def test_a_part_that_fails_at_import_is_one_sentence(folder: Path) -> None:
    """A package that raises at import is reported, and the other models are still looked at."""
    (folder / "angry.py").write_text("raise ValueError('no')\n")
    write_package(folder, "angry", dataset="angry:DATASET")
    found = imports_of("streams")
    (sentence,) = found.problems
    assert "angry:DATASET cannot be loaded (ValueError: no); import it in Python" in sentence
    assert {part.model_type for part in found.parts if part.problem is None} >= set(FOUR_MODELS)


@pytest.mark.parametrize(
    ("part", "address", "sentence"),
    [
        ("dataset", "models.goal.gate:GATE", "is a Gate; make it a DatasetDefinition"),
        ("runtime", "models.goal.gate:GATE", "is no class below ScoringRuntime"),
        ("runtime", "modelkit.scoring:ScoringRuntime", "names no features"),
        ("runtime", "models.goal.runtime:GoalRuntime", "says model_type='goal'; its definition says 'spending'"),
        ("answer", "models.goal.gate:GATE", "is no class below ServedShape"),
        ("baseline", "models.goal.gate:GATE", "is no Baseline"),
        ("gate", "models.goal.baseline:BASELINE", "is no Gate"),
        ("trainer", "models.goal.gate:GATE", "has no prepare, samples, fit, evaluate"),
        ("trainer", "models.goal.training:TRAINER", "says model_type='goal'; its definition says 'spending'"),
        ("trainer", "models.goal:nothing", "cannot be loaded (AttributeError"),
    ],
)
def test_a_part_of_another_kind_is_said(part: str, address: str, sentence: str) -> None:
    """A package that names the wrong object learns what is expected there."""
    changes: dict[str, Any] = {part: Part(address)}
    changed = replace(definition_of("spending"), **changes)
    found = inspection.problem_of(changed, part)
    assert found is not None
    assert sentence in found


def test_an_interpreter_that_dies_is_an_error_with_its_last_line(folder: Path) -> None:
    """A package that ends the interpreter does not end the command without a word."""
    (folder / "deadly.py").write_text("import os\nos._exit(3)\n")
    write_package(folder, "deadly", dataset="deadly:DATASET")
    with pytest.raises(InspectionError, match="streams: the interpreter that loads its parts ended with status 3"):
        imports_of("streams")


def test_an_interpreter_that_does_not_end_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that waits for ever at import does not make the command wait for ever."""
    (folder / "slow.py").write_text("import threading\nthreading.Event().wait()\n")
    write_package(folder, "slow", dataset="slow:DATASET")
    monkeypatch.setattr(inspection, "LOAD_SECONDS", 3.0)
    with pytest.raises(InspectionError, match="were not loaded within 3 s"):
        imports_of("streams")


def test_every_process_says_what_it_allows() -> None:
    """A new process would end with a KeyError in place of an answer."""
    assert ALLOWED_LIBRARIES.keys() == PARTS_OF_PROCESS.keys()


def test_libraries_are_named_as_people_call_them() -> None:
    """A table of libraries names each once, by the name under which it is installed."""
    parts = tuple(LoadedPart(model_type="goal", part=name, libraries=("sklearn",)) for name in ("gate", "trainer"))
    assert ProcessImports(process="trainers", parts=parts).libraries == ("scikit-learn",)
