"""Rows as tables for people and as JSON for programs. Colours appear only on a terminal (rich decides)."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from admin.status.loop import Link, first_broken

PIPE_COLUMNS = 200  # without a terminal, each row of a table stays on one line
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
errors = Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """Print ``value`` as indented JSON, decimals as numbers."""
    sys.stdout.write(msgspec.json.format(_encoder.encode(value), indent=2).decode() + "\n")


def json_line(value: object) -> str:
    """Return ``value`` as JSON on one line."""
    return _encoder.encode(value).decode() + "\n"


def print_facts(facts: Mapping[str, Any], names: Iterable[str]) -> None:
    """Print the named facts, one a line."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name in names:
        table.add_row(f"[bold]{name.replace('_', ' ')}[/]", escape(_cell(facts[name])))
    console.print(table)


def print_rows(
    rows: Sequence[Mapping[str, Any] | msgspec.Struct], columns: Iterable[str], *, title: str, empty: str
) -> None:
    """Print the named columns of ``rows`` as a table, or the sentence ``empty``."""
    if not rows:
        console.print(empty)
        return
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(_value(row, column))) for column in columns))
    console.print(table)


def print_links(chain: tuple[Link, ...]) -> None:
    """Print the loop link by link, then the first broken one: since when, what it means, what to do."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in ("link", "state", "detail"):
        table.add_column(column)
    for link in chain:
        table.add_row(link.name, "[green]holds[/]" if link.holds else "[red]broken[/]", escape(link.detail))
    console.print(table)
    broken = first_broken(chain)
    if broken is None:
        console.print("\nThe loop is whole.")
        return
    since = f" since {_cell(broken.since)}" if broken.since else ""
    console.print(f"\nFirst broken link: [bold]{broken.name}[/]{since}: {escape(broken.detail)}")
    console.print(f"What it means: {broken.meaning}")
    console.print(f"Next: [bold]{escape(broken.next_command)}[/]")


def _value(row: Mapping[str, Any] | msgspec.Struct, column: str) -> object:
    return row[column] if isinstance(row, Mapping) else getattr(row, column)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
    return str(value)


def _plain(value: object) -> object:
    if isinstance(value, UUID):  # asyncpg's own subclass
        return str(value)
    message = f"cannot be written as JSON: {type(value).__name__}"
    raise TypeError(message)


_encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")
