"""Versions of messages as structs: an invented next one of each type, and the one that the lock holds."""

from __future__ import annotations

import dataclasses
import datetime as dt
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from schemas.codec import MessageReader, Upcaster, tag_of, version_of
from schemas.topics import Topic
from tools.shapes import Shape

SIMPLE: dict[str, Any] = {"any": Any, "none": None, "bool": bool, "uuid": UUID, "int": int, "float": float, "str": str}
LIMITED: dict[str, Any] = {"int": int, "float": float, "str": str, "datetime": dt.datetime}


def struct_of(shape: Shape, *, tag: str, topic: Topic) -> type[msgspec.Struct]:
    """Return a struct of exactly this shape, like that of another release."""
    return msgspec.defstruct(
        "Remembered", _fields(shape), tag=tag, tag_field=topic.tag_field, frozen=True, kw_only=True
    )


def grown(message: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the next version of a message type, with one more optional field."""
    version = version_of(message) + 1
    fields: list[Any] = [
        ("schema_version", int, msgspec.field(default_factory=lambda: version)),
        ("added_later", str | None, None),
    ]
    settings = message.__struct_config__
    return msgspec.defstruct(
        message.__name__, fields, bases=(message,), tag=settings.tag, tag_field=settings.tag_field,
        omit_defaults=settings.omit_defaults, frozen=True, kw_only=True,
    )  # fmt: skip


def renamed(shape: Shape, field: str) -> Shape:
    """Return the next version of a shape, in which a required field has another name."""
    version = shape["schema_version"]["default"] + 1
    following = {f"{name}_anew" if name == field else name: kind for name, kind in shape.items()}
    return following | {"schema_version": {"type": "int", "default": version}}


def reader_of(
    topic: Topic, message: type[msgspec.Struct], *, upcasters: dict[tuple[str, int], Upcaster] | None = None
) -> MessageReader:
    """Return the reader of a process for which the topic has this message type alone."""
    alone = dataclasses.replace(topic, messages=(message,))
    return MessageReader(alone, {tag_of(message): version_of(message)}, upcasters or {})


def _fields(shape: Shape) -> list[Any]:
    return [
        (name, _type(kind["type"]), msgspec.field(default_factory=_factory(kind["default"])))
        if "default" in kind
        else (name, _type(kind["type"]))
        for name, kind in shape.items()
    ]


def _factory(default: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return lambda: msgspec.json.decode(msgspec.json.encode(default))


def _type(kind: Any) -> Any:  # noqa: ANN401, PLR0911 - of the lock; a typing construct; one return for each kind
    match kind:
        case str():
            return SIMPLE[kind]
        case {"struct": shape}:
            return msgspec.defstruct("Part", _fields(shape), frozen=True, kw_only=True)
        case {"any": kinds}:
            return reduce(or_, (_type(each) for each in kinds))
        case {"one_of": [str(), *_] as values}:
            return Literal[tuple(values)]
        case {"map": [key, value]}:
            return dict[_type(key), _type(value)]  # type: ignore[misc]  # built at run time
        case {"list": item}:
            return list[_type(item)]  # type: ignore[misc]  # built at run time
        case dict() if len(kind) == 1:
            ((name, limits),) = kind.items()
            return Annotated[LIMITED[name], msgspec.Meta(**limits)]
    raise AssertionError(f"the lock holds something that no struct is made of: {kind}")
