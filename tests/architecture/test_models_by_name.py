"""No process knows a model: they are found by entry point, and nothing is done for one of them alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import SERVICES, files_of, name_of, string_constants, tree_of
from tests.four_models import FOUR_MODELS

NAMES = re.compile(rf"\b(?:{'|'.join((*FOUR_MODELS, 'churn'))})\b")  # as keys: small letters
# What is called so and is no model, by file. Whatever is added here says why.
ALLOWED: dict[str, set[str]] = {
    # A caller describes a goal that the user's state does not know yet: a field of the host's request.
    "serving/service.py": {"goal"},
    "modelkit/interface.py": {"goal"},
    # A user's goals, which the event contract has whatever models there are.
    "modelkit/features/fold.py": {"goal"},
    "modelkit/statistics/consistency.py": {"goal"},
}


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each name that the file gives or uses, with its line; parts of longer names are not looked at."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.arg if isinstance(node, ast.arg) else node.name, node.lineno
        elif isinstance(node, ast.keyword | ast.alias):
            yield (node.arg if isinstance(node, ast.keyword) else node.name) or "", node.lineno


def words_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each word of the file that is a model's name, with its line, wherever it stands: code, comment or docstring."""
    for number, line in enumerate(path.read_text(encoding="utf-8").lower().splitlines(), start=1):
        yield from ((found.group(), number) for found in NAMES.finditer(line))


def code_words_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each model's name among identifiers and in strings that are no docstrings."""
    yield from ((name, line) for name, line in identifiers(path) if NAMES.fullmatch(name))
    for text, line in string_constants(path):
        yield from ((found.group(), line) for found in NAMES.finditer(text))


def unexpected(path: Path, words: Iterator[tuple[str, int]]) -> list[str]:
    """Return where the file says a model's name without a reason."""
    allowed = ALLOWED.get(name_of(path), set())
    return sorted({f"{name_of(path)}:{line} {word}" for word, line in words if word not in allowed})


@pytest.mark.parametrize("package", [*SERVICES, "backends"])
def test_no_process_says_the_name_of_a_model(package: str) -> None:
    """No process or shared package names a model, not even in a comment, so a new model needs no line there."""
    assert [place for path in files_of(package) for place in unexpected(path, words_of(path))] == []


def test_what_models_stand_on_does_nothing_for_one_of_them() -> None:
    """No identifier and no text in modelkit is a model's name; its documents may speak of goals and recommendations of users."""
    assert [place for path in files_of("modelkit") for place in unexpected(path, code_words_of(path))] == []


def test_every_exception_is_needed() -> None:
    """Every exception in the list is needed."""
    for name, words in ALLOWED.items():
        (path,) = [path for path in files_of(name.partition("/")[0]) if name_of(path) == name]
        assert words <= {word for word, _ in code_words_of(path)}, name


@pytest.mark.parametrize(
    "source",
    [
        "QUERY = \"SELECT 1 FROM predictions WHERE model_type = 'goal'\"",
        'if model_type == "spending": pass',
        "def recommendation(): pass",
        "train(segmentation=1)",
        "rules.goal.threshold",
    ],
)
def test_a_name_is_found_wherever_it_stands(source: str, tmp_path: Path) -> None:
    """The checks above find a model's name in code, comments and docstrings."""
    path = tmp_path / "code.py"
    path.write_text(source, encoding="utf-8")
    assert list(code_words_of(path))
    assert list(words_of(path))


@pytest.mark.parametrize("source", ['KIND = "goal_modification"', "state.goals", "import recommendation_interaction"])
def test_words_of_the_event_contract_are_no_models(source: str, tmp_path: Path) -> None:
    """The names of events and of what the state remembers stay free."""
    path = tmp_path / "code.py"
    path.write_text(source, encoding="utf-8")
    assert list(code_words_of(path)) == list(words_of(path)) == []
