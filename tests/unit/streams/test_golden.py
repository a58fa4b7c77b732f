"""The check of golden messages by which a worker knows that it is sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas import codec
from schemas.errors import InvalidMessageError
from schemas.golden import GoldenMessage, golden_messages
from schemas.topics import TOPICS
from streams.batches.golden import BrokenReceiverError, GoldenCheck
from streams.bootstrap import golden_check
from tools.reference.packages import ROOT


def test_this_build_is_sound() -> None:
    """This build reads all golden messages."""
    golden_check()()


def test_every_example_of_the_register_is_golden() -> None:
    """Every example of the register is a golden message."""
    files = {
        path.relative_to(ROOT / "schemas" / "examples") for path in (ROOT / "schemas" / "examples").rglob("*.json")
    }
    assert {f"{message.topic.name}/{message.name}" for message in golden_messages()} == {str(path) for path in files}
    assert {message.topic for message in golden_messages()} == {topic for topic in TOPICS.values() if topic.messages}


def test_a_broken_decoder_of_any_topic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken decoder of any topic fails the check."""

    def refused(self: object, raw: bytes) -> None:  # noqa: ARG001 - of the method that is replaced
        raise InvalidMessageError("missing_field", "planted")

    monkeypatch.setattr(codec.MessageReader, "_read", refused)
    with pytest.raises(BrokenReceiverError) as caught:
        golden_check()()
    assert f"fails on {len(golden_messages())} of {len(golden_messages())} golden messages" in str(caught.value)


@pytest.mark.parametrize("raised", [ArithmeticError("planted"), KeyError("event_type")])
def test_a_rule_that_raises_is_found_and_named(monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    """A rule that raises fails the check with its reason."""

    def broken(*_: object) -> None:
        raise raised

    monkeypatch.setattr("streams.batches.folding.fold", broken)
    with pytest.raises(BrokenReceiverError, match="reducer_error"):
        golden_check()()


def test_an_installation_without_examples_is_not_sound() -> None:
    """An installation without examples fails the check."""
    with pytest.raises(BrokenReceiverError, match="there are none"):
        GoldenCheck((), {})()


def test_one_example_that_is_refused_is_named() -> None:
    """The error names the example that fails."""
    golden = (GoldenMessage(TOPICS["fincoach.alerts"], "AlertRaised/v1/x.json", b"{}"),)
    with pytest.raises(BrokenReceiverError, match=r"AlertRaised/v1/x\.json: missing_field"):
        GoldenCheck(golden, {})()


def test_a_worker_that_cannot_read_its_own_examples_does_not_start(tmp_path: Path) -> None:
    """A broken worker exits at the start with a clear message."""
    broken_build = (
        "import asyncio, sys, streams.batches.events\n"
        "from schemas.errors import InvalidMessageError\n"
        "def refused(raw): raise InvalidMessageError('missing_field', 'planted')\n"
        "streams.batches.events.decode_storable_event = refused\n"
        "from streams.bootstrap import run\n"
        "from streams.settings import StreamsSettings\n"
        f"sys.exit(asyncio.run(run(StreamsSettings(folder={str(tmp_path)!r}, brokers='127.0.0.1:1'))))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", broken_build], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "golden messages" in output
    assert "missing_field: planted" in output
    assert "Traceback" not in output
