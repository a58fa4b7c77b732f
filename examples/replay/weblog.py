"""Web log: page views of 1,753 visitors of a web site, May 2015 (elastic/examples, Apache License 2.0).

A page view is a GET with status 200 or 304 that is not from a robot and not for a picture, a style sheet, a script or
another part of a page.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from examples.replay.tables import Row, SortedSource, moment, rows_of
from fincoach_events.events import PageViewed
from stack.replay.settings import ReplaySettings
from stack.replay.source import envelope

_ANSWERED = {"200", "304"}
_PARTS_OF_PAGES = {
    ".css", ".js", ".xsl", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".swf", ".ttf", ".woff", ".jar", ".gz", ".deb", ".exe",
}  # fmt: skip
_FOR_ROBOTS = {"/robots.txt", "/sitemap.xml"}


class Visit(NamedTuple):
    """One request for a page."""

    occurred_at: dt.datetime
    row: int
    visitor: str
    path: str
    referrer_host: str


def weblog(settings: ReplaySettings) -> SortedSource[Visit]:
    """Return the web log's page views."""
    return SortedSource("weblog", _visits(settings), _seen)


def _visits(settings: ReplaySettings) -> Iterator[Visit]:
    for number, row in enumerate(rows_of(settings.data_file("weblog/requests.csv.gz"))):
        if _is_page(row):
            yield Visit(moment(row["t_utc"]), number, row["visitor"], row["path"], row["referrer_host"])


def _is_page(row: Row) -> bool:
    is_read = row["method"] == "GET" and row["status"] in _ANSWERED and row["is_bot"] == "False"
    return (
        is_read and PurePosixPath(row["path"]).suffix.lower() not in _PARTS_OF_PAGES and row["path"] not in _FOR_ROBOTS
    )


def _seen(visit: Visit) -> PageViewed:
    return PageViewed(
        **envelope("weblog", str(visit.row), user=visit.visitor, occurred_at=visit.occurred_at),
        page_url=visit.path,
        additional_data={"referrer_host": visit.referrer_host} if visit.referrer_host else None,
    )
