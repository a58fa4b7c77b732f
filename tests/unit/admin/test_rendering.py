"""Rows as tables for people and as JSON for programs, whatever stands in them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.cli.rendering import print_json, print_links, print_rows
from admin.status.loop import Link

MOMENT = dt.datetime(2026, 3, 4, 13, 0, tzinfo=dt.timezone(dt.timedelta(hours=1)))
USER = UUID("0b6f0d5e-7d1e-4a0f-9c55-52a6f2b0a001")
Output = pytest.CaptureFixture[str]


class DriversUuid(UUID):
    """A database driver's own kind of UUID."""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (MOMENT, "2026-03-04 12:00:00"),
        ([1, None], "1, -"),
        ((), "-"),
        ({"auc": 0.5, "kept": True}, "auc 0.5, kept yes"),
        (Decimal("0.7000"), "0.7000"),
        (USER, str(USER)),
        ("[/red] [bold]unknown[/bold] type", "[/red] [bold]unknown[/bold] type"),
    ],
)
def test_each_kind_of_value_is_shown_as_people_read_it(value: object, shown: str, capsys: Output) -> None:
    """Each kind of value is shown as people read it; brackets in data are not taken for colours."""
    print_rows([{"some_column": value}], ["some_column"], title="Rows", empty="nothing")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == ["Rows", "some column", shown]


def test_no_rows_are_one_sentence(capsys: Output) -> None:
    """An empty table is shown as one sentence."""
    print_rows([], ["a"], title="Rows", empty="Nothing yet.")
    assert capsys.readouterr().out == "Nothing yet.\n"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_is_valid_and_says_what_the_rows_hold(capsys: Output, rows: list[dict[str, Any]]) -> None:
    """JSON is valid and holds the values of the rows."""
    capsys.readouterr()
    print_json(rows)
    assert msgspec.json.decode(capsys.readouterr().out) == rows


def test_json_has_numbers_times_and_ids_as_programs_expect_them(capsys: Output) -> None:
    """JSON holds decimals as numbers, and times and ids as text."""
    row = {"score": Decimal("0.7500"), "at": MOMENT, "user": DriversUuid(int=USER.int)}
    print_json([row])
    assert msgspec.json.decode(capsys.readouterr().out) == [
        {"score": 0.75, "at": "2026-03-04T13:00:00+01:00", "user": str(USER)}
    ]


def test_what_has_no_form_in_json_is_refused_by_its_type() -> None:
    """A value without a form in JSON is refused with its type."""
    with pytest.raises(TypeError, match="cannot be written as JSON: object"):
        print_json({"a": object()})


def test_a_whole_loop_is_said_to_be_whole(capsys: Output) -> None:
    """A whole loop is reported as whole."""
    print_links((Link(name="database", holds=True, detail="answers"),))
    assert "The loop is whole." in capsys.readouterr().out


def test_a_broken_link_says_since_when_what_it_means_and_what_to_do(capsys: Output) -> None:
    """A broken link shows since when, what it means and what to do; brackets in errors are harmless."""
    broken = Link(
        name="broker", holds=False, detail="refused [/x] [Errno 111]", since=MOMENT, meaning="events wait", next_command="look [here]"
    )  # fmt: skip
    print_links((Link(name="database", holds=True, detail="answers"), broken))
    out = capsys.readouterr().out
    assert "First broken link: broker since 2026-03-04 12:00:00: refused [/x] [Errno 111]" in out
    assert "What it means: events wait" in out
    assert "Next: look [here]" in out


def test_a_moment_that_nobody_knows_is_left_out(capsys: Output) -> None:
    """An unknown moment is left out."""
    print_links((Link(name="broker", holds=False, detail="refused", meaning="m", next_command="c"),))
    assert "First broken link: broker: refused" in capsys.readouterr().out
