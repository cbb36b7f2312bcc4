"""Folders to and from an S3 server. Beside the files lies an index of them, so that half a folder is not taken for all.

`put` writes it first. Whoever reads the folder, or a part of it, compares: a file that is missing, or of another size,
or one too many, is refused. Where there is no index, others put the files there, and all that is there is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from resprout.errors import StorageAwayError, StorageError
from resprout.files import sha256_of
from resprout.storage.client import PARALLEL_FILES, ObjectAddress, ObjectFacts, Storage
from resprout.storage.parts import TransferWatch
from resprout.storage.records import FileName, Record, Sha256, parse

INDEX = "resprout-index.json"
INDEX_BYTES = 2**28
"""At most: a million files, with names of a hundred letters."""


class File(Record):
    """One file: its size in bytes, and its digest."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Index(Record):
    """Every file of a folder, by its name with slashes."""

    schema_version: Literal[1] = 1
    files: Annotated[dict[FileName, File], Field(min_length=1)]


def of_folder(folder: Path) -> Index:
    """The index of a folder on this machine.

    Raises:
        StorageError: it holds no file, one of the index's own name, or one whose name cannot be an object's.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if not paths:
        raise StorageError(f"{folder} holds no file", now="give the folder that holds the files")
    for name in paths:
        if name.rpartition("/")[2] == INDEX:
            raise StorageError(f"{folder / name} has a name that `storage put` uses", now="rename it, or remove it")
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        files = pool.map(lambda path: {"size": path.stat().st_size, "sha256": sha256_of(path)}, paths.values())
        found = dict(zip(paths, files, strict=True))
    try:
        return Index.model_validate({"schema_version": 1, "files": found})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise StorageError(f"{first['loc'][1]!a} in {folder} cannot be an object's name", why=first["msg"]) from None


def put(storage: Storage, path: Path, address: ObjectAddress) -> None:
    """Store a file, or a folder with its index, where nothing lies, or go on where the same was cut off.

    Raises:
        StorageError: something else lies there: nothing is overwritten; or see `of_folder`.
    """
    index = of_folder(path) if path.is_dir() else None
    place = address / INDEX
    before = storage.facts(place)
    if before is not None:
        fresh, others = False, _read(storage, before) != index
    else:
        fresh, others = True, next(storage.list(address), None) is not None or any(_above(storage, address))
    if others or (index is not None and storage.file(address) is not None):
        raise _exists(address)
    if index is None:
        storage.upload(path, address, once=True)
        return
    if fresh:
        storage.claim(place, index.to_json())
    storage.upload_folder(path, address, once=True)
    stored = storage.facts(place)
    if stored is None or _read(storage, stored) != index:  # another's, who came at the same time
        raise _exists(address)
    whole(storage, address)


def fetch(storage: Storage, address: ObjectAddress, folder: Path, watch: TransferWatch) -> Path:
    """Fetch an object, or all that lie below an address, into a folder; of a bucket alone, all that it holds.

    Args:
        watch: is told of all objects' bytes together.

    Returns:
        The file, or the folder that holds the objects under their names.

    Raises:
        StorageError: there is nothing, not all that was put there, or an object's name would lie outside the folder.
    """
    target = folder / (address.key.rpartition("/")[2] or address.bucket)
    if storage.file(address) is not None:
        storage.download(address, target, watch=watch)
        return target
    below = whole(storage, address)
    start = f"{address.key}/" if address.key else ""
    files = [target / found.address.key.removeprefix(start) for found in below]
    for found, file in zip(below, files, strict=True):
        if not file.resolve().is_relative_to(target.resolve()):
            raise StorageError(f"cannot read {address}", why=f"{found.address} would lie outside its folder")
        file.parent.mkdir(parents=True, exist_ok=True)
    done, total = dict.fromkeys(files, 0), sum(found.size for found in below)

    def fetch_one(found: ObjectFacts, file: Path) -> None:
        def count(of_this: int, _: int) -> None:
            done[file] = of_this
            watch(sum(done.values()), total)

        storage.download(found.address, file, sha256=found.sha256, watch=count)

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        list(pool.map(fetch_one, below, files))
    return target


def _exists(address: ObjectAddress) -> StorageError:
    return StorageError(f"{address} exists", why="nothing is overwritten", now="give another address")


def whole(storage: Storage, address: ObjectAddress) -> list[ObjectFacts]:
    """Every file below an address, by key, each with the digest that an index gives it, where one does.

    Raises:
        StorageError: there is none, or not all that an index names, or more.
    """
    below = list(storage.list(address))
    if not below:
        raise storage.nothing_at(address)
    found = {each.address.key: each for each in below if not _is_index(each)}
    for place in [*_above(storage, address), *filter(_is_index, below)]:
        base = place.address.key.removesuffix(INDEX)
        start = max(f"{address.key}/" if address.key else "", base, key=len)
        index = _read(storage, place)
        expected = {f"{base}{name}": file for name, file in index.files.items() if f"{base}{name}".startswith(start)}
        _compare(address, expected, {key: each for key, each in found.items() if key.startswith(start)})
        found |= {key: replace(found[key], sha256=file.sha256) for key, file in expected.items()}
    return list(found.values())


def _compare(address: ObjectAddress, expected: dict[str, File], found: dict[str, ObjectFacts]) -> None:
    missing = [key for key, file in expected.items() if key not in found or found[key].size != file.size]
    if missing:
        raise StorageError(
            f"{address} is not whole: {len(missing):,} of {len(expected):,} files are missing or cut, "
            f"{missing[0]!r} for one",
            why="`resprout storage put` was cut off, or is not done, or something was removed since",
            now="run the same `resprout storage put` again: it stores what is missing",
        )
    more = sorted(found.keys() - expected.keys())
    if more:
        raise StorageError(
            f"{address} holds {len(more):,} files more than were put there, {more[0]!r} for one",
            why=f"{INDEX} says what belongs there",
            now="remove them, or put all of it under another address",
        )


def _above(storage: Storage, address: ObjectAddress) -> Iterator[ObjectFacts]:
    """The indexes of the folders in which this one lies, as far as one may look."""
    parts = address.key.split("/") if address.key else []
    for depth in reversed(range(len(parts))):
        place = ObjectAddress(address.bucket, "/".join([*parts[:depth], INDEX]))
        try:
            found = storage.facts(place)
        except StorageAwayError:
            raise
        except StorageError:  # these credentials are for what lies below
            return
        if found is not None:
            yield found


def _read(storage: Storage, found: ObjectFacts) -> Index:
    return parse(Index, storage.read(found, INDEX_BYTES), found.address)


def _is_index(found: ObjectFacts) -> bool:
    return found.address.key.rpartition("/")[2] == INDEX
