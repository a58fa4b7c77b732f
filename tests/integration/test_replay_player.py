"""A replay against a real broker: everything arrives, and the journal says so."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console

from fincoach_events import ProducerSettings
from stack.ports import free_port
from stack.replay.cdnow import CdnowSource, read_purchases
from stack.replay.journal import Journal
from stack.replay.jsonl import JsonLinesSource
from stack.replay.player import Player, PlaySettings, ReplayFailedError, rich_progress
from tests.services import unique

LARGE = 3 * 1024 * 1024


@pytest.fixture
async def topic(broker_address: str) -> str:
    """A topic of this test's own."""
    name = unique("replay")
    admin = AIOKafkaAdminClient(bootstrap_servers=broker_address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1, topic_configs={"max.message.bytes": str(4 * 1024 * 1024)})])
    finally:
        await admin.close()
    return name


@pytest.fixture
def source() -> CdnowSource:
    """The first 300 customers of CDNOW."""
    return CdnowSource(read_purchases(), customers=300)


async def records_on(address: str, topic: str) -> int:
    """How many records a topic has."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        return sum((await consumer.end_offsets([TopicPartition(topic, number) for number in range(2)])).values())
    finally:
        await consumer.stop()


async def test_a_whole_set_arrives_and_is_in_the_journal(
    broker_address: str, topic: str, source: CdnowSource, tmp_path: Path
) -> None:
    """All events of a set arrive, and the journal agrees with the broker."""
    steps: list[tuple[int, int, int | None]] = []
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(
            broker_address,
            journal,
            settings=PlaySettings(duplicate_ratio=0.1),
            producer_settings=ProducerSettings(topic=topic),
            on_progress=lambda *figures: steps.append(figures),
        )
        report = await player.play(source)
        count = journal.recount()
    assert report.sent == report.acknowledged == count.lines == await records_on(broker_address, topic)
    assert count.distinct_events == source.size == sum(1 for _ in source.events())
    assert 0.05 * source.size < count.duplicates == report.repeated < 0.15 * source.size
    assert count.invalid == count.torn_lines == 0
    assert steps == sorted(steps)
    assert steps[-1] == (report.sent, report.acknowledged, source.size)
    assert not report.was_stopped


async def test_a_chosen_speed_is_kept(broker_address: str, topic: str, source: CdnowSource, tmp_path: Path) -> None:
    """A replay keeps the chosen speed."""
    settings = PlaySettings(events_per_second=200, limit=100)
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(broker_address, journal, settings=settings, producer_settings=ProducerSettings(topic=topic))
        started = time.monotonic()
        report = await player.play(source)
    assert report.sent == 100
    assert 0.45 < time.monotonic() - started < 10


async def test_a_stopped_replay_ends_cleanly(
    broker_address: str, topic: str, source: CdnowSource, tmp_path: Path
) -> None:
    """A stopped replay delivers what was accepted and ends soon."""
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(
            broker_address,
            journal,
            settings=PlaySettings(events_per_second=50),
            producer_settings=ProducerSettings(topic=topic),
        )
        playing = asyncio.create_task(player.play(source))
        async with asyncio.timeout(20):
            while not await records_on(broker_address, topic):
                continue
        player.stop()
        report = await asyncio.wait_for(playing, 10)
        assert report.was_stopped
        assert 0 < report.sent == report.acknowledged == journal.recount().lines < (source.size or 0)


async def test_wrong_lines_arrive_as_they_are(broker_address: str, topic: str, tmp_path: Path) -> None:
    """Lines that are not JSON or too large are sent unchanged."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"not json\n{}\n" + b"x" * (2 * 1024 * 1024) + b"\n")
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(broker_address, journal, producer_settings=ProducerSettings(topic=topic, max_event_bytes=LARGE))
        report = await player.play(JsonLinesSource(str(file)))
        count = journal.recount()
    assert (report.acknowledged, count.invalid, count.distinct_events) == (3, 3, 0)
    assert await records_on(broker_address, topic) == 3


async def test_a_line_that_no_topic_takes_is_named(broker_address: str, topic: str, tmp_path: Path) -> None:
    """A line that no topic accepts is named in the error."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"{}\n" + b"x" * (4 * 1024 * 1024) + b"\n")
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(broker_address, journal, producer_settings=ProducerSettings(topic=topic, max_event_bytes=LARGE))
        with pytest.raises(ReplayFailedError, match="record 2 is too large"):
            await player.play(JsonLinesSource(str(file)))
        assert journal.recount().lines == 1


async def test_events_from_a_pipe_are_played(
    broker_address: str, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events from standard input are replayed."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(broker_address, journal, producer_settings=ProducerSettings(topic=topic))
        assert (await player.play(JsonLinesSource("-"))).acknowledged == 2


async def test_an_absent_broker_is_told(source: CdnowSource, tmp_path: Path) -> None:
    """A broker that is away is reported."""
    settings = PlaySettings(limit=5, flush_seconds=0.2)
    producer_settings = ProducerSettings(request_timeout_seconds=0.5)
    with Journal(tmp_path / "journal.jsonl") as journal:
        player = Player(f"127.0.0.1:{free_port()}", journal, settings=settings, producer_settings=producer_settings)
        with pytest.raises(ReplayFailedError, match="is the broker up"):
            await player.play(source)
        assert journal.recount().lines == 0


async def test_a_progress_bar_shows_the_figures() -> None:
    """The progress bar shows the current figures."""
    output = io.StringIO()
    with rich_progress("cdnow", console=Console(file=output, width=120, force_terminal=True)) as show:
        show(5, 3, 10)
    assert "cdnow" in output.getvalue()
    assert "5/10" in output.getvalue()
    assert "3 acknowledged" in output.getvalue()
