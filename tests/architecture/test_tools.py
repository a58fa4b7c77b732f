"""The tools of the Makefile: what they refuse and what they let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_commit_message, check_files, check_schemas
from tools.check_schemas import Schemas

ORDER: Schemas = {
    "Order": {
        "properties": {"size": {"type": "integer"}, "note": {"type": "string", "default": ""}},
        "required": ["size"],
    },
    "Colour": {"enum": ["red", "green"]},
}


def changed(name: str, **shape: object) -> Schemas:
    """Return the schemas above with one of them replaced in part."""
    return ORDER | {name: ORDER[name] | shape}


@pytest.mark.parametrize(
    "new",
    [
        pytest.param({"Order": ORDER["Order"]}, id="a type is gone"),
        pytest.param(changed("Order", required=["size", "note"]), id="a field is newly required"),
        pytest.param(changed("Order", properties={"size": {"type": "string"}}), id="a type changed"),
        pytest.param(changed("Colour", enum=["red"]), id="a value is gone"),
    ],
)
def test_a_breaking_change_of_a_message_is_found(new: Schemas) -> None:
    """A breaking change of a message is found."""
    assert check_schemas.breaks(ORDER, new)


def test_a_new_optional_field_is_no_break() -> None:
    """A new optional field is not a breaking change."""
    grown = dict(ORDER["Order"]["properties"]) | {"added": {"type": "integer", "default": 0}}
    assert check_schemas.breaks(ORDER, changed("Order", properties=grown)) == []


@pytest.mark.parametrize(
    ("subject", "accepted"),
    [
        ("feat(streams): count each event once", True),
        ("fix(house)!: ask for Python 3.11", True),
        ("count each event once", False),
        ("feat(kitchen): count each event once", False),
        ("feat(streams): count each event once.", False),
        (f"feat(streams): {'count ' * 20}", False),
    ],
)
def test_commit_messages_name_kind_and_package(subject: str, *, accepted: bool) -> None:
    """A commit message names kind and package."""
    assert (check_commit_message.objection(subject + "\n\nBody.") is None) is accepted


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.onnx", b""),
        ("large.txt", b"x" * (check_files.LARGEST_BYTES + 1)),
        ("key.txt", b"-----BEGIN " + b"PRIVATE KEY-----"),
    ],
)
def test_files_that_do_not_belong_in_the_history_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Keys and models cannot be committed."""
    path = tmp_path / name
    path.write_bytes(content)
    assert check_files.objection(path)
    assert check_files.main([str(path)]) == 1


def test_an_ordinary_file_is_let_through(tmp_path: Path) -> None:
    """An ordinary file can be committed."""
    path = tmp_path / "rules.py"
    path.write_text('"""Rules."""\n', encoding="utf-8")
    assert check_files.main([str(path), str(tmp_path / "deleted.py")]) == 0
