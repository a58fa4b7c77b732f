"""The oracle of the fault runs judges with its own eyes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ORACLE = Path(__file__).parents[1] / "chaos" / "oracle"
PRODUCT = {"fincoach_events", "schemas", "backends", "modelkit", "models", "streams", "trainers", "deployer", "serving", "admin", "stack"}  # fmt: skip


def oracle_files() -> list[Path]:
    """Return the files of the oracle."""
    return sorted(ORACLE.glob("*.py"))


def imported(file: Path) -> set[str]:
    """Return the names of all modules that ``file`` imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("file", oracle_files(), ids=lambda file: file.stem)
def test_the_oracle_shares_no_code_with_the_product(file: Path) -> None:
    """The oracle shares no code with the product."""
    ours = {f"tests.chaos.oracle.{other.stem}" for other in oracle_files()}
    for name in imported(file):
        root = name.partition(".")[0]
        assert root not in PRODUCT, f"{file.name} imports {name}"
        assert root != "tests" or name in ours, f"{file.name} imports {name}, which may import the product"


def test_the_oracle_is_where_this_test_looks() -> None:
    """This test looks at the files of the oracle."""
    assert {"invariants", "recount", "counting", "reading", "replayed_states"} <= {file.stem for file in oracle_files()}
