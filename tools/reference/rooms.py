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
    of_rooms = [ROOT / room / "settings.py" for room in ROOMS]
    files = [path for path in of_rooms if path.is_file()] + sorted((ROOT / "models").glob("*/settings.py"))
    names = [".".join(path.relative_to(ROOT).parent.parts) for path in files]
    return {name: importlib.import_module(f"{name}.settings") for name in names}
