"""A folder that was put there is read whole or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from resprout import storage as storages
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, Storage, folders
from resprout.storage.folders import INDEX
from resprout.storage.parts import TransferWatch
from tests.resprout.storage.gateway import ignoring

pytestmark = pytest.mark.usefixtures("storage_configured")


def a_set(folder: Path, classes: str = "abcd", text: str = "") -> Path:
    """Two files in each class's folder."""
    for name in classes:
        for number in range(2):
            file = folder / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{name}{number}{text}")
    return folder


def fetched(address: ObjectAddress, to: Path) -> dict[str, bytes]:
    folder = storages.stored(str(address), to, lambda progress: None)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class _CutOffError(Exception):
    pass


def cut_off(storage: Storage, after: int) -> Storage:
    """The same server, whose client dies after so many files."""
    left = iter(range(after))

    class Dying(Storage):
        def upload(
            self, file: Path, address: ObjectAddress, watch: TransferWatch = lambda *_: None, *, once: bool = False
        ) -> str:
            if next(left, None) is None:
                raise _CutOffError
            return super().upload(file, address, watch, once=once)

    return Dying(storage._settings)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_what_was_cut_off_is_not_read_and_is_gone_on_with(
    storage: Storage, place: ObjectAddress, tmp_path: Path, after: int
) -> None:
    path, address = a_set(tmp_path / "set"), place / "set"
    with pytest.raises(_CutOffError):
        folders.put(cut_off(storage, after), path, address)

    for read in (lambda: storages.identity(str(address)), lambda: fetched(address, tmp_path / "half")):
        with pytest.raises(StorageError, match=r"is not whole: . of 8 files are missing") as caught:
            read()
        assert "storage put" in caught.value.now
    folders.put(storage, path, address)
    assert fetched(address, tmp_path / "all") == {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*.png")
    }
    folders.put(storage, path, address)


def test_a_part_of_what_was_cut_off_is_not_read_either(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    path, address = a_set(tmp_path / "set"), place / "set"
    folders.put(storage, path, address)
    assert set(fetched(address / "b", tmp_path / "b")) == {"0.png", "1.png"}
    storage.remove(address / "b" / "1.png")

    assert set(fetched(address / "a", tmp_path / "a")) == {"0.png", "1.png"}
    for place_of_it in (address / "b", address, place):
        with pytest.raises(StorageError, match=r"is not whole: 1 of . files are missing or cut, '.*/b/1.png' for one"):
            storages.identity(str(place_of_it))


def test_what_is_not_what_was_put_is_not_read(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    def put(name: str, content: bytes) -> None:
        storage.sdk.put_object(place.bucket, (place / "set" / name).key, BytesIO(content), len(content))

    folders.put(storage, a_set(tmp_path / "set"), place / "set")
    put("a/2.png", b"one more")
    with pytest.raises(StorageError, match="holds 1 files more than were put there"):
        storages.identity(str(place / "set"))
    storage.remove(place / "set" / "a" / "2.png")
    put("a/1.png", b"cut")
    put("a/0.png", b"A0")
    with pytest.raises(StorageError, match="missing or cut"):
        storages.identity(str(place / "set"))
    put("a/1.png", b"a1")
    with pytest.raises(StorageError, match="is not what was stored"):
        fetched(place / "set", tmp_path / "to")


def test_nothing_is_overwritten(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    one, other = a_set(tmp_path / "one"), a_set(tmp_path / "other", text="!")
    folders.put(storage, one, place / "set")
    storage.upload(one / "a" / "0.png", place / "file")
    storage.upload_folder(one, place / "of-others")
    refused: list[tuple[Path, ObjectAddress]] = [
        (other, place / "set"),
        (other / "a", place / "set" / "a"),
        (other / "a", place / "set" / "new"),
        (other / "a" / "0.png", place / "set"),
        (other / "a" / "0.png", place / "set" / "new.png"),
        (other / "a" / "0.png", place / "file"),
        (other, place / "file"),
        (one, place / "of-others"),
    ]

    for path, address in refused:
        with pytest.raises(StorageError) as caught:
            folders.put(storage, path, address)
        assert caught.value.why == "nothing is overwritten", (path, address)
    assert fetched(place / "set", tmp_path / "to")["a/0.png"] == b"a0"
    folders.put(storage, one / "a" / "0.png", place / "file")


@pytest.mark.parametrize("kind", ["heeded", "ignored"])
def test_of_two_at_once_none_reads_a_mixture(
    storage: Storage, place: ObjectAddress, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [a_set(tmp_path / text, "ab", text) for text in ("one", "two")]
    outcomes: list[str] = []

    def at_once(server: Storage) -> None:
        barrier = threading.Barrier(2)

        def put(path: Path) -> None:
            barrier.wait()
            try:
                folders.put(server, path, place / "set")
                outcomes.append("stored")
            except StorageError:
                outcomes.append("refused")

        threads = [threading.Thread(target=put, args=[path]) for path in sets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    if kind == "heeded":
        at_once(storage)
        assert "refused" in outcomes
    else:
        with ignoring() as gateway:
            at_once(Storage(gateway.settings))
            monkeypatch.setenv("RESPROUT_STORAGE_ENDPOINT", gateway.settings.endpoint)
            read_whole_or_refused(place / "set", tmp_path, sets)
        return
    read_whole_or_refused(place / "set", tmp_path, sets)


def read_whole_or_refused(address: ObjectAddress, tmp_path: Path, sets: list[Path]) -> None:
    wholes = [{path.relative_to(each).as_posix(): path.read_bytes() for path in each.rglob("*.png")} for each in sets]
    try:
        found = fetched(address, tmp_path / "to")
    except StorageError:
        return
    assert found in wholes


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder.mkdir(), "holds no file"),
        (lambda folder: (a_set(folder) / "a" / INDEX).write_text("{}"), "has a name that `storage put` uses"),
        (lambda folder: (a_set(folder) / "a" / "line\nbreak.png").write_text(""), "cannot be an object's name"),
        (lambda folder: (a_set(folder) / "a" / "\udcff.png").write_text(""), "cannot be an object's name"),
    ],
)
def test_what_cannot_be_read_again_is_not_stored(
    storage: Storage, place: ObjectAddress, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "set")
    with pytest.raises(StorageError, match=said):
        folders.put(storage, tmp_path / "set", place / "set")
    assert list(storage.list(place)) == []


@pytest.mark.parametrize(
    "index",
    [
        b"[]",
        b"{",
        json.dumps({"schema_version": 1, "files": {"../a": {"size": 1, "sha256": "0" * 64}}}).encode(),
        json.dumps({"schema_version": 1, "files": {"a": {"size": -1, "sha256": "0" * 64}}}).encode(),
        json.dumps({"schema_version": 1, "files": {"a": {"size": 1}}}).encode(),
        json.dumps({"schema_version": 1, "files": {}}).encode(),
    ],
)
def test_an_index_that_is_none_is_refused(storage: Storage, place: ObjectAddress, tmp_path: Path, index: bytes) -> None:
    storage.upload_folder(a_set(tmp_path / "set"), place / "set")
    assert storage.claim(place / "set" / INDEX, index)
    with pytest.raises(StorageError, match=f"{INDEX} cannot be read"):
        storages.identity(str(place / "set"))
