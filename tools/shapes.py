"""The shape of a message: everything that a reader of its topic can notice. Pure.

Class names are not sent and are left out. Defaults count: an omitted field means its default, so a different default
on the other side would mean something else.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import inspect

from schemas.codec import version_of

Shape = dict[str, Any]
DIGEST_CHARACTERS = 16


def shape_of(message: type[msgspec.Struct]) -> Shape:
    """Return the fields of a message type, each with its type and, if it is optional, its default."""
    kind = inspect.type_info(message)
    assert isinstance(kind, inspect.StructType)  # noqa: S101 - the register holds nothing else
    return _fields(kind)


def digest_of(shape: Shape) -> str:
    """Return a short digest of the shape."""
    return hashlib.sha256(msgspec.json.encode(shape, order="sorted")).hexdigest()[:DIGEST_CHARACTERS]


def changes(old: Shape, new: Shape) -> list[str]:
    """Return a phrase for each field that differs."""
    gone = [f"{name} is gone" for name in old if name not in new]
    added = [f"{name} is new" for name in new if name not in old]
    other = [f"{name} changed" for name in new if name in old and new[name] != old[name]]
    return gone + added + other


def hides_its_version(message: type[msgspec.Struct]) -> bool:
    """Return whether a message beyond version 1 omits its version, so that readers take it for version 1."""
    (field,) = (field for field in msgspec.structs.fields(message) if field.name == "schema_version")
    left_out = message.__struct_config__.omit_defaults and field.default is not msgspec.NODEFAULT
    return left_out and version_of(message) > 1


def _fields(kind: inspect.StructType) -> Shape:
    return {field.encode_name: _field(field) for field in kind.fields}


def _field(field: inspect.Field) -> dict[str, Any]:
    if field.required:
        return {"type": _type(field.type)}
    factory: Any = field.default_factory
    default = factory() if factory is not msgspec.NODEFAULT else field.default
    plain = msgspec.json.decode(msgspec.json.encode(default))  # as in the lock
    return {"type": _type(field.type), "default": plain}


def _type(kind: inspect.Type) -> Any:  # noqa: ANN401, PLR0911 - plain JSON; one return for each kind
    match kind:
        case inspect.StructType():
            return {"struct": _fields(kind)}
        case inspect.UnionType(types=kinds):
            return {"any": sorted((_type(each) for each in kinds), key=msgspec.json.encode)}
        case inspect.EnumType(cls=cls):
            return {"one_of": sorted(member.value for member in cls)}
        case inspect.LiteralType(values=values):
            return {"one_of": sorted(values)}
        case inspect.DictType(key_type=key, value_type=value):
            return {"map": [_type(key), _type(value)]}
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return {"list": _type(item)}
        case _:
            return _simple(kind)


def _simple(kind: inspect.Type) -> Any:  # noqa: ANN401 - plain JSON
    name = type(kind).__name__.removesuffix("Type").lower()
    limits = {name: value for name, value in msgspec.structs.asdict(kind).items() if value is not None}
    return {name: limits} if limits else name
