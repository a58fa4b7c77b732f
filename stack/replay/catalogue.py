"""The names under which sources are asked for, in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from schemas.errors import SettingsError
from stack.replay.cdnow import CdnowSource
from stack.replay.completejourney import completejourney
from stack.replay.heartsteps import heartsteps
from stack.replay.jsonl import JsonLinesSource
from stack.replay.onlineretail import OnlineRetailSource
from stack.replay.openbandit import openbandit
from stack.replay.oulad import oulad
from stack.replay.settings import ReplaySettings
from stack.replay.source import Source
from stack.replay.weblog import weblog

# Name -> how to open it; sources of the data folder are given its settings.
SOURCES: dict[str, Callable[[ReplaySettings], Source]] = {
    "cdnow": lambda _: CdnowSource(),
    "openbandit": lambda _: openbandit(),
    "onlineretail": OnlineRetailSource,
    "oulad": oulad,
    "heartsteps": heartsteps,
    "completejourney": completejourney,
    "weblog": weblog,
}


def open_source(name: str, *, data: Path | None = None, jsonl: str | None = None) -> Source:
    """Return the source ``name``, or the events in the file ``jsonl`` (``-`` is standard input).

    Raises:
        SettingsError: there is no such source or file; the message says what there is.
        DownloadFailedError: the package that holds the set cannot be fetched.
    """
    if jsonl is not None:
        return JsonLinesSource(jsonl)
    if name not in SOURCES:
        raise SettingsError(f"there is no data set {name!r}; choose one of {', '.join(SOURCES)}, or --jsonl FILE")
    return SOURCES[name](ReplaySettings() if data is None else ReplaySettings(data=data))
