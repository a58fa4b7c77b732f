"""The sources by name: CDNOW, which the demo plays, and in a checkout those of ``examples/replay``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from schemas.errors import SettingsError
from stack.replay.cdnow import CdnowSource
from stack.replay.jsonl import JsonLinesSource
from stack.replay.settings import ReplaySettings
from stack.replay.source import Source

EXAMPLES = "examples.replay"


def available_sources() -> dict[str, Callable[[ReplaySettings], Source]]:
    """Return how to open each source, by its name."""
    sources: dict[str, Callable[[ReplaySettings], Source]] = {"cdnow": lambda _: CdnowSource()}
    try:
        examples = importlib.import_module(EXAMPLES)
    except ModuleNotFoundError as error:
        if error.name not in {"examples", EXAMPLES}:
            raise
        return sources
    sources.update(examples.SOURCES)
    return sources


SOURCES = available_sources()


def open_source(name: str, *, data: Path | None = None, jsonl: str | None = None) -> Source:
    """Return the source ``name``, or the events in the file ``jsonl`` (``-`` is standard input).

    Raises:
        SettingsError: there is no such source or file; the message lists what there is.
        DownloadFailedError: the package that holds the set cannot be fetched.
    """
    if jsonl is not None:
        return JsonLinesSource(jsonl)
    if name not in SOURCES:
        raise SettingsError(
            f"there is no data set {name!r}; choose one of {', '.join(SOURCES)}, or --jsonl FILE (a checkout has more, in examples/replay)"
        )
    return SOURCES[name](ReplaySettings() if data is None else ReplaySettings(data=data))
