"""The source files of the house as syntax trees, for the rules that no linter can say."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tools.reference.packages import PACKAGES, ROOT

SERVICES = ("streams", "trainers", "deployer", "serving", "admin")


def files_of(*folders: str) -> list[Path]:
    """Return every Python file below ``folders`` (relative to the repository), in order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def package_files() -> list[Path]:
    """Return every Python file of every package."""
    return files_of(*PACKAGES)


def name_of(path: Path) -> str:
    """Return the path relative to the repository, with forward slashes."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file; parsed once."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def called_methods(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and line of each method call in the file; a call without arguments as ``name()``."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr + ("" if node.args or node.keywords else "()"), node.lineno


def imported_names(path: Path, module: str) -> set[str]:
    """Return what the file takes from ``module`` (``from module import name``)."""
    return {
        alias.name
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }


def string_constants(path: Path) -> Iterator[tuple[str, int]]:
    """Yield text and line of each string in the file that is not a docstring."""
    tree = tree_of(path)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno
