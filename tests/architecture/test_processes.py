"""What each process loads: the doors of heavy libraries, measured where it counts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import msgspec
import pytest

from tools.reference.packages import ROOT

LEARNING = {"torch", "sklearn", "d3rlpy", "lightgbm", "onnx", "skl2onnx", "scipy"}
LIST_MODULES = """
import importlib, pathlib, sys
package = pathlib.Path(sys.argv[1])
for path in sorted(package.rglob("*.py")):
    if "training" in path.parts:
        continue
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(name)
import msgspec
sys.stdout.buffer.write(msgspec.json.encode(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(package: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after importing every module of ``package``, training parts aside."""
    command = [sys.executable, "-W", "ignore", "-c", LIST_MODULES, package]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    return set(msgspec.json.decode(run.stdout, type=list[str]))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        (
            "fincoach_events",
            LEARNING | {"faust", "numpy", "pydantic", "sqlalchemy", "schemas", "backends", "structlog"},
        ),
        ("schemas", LEARNING | {"faust", "numpy", "aiokafka", "backends", "modelkit", "models"}),
        ("backends", LEARNING | {"faust", "onnxruntime", "modelkit", "models"}),
        ("modelkit", LEARNING | {"faust", "pydantic", "sqlalchemy", "aiokafka", "models"}),
        ("models", LEARNING | {"faust"}),
        ("serving", LEARNING | {"faust", "fastapi", "starlette", "typer"}),
        ("deployer", LEARNING | {"faust", "fastapi", "typer"}),
        ("streams", LEARNING | {"typer", "onnxruntime"}),
        ("admin", LEARNING | {"faust", "onnxruntime"}),
    ],
)
def test_a_light_process_stays_light(package: str, forbidden: set[str]) -> None:
    """A light process loads no heavy library."""
    loaded = loaded_by(package)
    assert package in loaded
    assert loaded & forbidden == set()


def test_the_forbidden_libraries_are_called_so() -> None:
    """The names of the forbidden libraries above are those of real modules."""
    for name in LEARNING | {"faust", "typer", "onnxruntime"}:
        assert name in sys.modules or importlib.util.find_spec(name), name
