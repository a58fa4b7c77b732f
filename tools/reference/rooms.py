"""The rooms of the house, as the tools see them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent
ROOMS = (
    "fincoach_events", "schemas", "backends", "modelkit", "models", "streams", "trainers", "deployer", "serving", "admin", "stack",
)  # fmt: skip


def settings_modules() -> dict[str, ModuleType]:
    """Return the settings module of each room that reads the environment."""
    return {
        room: importlib.import_module(f"{room}.settings") for room in ROOMS if (ROOT / room / "settings.py").is_file()
    }
