"""The packages of the project."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent
PACKAGES = (
    "fincoach_events",
    "schemas",
    "backends",
    "modelkit",
    "models",
    "streams",
    "trainers",
    "deployer",
    "serving",
    "admin",
    "stack",
)


def settings_modules() -> dict[str, ModuleType]:
    """Return the settings module of each package that reads the environment, by the package's name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("settings.py"))]
    names = [".".join(path.parent.relative_to(ROOT).parts) for path in files]
    return {name: importlib.import_module(f"{name}.settings") for name in names}
