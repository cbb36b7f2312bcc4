"""What lies beside a published version's files and vouches for them: its statement, and signatures.

Each is stored once and never replaced. A signature's name is its own sha256, so that several lie side by side.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from resprout import signing
from resprout.errors import StorageError
from resprout.signing import SIGNATURES
from resprout.statement import LARGEST_BYTES, STATEMENT, Statement, read
from resprout.storage.client import ObjectAddress, ObjectFacts, Storage
from resprout.storage.publishing import Publication


def attest(
    storage: Storage, place: ObjectAddress, files: Mapping[str, Path], stated: Statement, key: Path | None
) -> None:
    """Store the statement on a version, and a signature over its files and the statement where there is a key.

    Where a publisher that was killed has left a statement on these files, that one stays, and is signed.

    Args:
        place: what the version's files lie below.
        files: their names, and where they are now.
        stated: the statement on them.
        key: the file of the private key; None: nothing is signed.

    Raises:
        StorageError: the statement there is on other files.
        ResproutError: nothing can be signed with that key.
    """
    with _laid_out(files, place.key.rpartition("/")[2]) as folder:
        file = folder / STATEMENT
        file.write_bytes(stated.to_bytes())
        if not storage.claim(place / STATEMENT, file.read_bytes()):
            _fetch(storage, storage.firsts(place)[(place / STATEMENT).key], file)
            if read(file).files != stated.files:
                raise StorageError(
                    f"{place / STATEMENT} is a statement on other files",
                    why="a published version never changes, nor what is said of it",
                    now="publish under another version",
                )
        if key is not None:
            attach(storage, place, signing.sign(folder, key))


def attach(storage: Storage, place: ObjectAddress, signature: bytes) -> ObjectAddress:
    """Store a signature beside a version's files; returns its address."""
    address = place / SIGNATURES / signing.name_of(signature)
    storage.claim(address, signature)
    return address


def fetch_attached(storage: Storage, publication: Publication, folder: Path) -> None:
    """Fetch a version's statement and signatures, as many as there are, to where its files were fetched.

    Raises:
        StorageError: one is larger than any that Resprout writes.
    """
    start = f"{publication.files_at.key}/"
    for key, found in storage.firsts(publication.files_at).items():
        name = key.removeprefix(start)
        if name == STATEMENT or re.fullmatch(rf"{SIGNATURES}/[0-9a-f]{{64}}\.json", name):
            (folder / name).parent.mkdir(exist_ok=True)
            _fetch(storage, found, folder / name)


def _fetch(storage: Storage, found: ObjectFacts, file: Path) -> None:
    file.write_bytes(storage.read(found, LARGEST_BYTES))


@contextmanager
def _laid_out(files: Mapping[str, Path], name: str) -> Iterator[Path]:
    """A folder in which files lie under their published names, without a copy where the file system allows that."""
    with TemporaryDirectory() as above:
        folder = Path(above) / name
        folder.mkdir()
        for file, path in files.items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), target)
            except OSError:
                shutil.copyfile(path, target)
        yield folder
