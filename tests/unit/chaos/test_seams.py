"""Traps and seeded faults are placed where the product really passes, and every write has a crash point."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.rig.crash_points import crash_points
from tests.chaos.rig.crash_scenarios import SCENARIOS
from tests.chaos.rig.seams import EXEMPT, SEAMS, SeamGoneError, found, seam
from tests.chaos.rig.seeded_faults import SCENARIOS as AIMED_RUNS
from tests.chaos.rig.seeded_faults import SEEDED_FAULTS
from tests.chaos.rig.seeded_faults_code import FAULT_CODE

ROOT = Path(__file__).parents[3]
# Every file whose functions write to Postgres, Kafka or the store.
WRITING_FILES = (
    *sorted((ROOT / "backends/database/repositories").glob("*.py")), ROOT / "backends/database/commands.py",
    ROOT / "backends/database/outbox.py", ROOT / "backends/database/unit_of_work.py", ROOT / "backends/store/content.py",
    ROOT / "backends/broker/kafka.py",
)  # fmt: skip
WRITES = re.compile(
    r"INSERT INTO|UPDATE \w+ SET|DELETE FROM|copy_records_to_table|append_audit|ensure_month_partitions\(:"
    r"|\binsert\(|\.insert\(\)|\.update\(\)|sa\.update\(|sa\.delete\(|\.send\(|_consumer\.commit\(|\.rm\(|\.rename\("
)
# They open what others write through, or build what others do.
NO_WRITES = {"create_topics"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Yield name, ``Class.function`` or ``function``, and definition."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{item.name}", item) for item in node.body if isinstance(item, Function))


def writing_functions(file: Path) -> set[str]:
    """Return the public functions of ``file`` that write, by themselves or through private ones and constants of the file."""
    text = file.read_text()
    tree = ast.parse(text)
    constants = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and WRITES.search(ast.get_source_segment(text, node) or "")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    sources = {name: ast.get_source_segment(text, node) or "" for name, node in functions_of(tree)}
    writing = {
        name
        for name, source in sources.items()
        if WRITES.search(source) or any(re.search(rf"\b{constant}\b", source) for constant in constants)
    }
    grown = True
    while grown:
        private = {called for name in writing if (called := name.rpartition(".")[2]).startswith("_")}
        more = {
            name
            for name, source in sources.items()
            if any(re.search(rf"(?:self\.|await ){called}\(", source) for called in private)
        }
        grown = not more <= writing
        writing |= more
    return {name for name in writing if not name.rpartition(".")[2].startswith("_")} - NO_WRITES


@pytest.mark.parametrize("file", WRITING_FILES, ids=lambda file: file.stem)
def test_every_write_has_a_crash_point(file: Path) -> None:
    """Every write has a crash point, or an exemption with its reason."""
    swept = {item.target.partition(":")[2] for item in SEAMS if item.services}
    missing = writing_functions(file) - swept - EXEMPT.keys()
    assert not missing, (
        f"{file.relative_to(ROOT)}: add to tests/chaos/rig/seams.py, or exempt with a reason: {sorted(missing)}"
    )


def test_the_scan_sees_writes() -> None:
    """The scan finds the functions that write."""
    assert writing_functions(ROOT / "backends/database/repositories/ingestion.py") >= {
        "IngestionRepository.advance_ledger", "IngestionRepository.archive", "IngestionRepository.save_pane", "next_offsets",
    }  # fmt: skip
    assert "TrainingRepository.lease" in writing_functions(ROOT / "backends/database/repositories/training.py")
    assert not writing_functions(ROOT / "backends/database/repositories/recount.py")


@pytest.mark.parametrize("item", SEAMS, ids=lambda item: item.name)
def test_every_seam_is_there(item: object) -> None:
    """Every seam exists in the product."""
    assert callable(found(item.target)[2])  # type: ignore[attr-defined]


def test_a_seam_that_is_gone_is_an_error() -> None:
    """A trap for a renamed function is an error."""
    with pytest.raises(SeamGoneError, match="is gone"):
        found("backends.database.outbox:OutboxRelay.publish_twice")
    with pytest.raises(SeamGoneError, match="no seam"):
        seam("nothing")


def test_names_of_crash_points_are_unique_and_their_services_have_scenarios() -> None:
    """Crash points have unique names, and their services have scenarios."""
    names = [point.name for point in crash_points()]
    assert len(names) == len(set(names))
    assert {point.service for point in crash_points()} == set(SCENARIOS)


def test_every_seeded_fault_has_an_aimed_run() -> None:
    """Every seeded fault has an aimed run, and every aimed run has one."""
    assert {fault.name for fault in SEEDED_FAULTS} == set(FAULT_CODE)
    assert {fault.scenario for fault in SEEDED_FAULTS} == set(AIMED_RUNS)


def test_every_fault_can_be_seeded() -> None:
    """Every fault can be seeded into the product as it is."""
    seeding = "from tests.chaos.rig.seeded_faults_code import FAULT_CODE\nfor seed in FAULT_CODE.values(): seed()"
    done = subprocess.run([sys.executable, "-c", seeding], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
