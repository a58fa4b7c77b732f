"""The packages of the project."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent
ROOMS = (
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
    """Return the settings module of each package that reads the environment."""
    return {
        room: importlib.import_module(f"{room}.settings") for room in ROOMS if (ROOT / room / "settings.py").is_file()
    }
