"""The codec, for any message and any bytes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec import inspect

from schemas import codec
from schemas.codec import AnyMessage, decode, encode
from schemas.errors import InvalidMessageError
from schemas.messages.control import UpdateThresholds
from schemas.topics import BEHAVIORAL_EVENTS, CONTROL, TOPICS, Topic
from schemas.vocabulary import DeadLetterReason

TYPED = [topic for topic in TOPICS.values() if topic.messages]
TYPES = [pytest.param(topic, message, id=message.__name__) for topic in TYPED for message in topic.messages]
BOUND = 2**53  # beyond it other readers of JSON lose digits

text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(
    dt.datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis wants naive bounds and adds the zone
    dt.datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.builds(dt.timezone, st.builds(dt.timedelta, minutes=st.integers(-720, 840))),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-BOUND, BOUND) | numbers | text,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(text, below, max_size=3),
    max_leaves=5,
)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each kind
    """Return values of a msgspec type, in their plain JSON form."""
    match kind:
        case inspect.StructType():
            return structures(kind)
        case inspect.UnionType(types=kinds):
            return st.one_of([values(each) for each in kinds])
        case inspect.EnumType(cls=cls):
            return st.sampled_from([member.value for member in cls])
        case inspect.LiteralType(values=named):
            return st.sampled_from(list(named))
        case inspect.DictType(value_type=below):
            return st.dictionaries(text, values(below), max_size=3)
        case inspect.VarTupleType(item_type=below):
            return st.lists(values(below), max_size=3)
        case _:
            return simple(kind)


def simple(kind: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each kind
    """Return values of a type that holds no other."""
    match kind:
        case inspect.StrType(pattern=None):
            return st.text(
                st.characters(exclude_characters="\x00", exclude_categories=["Cs"]),
                min_size=kind.min_length or 0,
                max_size=30,
            )
        case inspect.StrType():
            matching = st.from_regex(str(kind.pattern).replace("$", r"\Z"))
            return matching.filter(lambda value: kind.max_length is None or len(value) <= kind.max_length)
        case inspect.IntType():
            return st.integers(-BOUND if kind.ge is None else int(kind.ge), BOUND if kind.le is None else int(kind.le))
        case inspect.FloatType():
            return st.floats(kind.ge, kind.le, allow_nan=False, allow_infinity=False)
        case inspect.UUIDType():
            return st.uuids().map(str)
        case inspect.DateTimeType():
            return moments.map(dt.datetime.isoformat)
        case inspect.AnyType():
            return json_values
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
    raise AssertionError(f"no values are known for {kind}")


def structures(kind: inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects of a struct type; fields with a default may be absent."""
    wanted = {field.encode_name: values(field.type) for field in kind.fields if field.required}
    optional = {
        field.encode_name: values(field.type)
        for field in kind.fields
        if not field.required and field.encode_name != "schema_version"
    }
    objects = st.fixed_dictionaries(wanted, optional=optional)
    if kind.tag_field is None:
        return objects
    head = {kind.tag_field: kind.tag}
    return objects.map(lambda fields: {**head, **fields})


def messages(message: type[Any]) -> st.SearchStrategy[AnyMessage]:
    """Return messages of one type."""
    return values(inspect.type_info(message)).map(lambda document: msgspec.convert(document, message))


@pytest.mark.parametrize(("topic", "message"), TYPES)
@given(data=st.data())
def test_what_is_written_is_read_again(topic: Topic, message: type[Any], data: st.DataObject) -> None:
    """Every message is decoded as it was encoded."""
    sent = data.draw(messages(message))
    received = decode(topic, encode(sent))
    assert received == sent
    assert encode(received) == encode(sent)


@pytest.mark.parametrize("topic", TYPED, ids=lambda topic: str(topic.name))
@given(raw=st.binary(max_size=200) | json_values.map(msgspec.json.encode))
def test_any_bytes_are_a_message_or_a_dead_letter(topic: Topic, raw: bytes) -> None:
    """Arbitrary bytes raise only ``InvalidMessageError``."""
    with pytest.raises(InvalidMessageError) as caught:
        decode(topic, raw)
    assert caught.value.reason in set(DeadLetterReason)


@given(data=st.data(), sent=st.sampled_from(TYPES))
def test_a_damaged_message_is_a_message_or_a_dead_letter(data: st.DataObject, sent: Any) -> None:  # noqa: ANN401 - pytest's parameter set
    """A message with a damaged field decodes or raises ``InvalidMessageError``."""
    topic, message = sent.values
    document = msgspec.json.decode(encode(data.draw(messages(message))))
    field = data.draw(st.sampled_from(sorted(document)))
    damaged = {**document, field: data.draw(json_values)}
    try:
        decode(topic, msgspec.json.encode(damaged))
    except InvalidMessageError as error:
        assert error.reason in set(DeadLetterReason)  # noqa: PT017 - both ends are allowed


@given(sent=messages(UpdateThresholds), version=st.integers(-3, 0))
def test_versions_before_the_first_are_dead_letters(sent: UpdateThresholds, version: int) -> None:
    """A version below 1 is rejected as unknown."""
    with pytest.raises(InvalidMessageError) as caught:
        decode(CONTROL, encode(msgspec.structs.replace(sent, schema_version=version)))
    assert caught.value.reason == DeadLetterReason.UNKNOWN_VERSION


@given(sent=messages(UpdateThresholds), version=st.integers(2, 10))
def test_a_newer_version_is_read_as_ours_where_nothing_is_missing(sent: UpdateThresholds, version: int) -> None:
    """A newer version with all our required fields is read, and unknown fields are ignored."""
    newer = {**msgspec.json.decode(encode(sent)), "schema_version": version, "what_we_do_not_know": [1]}
    assert decode(CONTROL, msgspec.json.encode(newer)) == sent


@given(sent=messages(UpdateThresholds), version=st.integers(2, 10))
def test_a_newer_version_without_what_we_require_waits_for_the_upgrade(sent: UpdateThresholds, version: int) -> None:
    """A newer version without a required field is rejected as of unknown version."""
    document = {**msgspec.json.decode(encode(sent)), "schema_version": version}
    document["given_by"] = document.pop("issuer")
    with pytest.raises(InvalidMessageError) as caught:
        decode(CONTROL, msgspec.json.encode(document))
    assert caught.value.reason == DeadLetterReason.UNKNOWN_VERSION


def renamed(document: dict[str, Any]) -> dict[str, Any]:
    """Upcast a version with ``gate`` in per cent to one with ``quality_gate``."""
    return {**{k: v for k, v in document.items() if k != "gate"}, "quality_gate": document["gate"] / 100}


def named(document: dict[str, Any]) -> dict[str, Any]:
    """Upcast a version without an issuer."""
    return {"issuer": "unknown", **document}


@pytest.fixture
def third_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set UpdateThresholds to its third version."""
    monkeypatch.setitem(codec.CURRENT_VERSIONS, "UpdateThresholds", 3)
    monkeypatch.setitem(codec.UPCASTERS, ("UpdateThresholds", 1), renamed)
    monkeypatch.setitem(codec.UPCASTERS, ("UpdateThresholds", 2), named)


OLD = {
    "type": "UpdateThresholds",
    "event_id": "019cd79f-d858-7228-bac9-06084789c1a3",
    "occurred_at": "2026-03-10T12:01:43Z",
    "expires_at": "2026-03-10T12:06:40Z",
    "model_type": "goal",
}


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize(
    ("document", "gate", "issuer"),
    [
        pytest.param({**OLD, "gate": 85}, 0.85, "unknown", id="first version, by two steps"),
        pytest.param({**OLD, "schema_version": 1, "gate": 85}, 0.85, "unknown", id="first version, explicit"),
        pytest.param({**OLD, "schema_version": 2, "quality_gate": 0.8}, 0.8, "unknown", id="second version"),
        pytest.param(
            {**OLD, "schema_version": 3, "quality_gate": 0.7, "issuer": "alice"}, 0.7, "alice", id="current version"
        ),
    ],
)
def test_older_versions_become_the_current_one(document: dict[str, Any], gate: float, issuer: str) -> None:
    """Older versions are upcast to the current one."""
    message = decode(CONTROL, msgspec.json.encode(document))
    assert (message.quality_gate, message.issuer, message.schema_version) == (gate, issuer, 3)


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize("version", [1, 2])
def test_an_old_message_that_cannot_be_upcast_is_a_dead_letter(version: int) -> None:
    """An old message that cannot be upcast is rejected."""
    broken = {**OLD, "schema_version": version} if version == 1 else {**OLD, "schema_version": 2, "model_type": None}
    with pytest.raises(InvalidMessageError):
        decode(CONTROL, msgspec.json.encode(broken))


def test_behavioural_events_are_upcast_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behavioural events of older versions are upcast."""
    monkeypatch.setitem(codec.CURRENT_VERSIONS, "page_view", 2)
    monkeypatch.setitem(codec.UPCASTERS, ("page_view", 1), lambda old: {**old, "page_url": old["url"]})
    event = {
        "event_type": "page_view",
        "event_id": OLD["event_id"],
        "user_id": OLD["event_id"],
        "occurred_at": OLD["occurred_at"],
        "consent": True,
        "url": "/insights",
    }
    assert decode(BEHAVIORAL_EVENTS, msgspec.json.encode(event)).page_url == "/insights"
