"""What stands for the bytes at an address changes when they do, and only then."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from resprout import storage as storages
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, Storage

pytestmark = pytest.mark.usefixtures("storage_configured")


def folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_of_an_object_it_is_the_digest_that_was_stored_with_it(storage: Storage, place: ObjectAddress, tmp_path: Path):
    (tmp_path / "file").write_text("weights")
    digest = storage.upload(tmp_path / "file", place / "file")

    assert storages.identity(str(place / "file")) == f"sha256:{digest}"


def test_an_object_of_others_has_one_too(storage: Storage, place: ObjectAddress):
    def put(content: bytes) -> str:
        storage.sdk.put_object(place.bucket, (place / "theirs").key, BytesIO(content), len(content))
        return storages.identity(str(place / "theirs"))

    first, again, other = put(b"theirs"), put(b"theirs"), put(b"THEIRS")

    assert first == again != other
    assert first.startswith("etag:")


def test_of_a_folder_it_is_that_of_names_and_bytes(storage: Storage, place: ObjectAddress, tmp_path: Path):
    storage.upload_folder(folder(tmp_path / "in", a="1", b="2"), place / "data")
    storage.upload_folder(tmp_path / "in", place / "data-of-another")
    first = storages.identity(str(place / "data"))

    assert storages.identity(f"{place}/data/") == first, "a slash at the end is no other folder"
    assert storages.identity(str(place / "data-of-another")) == first, "wherever it lies"
    storage.upload_folder(tmp_path / "in", place / "data")
    assert storages.identity(str(place / "data")) == first, "the same bytes once more"

    seen = {first}
    for change in ({"b": "3"}, {"c": ""}):
        storage.upload_folder(folder(tmp_path / "in", **change), place / "data")
        seen.add(storages.identity(str(place / "data")))
    storage.remove(place / "data" / "a")
    seen.add(storages.identity(str(place / "data")))
    assert len(seen) == 4


@pytest.mark.parametrize("missing", ["", "/nothing"])
def test_where_nothing_is_there_is_none(place: ObjectAddress, missing: str):
    with pytest.raises(StorageError, match="neither an object of that name nor one below it"):
        storages.identity(f"{place}{missing}")
