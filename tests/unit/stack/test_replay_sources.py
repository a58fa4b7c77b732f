"""The promises of every source, and the known contents of each set in a data folder."""

from __future__ import annotations

import collections
import datetime as dt
import io
import itertools
import sys
from pathlib import Path

import pytest

from fincoach_events.drafts import cleaned_event, encode_within_limit
from fincoach_events.errors import InvalidEventError
from fincoach_events.events import (
    GoalModified,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
    decode_event,
)
from schemas.errors import SettingsError
from stack.errors import DownloadFailedError
from stack.replay.catalogue import EXAMPLES, SOURCES, available_sources, open_source
from stack.replay.jsonl import JsonLinesSource, raw_record
from stack.replay.packages import Package, fetch_package
from stack.replay.source import RawRecord, Source, shift_to_now
from stack.settings import MachineSettings
from tests.small_sets import data_folder, needs_real_sets

WITHOUT_FOLDER = {"cdnow", "openbandit"}
EVERYWHERE = WITHOUT_FOLDER | {"onlineretail", "oulad", "heartsteps"}  # the tests make small sets of these
every_source = pytest.mark.parametrize(
    "name", [name if name in EVERYWHERE else pytest.param(name, marks=needs_real_sets) for name in SOURCES]
)
SIZES = {
    "openbandit": 20_115,
    "onlineretail": 469_441,
    "oulad": 152_249,
    "heartsteps": 5_863,
    "completejourney": 8_691,
    "weblog": 2_152,
}


def opened(name: str) -> Source:
    """Return a real set, or a small one where this machine has no folder of real ones."""
    return open_source(name, data=data_folder())


def interactions(source: Source) -> collections.Counter[str]:
    """Return the number of events of each interaction."""
    return collections.Counter(
        "raw" if isinstance(item, RawRecord) else f"{item.interaction_type}" for item in source.events()
    )


@every_source
def test_events_are_valid_ordered_and_repeatable(name: str) -> None:
    """Events are valid and in order of time; a second replay yields the same ones."""
    first = list(opened(name).events(3_000))
    again = list(opened(name).events(3_000))
    assert first == again
    events = [item for item in first if not isinstance(item, RawRecord)]
    for event in events:
        assert cleaned_event(event) == event
        assert decode_event(encode_within_limit(event)) == event
        assert (event.source, event.consent) == (f"replay:{name}", True)
    moments = [event.occurred_at for event in events]
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("name", "size"),
    [pytest.param(name, size, marks=[] if name in WITHOUT_FOLDER else needs_real_sets) for name, size in SIZES.items()],
)
def test_sizes_are_known_before_playing(name: str, size: int) -> None:
    """The size of a source is the number of its events."""
    source = opened(name)
    assert source.size == sum(1 for _ in source.events()) == size


@every_source
def test_limits_are_kept(name: str) -> None:
    """A source yields at most ``limit`` events."""
    assert sum(1 for _ in opened(name).events(7)) == 7
    assert list(opened(name).events(0)) == []


def test_open_bandit_keeps_true_propensities_and_invents_no_trajectories() -> None:
    """Open Bandit keeps its true propensities, and each impression has its own user."""
    events = [event for event in opened("openbandit").events() if isinstance(event, RecommendationInteraction)]
    views = [event for event in events if event.interaction_type == "view"]
    clicks = [event for event in events if event.interaction_type == "click"]
    uniform = [view for view in views if (view.additional_data or {})["policy"] == "random"]
    assert {view.propensity for view in uniform} == {1 / 34}
    assert len({view.user_id for view in views}) == len(views) == 20_000
    by_policy = collections.Counter(click.recommendation_id.split(":")[1] for click in clicks)
    assert by_policy == {"random": 46, "bts": 69}
    assert {click.recommendation_id for click in clicks} <= {view.recommendation_id for view in views}


@needs_real_sets
def test_heartsteps_keeps_the_action_none() -> None:
    """HeartSteps keeps the action "none" and its propensities; answers come after their view."""
    events = [event for event in opened("heartsteps").events() if isinstance(event, RecommendationInteraction)]
    views = collections.Counter(event.action for event in events if event.interaction_type == "view")
    assert views == {"active": 1_386, "sedentary": 1_047, "none": 1_643}
    assert {(event.action, event.propensity) for event in events if event.interaction_type == "view"} == {
        ("active", 0.3),
        ("sedentary", 0.3),
        ("none", 0.4),
    }
    shown = {event.recommendation_id: event.occurred_at for event in events if event.interaction_type == "view"}
    answers = [event for event in events if event.interaction_type != "view"]
    assert all(event.occurred_at >= shown[event.recommendation_id] for event in answers)
    good = {event.recommendation_id for event in answers if event.interaction_type == "click"}
    done = {event.recommendation_id: event.occurred_at for event in answers if event.interaction_type == "implement"}
    assert done.keys() <= good
    assert all(moment >= shown[name] + dt.timedelta(minutes=30) for name, moment in done.items())


@needs_real_sets
def test_online_retail_keeps_its_defects() -> None:
    """Online Retail keeps its lines without a customer and its repeated lines."""
    items = list(opened("onlineretail").events())
    without_user = [item for item in items if isinstance(item, RawRecord)]
    assert len(without_user) == 135_080
    with pytest.raises(InvalidEventError) as caught:
        decode_event(without_user[0].value)
    assert caught.value.reason == "missing_field"
    lines = [item for item in items if isinstance(item, ProductInteraction)]
    assert (
        len(lines) - len({line.event_id for line in lines}) == 4_062
    )  # the others of 4,126 are refunds or have no customer
    invoices = [item for item in items if isinstance(item, TransactionCreated)]
    assert len({invoice.event_id for invoice in invoices}) == len(invoices) == 17_954
    assert collections.Counter(invoice.category for invoice in invoices).keys() == {"shopping", "other"}


@needs_real_sets
def test_an_invoice_is_the_sum_of_its_distinct_lines() -> None:
    """An invoice is the sum of its distinct lines, of one user."""
    lines: list[ProductInteraction] = []
    for item in itertools.islice(opened("onlineretail").events(), 20_000):
        if isinstance(item, ProductInteraction):
            lines.append(item)
        elif isinstance(item, TransactionCreated) and item.transaction_type == "debit":
            distinct = {line.event_id: line for line in lines}.values()
            total = sum((line.quantity or 0) * (line.unit_price_minor or 0) for line in distinct)
            assert abs(item.amount_minor - total) <= len(distinct)  # three decimals in some prices
            assert {line.user_id for line in lines} == {item.user_id}
            lines = []


@needs_real_sets
def test_oulad_ends_each_enrolment_once() -> None:
    """Each enrolment of OULAD is created once and ends once."""
    created: collections.Counter[str] = collections.Counter()
    ended: collections.Counter[str] = collections.Counter()
    for event in opened("oulad").events():
        assert isinstance(event, GoalModified)
        created[event.goal_id] += event.interaction_type == "create"
        ended[event.goal_id] += event.interaction_type in {"achieve", "fail"}
    assert set(created.values()) == set(ended.values()) == {1}
    assert interactions(opened("oulad")) == {"create": 19_533, "update": 113_183, "achieve": 9_110, "fail": 10_423}


@needs_real_sets
def test_complete_journey_takes_no_expiry_for_a_dismissal() -> None:
    """An expired campaign yields no feedback."""
    assert interactions(opened("completejourney")) == {"view": 6_589, "implement": 2_102}


def test_a_missing_set_is_explained(tmp_path: Path) -> None:
    """A missing set, name or file is explained with the option that helps."""
    with pytest.raises(SettingsError, match="--data"):
        open_source("oulad", data=tmp_path)
    with pytest.raises(SettingsError, match="cdnow, openbandit"):
        opened("movielens")
    with pytest.raises(SettingsError, match="not there"):
        open_source("cdnow", jsonl=str(tmp_path / "none.jsonl"))


def test_without_a_checkout_cdnow_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed wheel, which has no ``examples/replay``, offers CDNOW."""
    monkeypatch.setitem(sys.modules, EXAMPLES, None)
    assert list(available_sources()) == ["cdnow"]


def test_an_error_inside_the_examples_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that a reader lacks is reported; it does not look like a missing checkout."""
    monkeypatch.delitem(sys.modules, EXAMPLES)
    monkeypatch.setitem(sys.modules, "examples.replay.oulad", None)
    with pytest.raises(ModuleNotFoundError, match="oulad"):
        available_sources()


def test_a_set_can_end_now() -> None:
    """A shifted set ends within the last day, keeps its hours, and has its own ids."""
    now = dt.datetime(2026, 3, 4, 10, 0, tzinfo=dt.UTC)
    source = opened("cdnow")
    moved = shift_to_now(source, now)
    assert now - dt.timedelta(days=1) < moved.ends_at <= now
    assert moved.size == source.size
    pairs = list(zip(source.events(60_000), moved.events(60_000), strict=True))
    shifts = set()
    for old, new in pairs:
        assert not isinstance(old, RawRecord)
        assert not isinstance(new, RawRecord)
        shifts.add(new.occurred_at - old.occurred_at)
        assert (new.user_id, new.interaction_type) == (old.user_id, old.interaction_type)
        if isinstance(old, GoalModified) and isinstance(new, GoalModified) and old.due_at and new.due_at:
            shifts.add(new.due_at - old.due_at)
    assert shifts == {dt.timedelta(days=10_108)}
    names = {new.event_id for _, new in pairs}
    assert len(names) == 60_000
    assert not names & {old.event_id for old, _ in pairs}
    assert [event.event_id for event in shift_to_now(source, now).events(3)] == [new.event_id for _, new in pairs[:3]]


def test_foreign_lines_cannot_be_moved(tmp_path: Path) -> None:
    """A file of events cannot be shifted in time."""
    file = tmp_path / "events.jsonl"
    file.write_text("{}\n")
    with pytest.raises(SettingsError, match="as they are"):
        shift_to_now(JsonLinesSource(str(file)), dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def test_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    """Lines of a file are sent unchanged, invalid ones included."""
    file = tmp_path / "events.jsonl"
    user = "5f0c5a53-8f0e-4f8f-9d0d-9c21b1c1f6f2"
    file.write_bytes(
        b'{"user_id":"%s","event_id":"%s"}\n\nnot json\n{"user_id": 5}\n\xff\xfe\n' % (user.encode(), user.encode())
    )
    source = open_source("cdnow", jsonl=str(file))
    items = list(source.events())
    assert source.size == len(items) == 4
    assert all(isinstance(item, RawRecord) for item in items)
    assert [item.key for item in items if isinstance(item, RawRecord)] == [user.encode(), None, None, None]
    assert [str(item.event_id) for item in items] == [user, "None", "None", "None"]
    assert [item.value for item in items if isinstance(item, RawRecord)][1:] == [
        b"not json",
        b'{"user_id": 5}',
        b"\xff\xfe",
    ]
    assert len(list(source.events(2))) == 2


def test_an_id_that_is_none_is_left_out() -> None:
    """A broken id in a line is left out; the line is still sent."""
    assert raw_record(b'{"user_id":"u","event_id":"e"}') == RawRecord(value=b'{"user_id":"u","event_id":"e"}', key=b"u")


def test_standard_input_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events can be read from standard input."""
    standard_input = io.TextIOWrapper(io.BytesIO(b"one\ntwo\n"))
    monkeypatch.setattr("sys.stdin", standard_input)
    source = open_source("cdnow", jsonl="-")
    assert source.size is None
    assert [item.value for item in source.events() if isinstance(item, RawRecord)] == [b"one", b"two"]


def test_a_damaged_download_is_fetched_again(tmp_path: Path) -> None:
    """A damaged file in the cache is downloaded again."""
    settings = MachineSettings(cache_folder=tmp_path)
    package = Package(
        requirement="lifetimes==0.11.3", sha256="261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8"
    )
    path = fetch_package(package, settings)
    whole = path.read_bytes()
    path.write_bytes(whole[:1_000])
    assert fetch_package(package, settings).read_bytes() == whole
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_another_file_than_the_tested_one_is_refused(tmp_path: Path) -> None:
    """A package file with another digest is refused."""
    with pytest.raises(DownloadFailedError, match=r"lifetimes==0\.11\.3"):
        fetch_package(Package(requirement="lifetimes==0.11.3", sha256="0" * 64), MachineSettings(cache_folder=tmp_path))
