"""Two versions of every message live together: old and new producers with new and old consumers, on every type of the register."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.codec import decode, encode, tag_of, version_of
from schemas.errors import InvalidMessageError
from schemas.topics import TOPICS, Topic
from schemas.vocabulary import DeadLetterReason
from tests.schema_versions import grown, reader_of, renamed, struct_of
from tools import check_schemas, schema_lock
from tools.reference.packages import ROOT
from tools.schema_lock import Lock
from tools.shapes import Shape, digest_of, hides_its_version, shape_of

TYPES = [pytest.param(topic, message, id=message.__name__) for topic in TOPICS.values() for message in topic.messages]
ENVELOPE = {"event_id", "occurred_at", "schema_version", "correlation_id", "causation_id"}
LOCK = schema_lock.written_lock()


def example_of(topic: Topic, message: type[Any]) -> bytes:
    """Return the register's example of the current version of a message, as a producer of today sends it."""
    folder = ROOT / "schemas" / "examples" / topic.name / message.__name__ / f"v{version_of(message)}"
    return encode(decode(topic, min(Path(folder).glob("*.json")).read_bytes()))


def locked_shape(message: type[Any]) -> Shape:
    """Return the shape of today's version as the lock remembers it."""
    fields: Shape = LOCK[tag_of(message)]["versions"][str(version_of(message))]["fields"]
    return fields


def plain(message: Any, *, without: set[str]) -> dict[str, Any]:  # noqa: ANN401 - of any struct
    """Return the fields of a message as JSON has them."""
    fields = msgspec.json.decode(msgspec.json.encode(msgspec.structs.asdict(message)))
    return {name: value for name, value in fields.items() if name not in without}


def holds(whole: object, part: object) -> bool:
    """Return whether everything in ``part`` stands in ``whole``; what is left out means its default."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and holds(whole[name], value) for name, value in part.items())
    return whole == part


def own_required_field(shape: Shape) -> str:
    """Return a field that a message cannot do without."""
    return [name for name, kind in shape.items() if "default" not in kind and name not in ENVELOPE][-1]


@pytest.mark.parametrize(("topic", "message"), TYPES)
def test_an_old_message_is_read_by_a_consumer_that_knows_one_field_more(topic: Topic, message: type[Any]) -> None:
    """A consumer that knows one more field reads old messages from topics, archives and hosts."""
    raw = example_of(topic, message)
    read = reader_of(topic, grown(message)).read(raw)
    assert (read.schema_version, read.added_later) == (version_of(message) + 1, None)
    new = {"schema_version", "added_later"}
    assert plain(read, without=new) == plain(decode(topic, raw), without=new)


@pytest.mark.parametrize(("topic", "message"), TYPES)
def test_a_message_with_one_field_more_is_read_by_an_old_consumer(topic: Topic, message: type[Any]) -> None:
    """An old consumer reads a message with one more field, so hosts may be upgraded first."""
    sent = decode(topic, example_of(topic, message))
    following = grown(message)
    fields = {name: getattr(sent, name) for name in sent.__struct_fields__ if name != "schema_version"}
    raw = msgspec.json.encode(following(**fields, added_later="something"))
    assert msgspec.json.decode(raw)["schema_version"] == version_of(message) + 1
    old = struct_of(locked_shape(message), tag=tag_of(message), topic=topic)
    read = reader_of(topic, old).read(raw)
    assert read.schema_version == version_of(message)
    assert holds(plain(read, without=set()), plain(sent, without=set()))


@pytest.mark.parametrize(("topic", "message"), TYPES)
def test_an_old_message_is_upcast_where_a_field_has_another_name(topic: Topic, message: type[Any]) -> None:
    """After a field is renamed, older messages are upcast and stay readable."""
    shape, tag = locked_shape(message), tag_of(message)
    field = own_required_field(shape)
    following = struct_of(renamed(shape, field), tag=tag, topic=topic)

    def upcast(old: dict[str, Any]) -> dict[str, Any]:
        return {**{name: value for name, value in old.items() if name != field}, f"{field}_anew": old[field]}

    raw = example_of(topic, message)
    reader = reader_of(topic, following, upcasters={(tag, version_of(message)): upcast})
    read = plain(reader.read(raw), without=set())
    assert read["schema_version"] == version_of(message) + 1
    assert holds(read[f"{field}_anew"], msgspec.json.decode(raw)[field])
    with pytest.raises(InvalidMessageError):
        reader_of(topic, following).read(raw)  # the upcast was needed


@pytest.mark.parametrize(("topic", "message"), TYPES)
def test_a_message_whose_field_has_another_name_waits_for_the_upgrade_of_an_old_consumer(
    topic: Topic, message: type[Any]
) -> None:
    """An old consumer dead-letters a newer message with a renamed field, so it can be retried after the upgrade."""
    shape, tag = locked_shape(message), tag_of(message)
    field = own_required_field(shape)
    document = msgspec.json.decode(example_of(topic, message))
    document |= {f"{field}_anew": document.pop(field), "schema_version": version_of(message) + 1}
    raw = msgspec.json.encode(document)
    with pytest.raises(InvalidMessageError) as caught:
        reader_of(topic, struct_of(shape, tag=tag, topic=topic)).read(raw)
    assert caught.value.reason == DeadLetterReason.UNKNOWN_VERSION
    assert f"version {version_of(message) + 1} is newer" in caught.value.detail
    upgraded = reader_of(topic, struct_of(renamed(shape, field), tag=tag, topic=topic))
    assert getattr(upgraded.read(raw), f"{field}_anew") is not None


@pytest.mark.parametrize(("topic", "message"), TYPES)
def test_the_lock_is_enough_to_build_an_old_consumer(topic: Topic, message: type[Any]) -> None:
    """The lock holds everything that is needed to rebuild an old consumer."""
    remembered = struct_of(locked_shape(message), tag=tag_of(message), topic=topic)
    assert shape_of(remembered) == locked_shape(message)


def test_the_lock_says_what_the_messages_are() -> None:
    """The lock matches the current messages."""
    assert schema_lock.check() == []


def tampered(change: str) -> Lock:
    """Return the lock as it would be before a change of ``page_view``."""
    lock = copy.deepcopy(LOCK)
    entry = lock["page_view"]["versions"]["1"]
    fields = entry["fields"]
    if change == "new field":
        del fields["duration_seconds"]
    elif change == "gone field":
        fields["page_title"] = {"type": "str", "default": None}
    elif change == "other limit":
        fields["page_url"]["type"]["str"]["max_length"] = 500
    elif change == "other default":
        fields["source"]["default"] = "somebody"
    entry["digest"] = digest_of(fields) if change != "by hand" else "0" * 16
    return lock


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("new field", "page_view: changed without a new version (duration_seconds is new)"),
        ("gone field", "page_view: changed without a new version (page_title is gone)"),
        ("other limit", "page_view: changed without a new version (page_url changed)"),
        ("other default", "page_view: changed without a new version (source changed)"),
        ("by hand", "page_view: version 1 was changed in the lock by hand"),
    ],
)
def test_a_change_without_a_new_version_fails_the_build_and_names_the_command(change: str, said: str) -> None:
    """A change without a new version fails the build, which names the command to run."""
    (found,) = schema_lock.drifts(tampered(change))
    assert found.startswith(said)
    assert "make schema-lock" in found


def test_what_was_released_cannot_be_locked_anew() -> None:
    """A released version keeps its one shape."""
    released = tampered("new field")
    assert schema_lock.locked_today(LOCK, released) == LOCK
    (found,) = schema_lock.breaches(LOCK, released, "v9.9.9")
    assert "released with v9.9.9" in found
    assert "duration_seconds is new" in found
    assert "`schema_version` 2" in found


def test_versions_and_types_of_the_past_stay_in_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past versions and types stay in the lock, so that old messages can still be tested."""
    following = grown(schema_lock.register()["page_view"][1])
    topic = TOPICS["fincoach.behavioral-events"]
    monkeypatch.setattr("tools.schema_lock.register", lambda: {"page_view": (topic, following)})
    lock = schema_lock.locked_today(LOCK, released={"AlertRaised": LOCK["AlertRaised"]})
    assert list(lock["page_view"]["versions"]) == ["1", "2"]
    assert lock["page_view"]["versions"]["1"] == LOCK["page_view"]["versions"]["1"]
    assert set(lock) == {"page_view", "AlertRaised"}
    assert schema_lock.breaches(lock, LOCK, "v9.9.9")  # the other types were released too, and are gone


def test_what_sql_reads_of_archived_events_has_one_name_in_every_version() -> None:
    """Fields that SQL reads from archived events have the same name in every version."""
    versions = LOCK["recommendation_interaction"]["versions"]
    assert [version for version, entry in versions.items() if "prediction_id" not in entry["fields"]] == []


def test_the_lock_is_written_as_it_is_read() -> None:
    """Writing the lock changes no line that is unchanged."""
    assert msgspec.json.decode(schema_lock.rendered(LOCK)) == LOCK
    assert (ROOT / schema_lock.FILE).read_text(encoding="utf-8") == schema_lock.rendered(LOCK)


def test_a_later_version_has_to_write_its_version() -> None:
    """A later version must write its version even where its type leaves defaults out."""
    page_view = schema_lock.register()["page_view"][1]
    fields: list[Any] = [("schema_version", int, 2)]
    silent = msgspec.defstruct("Silent", fields, bases=(page_view,), omit_defaults=True, frozen=True, kw_only=True)
    assert hides_its_version(silent)
    assert not hides_its_version(grown(page_view))
    assert not hides_its_version(page_view)


def test_the_build_fails_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The build fails on a changed message and says what to do."""
    monkeypatch.setattr("tools.schema_lock.written_lock", lambda: tampered("new field"))
    assert check_schemas.main() == 1
    assert "page_view: changed without a new version (duration_seconds is new)" in capsys.readouterr().out
    monkeypatch.undo()
    assert check_schemas.main() == 0


def test_the_lock_is_not_written_over_what_was_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing the lock does not overwrite a released shape."""
    before = (ROOT / schema_lock.FILE).read_bytes()
    monkeypatch.setattr("tools.schema_lock.last_release", lambda: "v9.9.9")
    monkeypatch.setattr("tools.schema_lock.released_lock", lambda _: tampered("other default"))
    (refused,) = schema_lock.write()
    assert "was released with v9.9.9 and must keep its shape (source changed)" in refused
    assert (ROOT / schema_lock.FILE).read_bytes() == before
