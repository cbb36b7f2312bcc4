"""Published records and the indexes of folders, as anyone who may write to the bucket could leave them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pipeline import publications
from resprout.storage import (
    ObjectAddress,
    ObjectFacts,
    Storage,
    StorageSettings,
    fetch,
    find,
    folders,
    published,
    publishing,
)
from resprout.storage.parts import TransferWatch
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import JSON, changed_json

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PREFIX = ObjectAddress("bucket", "models")
RECORD: dict[str, Any] = {
    "schema_version": 2,
    "name": "tiny",
    "version": "1",
    "folder": "0123456789abcdef",
    "files": {"model/manifest.json": DIGEST, "metrics.json": DIGEST},
    "about": {"digest": DIGEST, "metrics": {"recovered.top1": 0.5, "recovered.agreement": 1}},
}
INDEX = {"schema_version": 1, "files": {name: {"size": len(CONTENT), "sha256": DIGEST} for name in ("a/0.png", "b")}}


class Held(Storage):
    """A server's answers without the server."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(StorageSettings(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"))
        self.objects = objects

    def firsts(self, address: ObjectAddress) -> dict[str, ObjectFacts]:
        return {each.address.key: each for each in self.list(address)}

    def facts(self, address: ObjectAddress) -> ObjectFacts | None:
        content = self.objects.get(address.key)
        return None if content is None else ObjectFacts(address, len(content), "etag", None)

    def list(self, address: ObjectAddress) -> Iterator[ObjectFacts]:
        for key, content in sorted(self.objects.items()):
            if key.startswith(f"{address.key}/"):
                yield ObjectFacts(ObjectAddress(address.bucket, key), len(content), "etag", None)

    def _fetch(self, found: ObjectFacts, file: Path, watch: TransferWatch) -> str:
        content = self.objects[found.address.key]
        file.write_bytes(content)
        return hashlib.sha256(content).hexdigest()


def test_any_record_is_read_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        files = {f"models/tiny/1/{RECORD['folder']}/{name}": CONTENT for name in RECORD["files"]}
        held = Held({"models/tiny/1/published.json": content, **files})
        for publication in published(held, PREFIX):
            "  ".join(publications._row(publication)).encode()
        publication = find(held, PREFIX, "tiny", "1")
        fetch(held, publication, tmp_path / "out")
        assert all(path.is_relative_to(tmp_path / "out") for path in tmp_path.rglob("*") if path.is_file())

    fuzz(changed_json(RECORD), read, examples=100)


def test_any_index_is_read_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    def read(given: tuple[bytes, str]) -> None:
        content, part = given
        files = {f"sets/test/{name}": CONTENT for name in INDEX["files"]}  # type: ignore[attr-defined]
        held = Held({f"sets/test/{folders.INDEX}": content, **files})
        folders.fetch(held, ObjectAddress("bucket", part), tmp_path / "out", lambda done, total: None)

    fuzz(st.tuples(changed_json(INDEX), st.sampled_from(["sets", "sets/test", "sets/test/a"])), read, examples=100)


def test_any_facts_are_published_or_refused(fuzz: Fuzz) -> None:
    def record(about: Any) -> None:
        publishing._record("tiny", "1", {"metrics.json": DIGEST}, about).to_json()

    fuzz(st.dictionaries(st.sampled_from(["digest", "metrics", "more"]), JSON, max_size=3), record, examples=100)
