"""The Markdown elements of the reference pages."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

NOTICE = "<!-- Written by `make docs` from the code; edit the code instead. -->"


def cell(text: str) -> str:
    """Return ``text`` as the cell of a table: on one line, with escaped bars."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(text) for text in line)} |" for line in lines)


def first_paragraph(docstring: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())


def page(title: str, *parts: str) -> str:
    """Return a page with its notice."""
    return "\n\n".join([f"# {title}", NOTICE, *parts]) + "\n"
