"""What each package imports against what its extra installs: an image of one process must be enough for that process."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from typing import Any

import pytest

from tests.architecture.sources import files_of, tree_of
from tools.reference.packages import PACKAGES, ROOT

OURS = {*PACKAGES, "migrations"}
# Which extras stand beside the base where a package runs; floors below the processes run with every one of them.
EXTRAS = {
    "schemas": (),
    "backends": (),
    "modelkit": ("streams", "serving", "trainers", "conformance"),
    "models": ("streams", "serving", "trainers"),
    "streams": ("streams",),
    "trainers": ("trainers",),
    "deployer": ("deployer",),
    "serving": ("serving",),
    "admin": ("admin",),
    "stack": ("stack", "admin", "streams", "trainers", "deployer", "serving"),
    "migrations": (),
}


@functools.cache
def project(path: str = "pyproject.toml") -> dict[str, Any]:
    """Return the project table of a pyproject file."""
    table: dict[str, Any] = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    return table


def plain(requirement: str) -> str:
    """Return the distribution's name in its normal form, without extras and versions."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def declared(*extras: str) -> set[str]:
    """Return the distributions of the base and of these extras."""
    lines = [
        *project()["dependencies"],
        *(line for extra in extras for line in project()["optional-dependencies"][extra]),
    ]
    return {plain(line) for line in lines}


@functools.cache
def distributions() -> dict[str, list[str]]:
    """Return which distributions bring each top-level module."""
    return {
        name: [plain(each) for each in found] for name, found in importlib.metadata.packages_distributions().items()
    }


def imported_modules(package: str) -> set[str]:
    """Return the top-level modules of others that the package imports, anywhere in its files."""
    found: set[str] = set()
    for path in files_of(package):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


def undeclared(package: str, allowed: set[str]) -> set[str]:
    """Return what the package imports and ``allowed`` does not bring."""
    return {name for name in imported_modules(package) if not allowed & set(distributions().get(name, []))}


@pytest.mark.parametrize("package", EXTRAS)
def test_a_package_imports_only_what_its_extra_installs(package: str) -> None:
    """A package imports only what its extra installs."""
    assert undeclared(package, declared(*EXTRAS[package])) == set()


def test_the_client_imports_only_what_its_wheel_asks_for() -> None:
    """The client imports only what its wheel requires."""
    allowed = {plain(line) for line in project("fincoach_events/pyproject.toml")["dependencies"]}
    assert undeclared("fincoach_events", allowed) == set()


def test_an_import_that_is_not_declared_is_found() -> None:
    """The checks above find an undeclared import."""
    assert "torch" in undeclared("models", declared())


def test_every_dependency_says_why_it_is_there() -> None:
    """Every dependency has a reason."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = re.findall(r'^  "[^"]+",.*$', section, re.MULTILINE)
    assert len(lines) > 30
    assert [line for line in lines if not re.search(r"# \S", line)] == []


def test_every_dependency_is_pinned() -> None:
    """Every dependency is pinned."""
    pins = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    wanted = declared(*(name for name in project()["optional-dependencies"] if name != "all")) - {"fincoach-events"}
    assert wanted - {plain(name) for name in pins} == set()
