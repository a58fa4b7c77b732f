"""Invariants that must not hold when there was nothing to judge: announcements on shared topics, models without epochs."""

from __future__ import annotations

import datetime as dt
import hashlib

from tests.chaos.oracle.announcements import outbox_published
from tests.chaos.oracle.counting import archived_once
from tests.chaos.oracle.epochs import epochs_whole
from tests.chaos.oracle.world import ALERTS, EVENTS, READ_TOPICS, Epoch, OutboxRow, Pane, Record, Send, World

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def test_an_alert_that_a_row_said_must_be_on_its_topic() -> None:
    """An outbox row must reach its topic, also where processes publish on the topic directly."""
    world = World(
        run={"minimums": {"announcements": 1}},
        outbox=[OutboxRow(1, "streams", ALERTS, b"goal", b"{}", is_published=True)],
        records={ALERTS: [Record(0, 0, 0, b"goal", b"another")]},
    )
    assert "marked and not on" in outbox_published(world).detail
    world.records = {ALERTS: [Record(0, 0, 0, b"goal", b"another"), Record(0, 1, 0, b"goal", b"{}")]}
    assert outbox_published(world).holds
    assert ALERTS in READ_TOPICS


def test_a_duplicate_that_was_acknowledged_has_a_record_of_its_own() -> None:
    """Every acknowledged send has its own record; a copy of the same bytes does not stand in for it."""
    sha256 = hashlib.sha256(b"same").hexdigest()
    sends = [Send(name, "malformed", False, None, sha256, acknowledged=True) for name in ("first", "again")]  # noqa: FBT003 - a field of the tuple
    world = World(run={"minimums": {"events": 0}}, sends=sends, records={EVENTS: [Record(0, 0, 0, None, b"same")]})
    assert archived_once(world, []).detail.startswith("send again was acknowledged and is not in the topic")
    world.records = {EVENTS: [Record(0, at, 0, None, b"same") for at in range(2)]}
    assert archived_once(world, []).holds


def test_epochs_of_one_model_do_not_speak_for_the_others() -> None:
    """Every model needs an epoch; the epochs of one model do not count for another."""
    panes = [Pane(EVENTS, 0, at, at + 1, 1, 1, 0, 0, 0, {"goal": {"counted": 1}}, NOON) for at in range(3)]
    epochs = [
        Epoch("goal", at + 1, 1, 1, [{"topic": EVENTS, "partition": 0, "from_offset": at, "to_offset": at + 1}])
        for at in range(3)
    ]
    run = {"thresholds": {"goal": 1}}
    assert epochs_whole(World(run=run, panes=panes, epochs=epochs)).holds
    verdict = epochs_whole(World(run=run | {"minimums": {"models with epochs": 4}}, panes=panes, epochs=epochs))
    assert verdict.detail == "not exercised: 1 models with epochs, at least 4"
