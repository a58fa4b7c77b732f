"""Files that call themselves pure against the import rules that hold them to it."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import Any

import pytest

from tests.architecture.sources import files_of, tree_of
from tools.reference.packages import ROOT

CLAIM = re.compile(r"(?:^|[.:;?!] )Pure\b")


def import_rules() -> dict[str, Any]:
    """Return the settings of import-linter."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rules: dict[str, Any] = tomllib.loads(text)["tool"]["importlinter"]
    return rules


def is_held_to_purity(module: str) -> bool:
    """Say whether a contract of purity lists the module, or a package above it; ``*`` stands for one name."""
    contracts = [each for each in import_rules()["contracts"] if each["id"].startswith("pure")]
    listed = [re.escape(name).replace(r"\*", "[^.]+") for each in contracts for name in each["source_modules"]]
    return any(re.fullmatch(rf"{name}(\..+)?", module) for name in listed)


def claims_purity(docstring: str) -> bool:
    """Say whether the first paragraph of a docstring says that the file is pure."""
    return CLAIM.search(" ".join(docstring.partition("\n\n")[0].split())) is not None


def pure_modules() -> list[str]:
    """Return the modules of the house whose docstrings say that they are pure."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in import_rules()["root_packages"]
        for path in files_of(package)
        if claims_purity(ast.get_docstring(tree_of(path)) or "")
    ]


@pytest.mark.parametrize("module", pure_modules())
def test_a_file_that_calls_itself_pure_is_held_to_it(module: str) -> None:
    """A contract forbids clock and database to every file that calls itself pure."""
    assert is_held_to_purity(module)


def test_a_file_that_nothing_holds_to_purity_is_found() -> None:
    """The check above tells a listed module from one whose name only begins alike, and from its neighbours."""
    assert is_held_to_purity("streams.quality.freshness")
    assert is_held_to_purity("models.goal.dataset")
    assert not is_held_to_purity("streams.quality_of_service")
    assert not is_held_to_purity("models.goal.training.dataset")
    assert not is_held_to_purity("streams.service")


def test_the_claim_is_found_wherever_it_is_made() -> None:
    """The check above sees the claim at the end of the first paragraph and with conditions, and no other use of the word."""
    assert len(pure_modules()) > 40
    assert claims_purity("Which artifacts may go. Pure.")
    assert claims_purity("Is it the same\ndatabase? Pure.\n\nMore.")
    assert claims_purity("When to stop. Pure: the caller brings the time.")
    assert not claims_purity("Processes.\n\nPure rules are elsewhere.")
    assert not claims_purity("A Pureblood.")
