"""The content-addressed store on a real folder: put once, never changed, verified when read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from backends.store.content import ContentStore, digest_of
from schemas.errors import ArtifactRejectedError

FILES = {"manifest.json": b"{}", "model.onnx": b"\x08\x01"}
names = st.text(alphabet="abcdefghij.", min_size=1, max_size=8)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    """Return a store in a new folder."""
    return ContentStore(f"file://{tmp_path}/store")


def together(number: int, action: Callable[[], object]) -> list[object]:
    """Return what ``number`` threads get that act at the same moment; an exception counts as what it got."""
    barrier, outcomes = threading.Barrier(number), []

    def act() -> None:
        barrier.wait()
        try:
            outcomes.append(action())
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            outcomes.append(error)

    threads = [threading.Thread(target=act) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@given(files=st.dictionaries(names, st.binary(max_size=20), max_size=4), name=names, content=st.binary(max_size=20))
def test_another_name_or_content_gives_another_digest(files: dict[str, bytes], name: str, content: bytes) -> None:
    """Files with another name or content have another digest."""
    assert digest_of(files) == digest_of(dict(reversed(files.items())))
    changed = {**files, name: content}
    assert (digest_of(changed) == digest_of(files)) == (changed == files)


def test_what_was_put_is_got_under_the_digest_of_its_contents(store: ContentStore) -> None:
    """Files are read back unchanged under the digest of their contents."""
    address = store.put("artifacts", FILES)
    assert address == f"artifacts/{digest_of(FILES)}"
    assert store.get(address) == FILES
    assert store.exists(address)
    assert store.addresses("artifacts") == [address]
    assert Path(store.path(address), "model.onnx").read_bytes() == FILES["model.onnx"]


def test_the_same_contents_are_stored_once(store: ContentStore) -> None:
    """The same contents are stored once and not written again."""
    first = store.put("artifacts", FILES)
    written = Path(store.path(first), "model.onnx").stat().st_mtime_ns
    assert store.put("artifacts", dict(reversed(FILES.items()))) == first
    assert Path(store.path(first), "model.onnx").stat().st_mtime_ns == written


def test_two_that_put_the_same_at_once_leave_one_whole_folder(store: ContentStore) -> None:
    """Two writers of the same contents leave one complete folder."""
    for attempt in range(20):
        files = {**FILES, "attempt": str(attempt).encode()}
        address = f"artifacts/{digest_of(files)}"
        assert together(4, lambda files=files: store.put("artifacts", files)) == [address] * 4  # type: ignore[misc]
        assert store.get(address) == files
    left = [path.name for path in Path(store.path("artifacts")).iterdir() if path.name.startswith(".")]
    assert left == []


def test_the_loser_of_a_race_takes_the_winners_folder(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses the race uses the winner's folder and succeeds."""
    address = store.put("artifacts", FILES)
    looks = iter([False])
    exists = LocalFileSystem.exists
    monkeypatch.setattr(LocalFileSystem, "exists", lambda *path: next(looks, None) is not False and exists(*path))
    assert store.put("artifacts", FILES) == address
    assert [path.name for path in Path(store.path("artifacts")).iterdir()] == [address.partition("/")[2]]
    assert store.get(address) == FILES


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x02"),
        lambda folder: (folder / "model.onnx").unlink(),
        lambda folder: (folder / "model.onnx").rename(folder / "other.onnx"),
        lambda folder: (folder / "extra").write_bytes(b""),
    ],
    ids=["changed", "missing", "renamed", "added"],
)
def test_what_does_not_have_its_digest_is_refused(store: ContentStore, spoil: Callable[[Path], object]) -> None:
    """Files that do not match their digest are refused."""
    address = store.put("artifacts", FILES)
    spoil(Path(store.path(address)))
    with pytest.raises(ArtifactRejectedError, match="do not have its digest"):
        store.get(address)


def test_what_is_not_there_is_refused_by_its_address(store: ContentStore) -> None:
    """A missing folder is refused with its address."""
    with pytest.raises(ArtifactRejectedError, match="nothing is stored at artifacts/0"):
        store.get("artifacts/0")
    assert store.addresses("artifacts") == []


def test_deleting_takes_one_away_and_may_be_repeated(store: ContentStore) -> None:
    """Deleting removes one folder, and may be repeated."""
    old, kept = store.put("artifacts", FILES), store.put("artifacts", {"manifest.json": b"[]"})
    store.delete(old)
    store.delete(old)
    assert store.addresses("artifacts") == [kept]
    assert not store.exists(old)


def test_what_is_still_being_written_is_no_address(store: ContentStore) -> None:
    """A folder that is still being written has no address."""
    address = store.put("artifacts", FILES)
    Path(store.path("artifacts/.incoming-1")).mkdir()
    assert store.addresses("artifacts") == [address]


def test_a_disk_that_refuses_is_not_taken_for_a_race(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the disk refuses is an error."""
    message = "no space left on device"

    def refuse(*_: object) -> None:
        raise OSError(message)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match=message):
        store.put("artifacts", FILES)


def test_a_store_that_is_no_folder_keeps_the_same_promises() -> None:
    """A store that is not a local folder keeps the same promises."""
    store = ContentStore("memory://elsewhere")
    address = store.put("artifacts", FILES)
    assert store.put("artifacts", FILES) == address
    assert store.get(address) == FILES
    assert store.addresses("artifacts") == [address]
    store.delete(address)
    assert not store.exists(address)
