"""Packages, sizes and doors: what import-linter and ruff cannot say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from schemas.tables import metadata
from schemas.topics import TOPICS
from schemas.vocabulary import Service
from tests.architecture.sources import (
    SERVICES,
    called_methods,
    files_of,
    name_of,
    package_files,
    string_constants,
    tree_of,
)
from tools.reference.metrics import registered_metrics
from tools.reference.packages import PACKAGES, ROOT

LONGEST_FILE_LINES = 500
LONGEST_FUNCTION_LINES = 80
LONGEST_CLASS_LINES = 300

# Offsets are committed to the broker there; transactions nowhere but in the unit of work.
OFFSET_COMMITS = {"backends/broker/kafka.py", "backends/broker/partitions.py", "backends/broker/processor.py"}
UNIT_OF_WORK = "backends/database/unit_of_work.py"
TOPIC_NAMES_LIVE_IN = {"schemas/topics.py", "fincoach_events/events.py"}
METRIC_NAMES_LIVE_IN = {"backends/telemetry/metrics.py"}
# Tables that several packages write: each its own rows, or through one function of the database.
SHARED_OWNERS = {
    "each service its own rows",
    "the service that executes",
    "the service that executes, through append_audit",
}
WRITING_SQL = re.compile(r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE)\s+([a-z_]+)")


def lines_of(node: ast.AST) -> int:
    """Return how many lines a definition takes."""
    return (getattr(node, "end_lineno", 0) or 0) - getattr(node, "lineno", 0) + 1


def too_long(kinds: tuple[type[ast.AST], ...], limit: int) -> list[str]:
    """Return each definition of these kinds in the packages that is longer than ``limit`` lines."""
    return [
        f"{name_of(path)}:{getattr(node, 'name', '?')} has {lines_of(node)} lines"
        for path in package_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, kinds) and lines_of(node) > limit
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_names_of_packages_resolve_inside_the_repository(package: str) -> None:
    """The name of each package resolves inside the repository."""
    found = importlib.util.find_spec(package)
    assert found
    assert found.origin == str(ROOT / package / "__init__.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_lives_there_and_is_typed(package: str) -> None:
    """Every package describes its contents and is typed."""
    assert importlib.import_module(package).__doc__
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", [package for package in SERVICES if package != "admin"])
@pytest.mark.parametrize("name", ["__main__", "bootstrap", "settings"])
def test_process_packages_are_furnished_alike(package: str, name: str) -> None:
    """All process packages have the same modules."""
    assert (ROOT / package / f"{name}.py").is_file()


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    """No file is longer than the limit."""
    everything = [*package_files(), *files_of("tests", "tools", "migrations", "benchmarks", "examples")]
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in everything}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE_LINES} == {}


def test_no_function_and_no_class_is_too_long() -> None:
    """No function and no class is longer than the limit."""
    functions = too_long((ast.FunctionDef, ast.AsyncFunctionDef), LONGEST_FUNCTION_LINES)
    assert functions + too_long((ast.ClassDef,), LONGEST_CLASS_LINES) == []


def test_the_measure_of_length_sees_a_long_function() -> None:
    """The two checks above find a long function."""
    node = ast.parse("def f():\n" + "    x = 1\n" * 99).body[0]
    assert lines_of(node) == 100


def test_transactions_are_committed_in_the_unit_of_work_alone() -> None:
    """Only the unit of work commits transactions."""
    found = [
        f"{name_of(path)}:{line} calls {method}"
        for path in package_files()
        if name_of(path) not in OFFSET_COMMITS | {UNIT_OF_WORK}
        for method, line in called_methods(path)
        if method in {"commit", "commit()", "begin()"}
    ]
    assert found == []
    assert "begin()" in {method for method, _ in called_methods(ROOT / UNIT_OF_WORK)}


def test_the_environment_is_read_in_settings_alone() -> None:
    """Only settings modules read the environment."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in package_files()
        if path.name != "settings.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    ]
    assert found == []


def test_no_wait_swallows_a_cancellation() -> None:
    """No code waits with ``asyncio.wait_for``, which before Python 3.12 may swallow a cancellation."""
    found = [
        f"{name_of(path)}:{node.lineno}: use asyncio.timeout, or backends.waiting for an event"
        for path in package_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.wait_for"
    ]
    assert found == []


def bare_names(known: set[str], allowed: set[str]) -> list[str]:
    """Return where a package writes one of the ``known`` names as a string, outside the files ``allowed``."""
    return [
        f"{name_of(path)}:{line} writes {text!r}"
        for path in package_files()
        if name_of(path) not in allowed
        for text, line in string_constants(path)
        if text in known
    ]


def test_topics_are_named_in_the_register_alone() -> None:
    """Only the register writes the names of topics."""
    assert bare_names(set(TOPICS), TOPIC_NAMES_LIVE_IN) == []


def test_metrics_are_named_in_their_register_alone() -> None:
    """Only the register writes the names of metrics."""
    names = {next(iter(metric.describe())).name for metric in registered_metrics()}
    assert bare_names(names | {f"{name}_total" for name in names}, METRIC_NAMES_LIVE_IN) == []


def test_every_table_says_who_writes_it_and_why_it_is_there() -> None:
    """Every table says which package writes it and what it is for."""
    for table in metadata.tables.values():
        assert table.info.get("purpose"), table.name
        assert table.info.get("owner") in set(Service) | SHARED_OWNERS, table.name


def owners() -> dict[str, str]:
    """Return the package that writes each table, for tables that belong to one package."""
    return {
        name: str(table.info["owner"]) for name, table in metadata.tables.items() if table.info["owner"] in set(Service)
    }


def written_tables(path: Path) -> set[str]:
    """Return the tables that a file's SQL writes, as text or through ``table.insert()`` and its like."""
    as_text = {match for text, _ in string_constants(path) for match in WRITING_SQL.findall(text)}
    as_calls = {
        node.func.value.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"insert", "update", "delete"}
        and isinstance(node.func.value, ast.Name)
    }
    return (as_text | as_calls) & set(metadata.tables)


@pytest.mark.parametrize("package", SERVICES)
def test_a_package_writes_its_own_tables_only(package: str) -> None:
    """A package writes only its own tables."""
    owner = owners()
    foreign = [
        f"{name_of(path)} writes {table}, which belongs to {owner[table]}"
        for path in files_of(package)
        for table in written_tables(path)
        if owner.get(table, package) != package
    ]
    assert foreign == []


def test_packages_with_threads_make_their_decoders_at_import() -> None:
    """Packages with threads make their decoders at import (in msgspec 0.22 the first use of a type is not thread-safe)."""
    late = [
        f"{name_of(path)}:{node.lineno}"
        for path in files_of("modelkit", "models", "serving")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            (node.func.attr == "decode" and any(keyword.arg == "type" for keyword in node.keywords))
            or ast.unparse(node.func) == "msgspec.convert"
        )
    ]
    assert late == []
