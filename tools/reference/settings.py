"""Renders the settings of every package as a page for operators."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from tools.reference.markdown import first_paragraph, page, table
from tools.reference.packages import settings_modules

MODULE_PREFIX = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Z])")


def settings_classes(module: ModuleType) -> list[type[BaseSettings]]:
    """Return the settings classes that ``module`` itself defines, by name."""
    return [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, BaseSettings) and found.__module__ == module.__name__
    ]


def variable(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """Return the environment variable that sets the field."""
    if isinstance(field.validation_alias, str):
        return field.validation_alias.upper()
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def type_name(field: FieldInfo) -> str:
    """Return the field's type without module names."""
    annotation: Any = field.annotation
    return annotation.__name__ if inspect.isclass(annotation) else MODULE_PREFIX.sub("", str(annotation))


def default_text(field: FieldInfo) -> str:
    """Return the field's default; secrets and computed defaults are described, not shown."""
    if field.default_factory is not None:
        return "computed"
    if field.default is PydanticUndefined:
        return "**required**"
    if isinstance(field.default, SecretStr):
        return "not shown"
    if field.default in ("", None):
        return "empty"
    return f"`{field.default}`"


def own_fields(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    """Return the fields that ``settings`` adds to its base classes."""
    inherited = {name for base in settings.__mro__[1:] for name in getattr(base, "__pydantic_fields__", {})}
    return {name: field for name, field in settings.model_fields.items() if name not in inherited}


def class_section(package: str, settings: type[BaseSettings]) -> str:
    """Return the section of one settings class."""
    rows = [
        [f"`{variable(settings, name, field)}`", f"`{type_name(field)}`", default_text(field), field.description or ""]
        for name, field in own_fields(settings).items()
    ]
    head = f"## {package}: {settings.__name__}\n\n{first_paragraph(settings.__doc__)}"
    return f"{head}\n\n{table(['variable', 'type', 'default', 'meaning'], rows)}" if rows else head


def render() -> str:
    """Return docs/reference/settings.md."""
    sections = [
        class_section(package, settings)
        for package, module in settings_modules().items()
        for settings in settings_classes(module)
    ]
    return page("Settings", "Environment variables. Thresholds are data in the database, not settings.", *sections)
