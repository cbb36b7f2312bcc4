"""What `resprout models ls`, `get` and `show` say about published models."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from resprout import manifest, storage
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, Publication, Storage, attesting
from resprout.wording import printable


def list_all(prefix: str) -> None:
    """Print a line for each published version below `prefix`.

    Raises:
        StorageError: storage is not configured, cannot be reached, or refuses.
    """
    address = ObjectAddress.parse(prefix)
    found = storage.published(_server(), address)
    rows = [("name", "version", "top-1", "agreement", "address"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    _say("\n".join(printable(line, breaks="") for line in lines) if found else f"nothing is published below {address}")


def get(address: str, directory: Path, sha256: str | None = None) -> None:
    """Fetch a published version into a folder, whole or not at all.

    Args:
        address: of the version.
        directory: the folder.
        sha256: what the model's digest must be, as it is known from elsewhere than the bucket.

    Raises:
        StorageError: there is no such version, it is another model, a file of it was changed, or the folder exists.
        ArtifactError: its model is not what its manifest says.
    """
    if directory.exists():
        raise StorageError(f"{directory} exists", why="nothing is overwritten", now="name a folder that does not")
    server = _server()
    publication = find(server, address)
    _check_digest(publication, sha256)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as unfinished:
        fetched = Path(unfinished) / "fetched"
        storage.fetch(server, publication, fetched)
        if publication.model_digest:
            _check_model(publication, fetched / "model")
        attesting.fetch_attached(server, publication, fetched)
        fetched.rename(directory)
    _say(f"wrote {directory}: {len(publication.files)} files, model {publication.model_digest or 'none'}")


def _check_digest(publication: Publication, sha256: str | None) -> None:
    if sha256 not in (None, publication.model_digest):
        raise StorageError(
            f"{publication.address} holds the model {publication.model_digest or 'of no digest'}, not {sha256}",
            why="it is not the model that was agreed on",
            now="ask whoever gave you the digest, and whoever runs the storage",
        )


def _check_model(publication: Publication, folder: Path) -> None:
    listed = manifest.check(folder, sha256=publication.model_digest).files
    strays = {name for name in publication.files if name.startswith("model/")} - {
        f"model/{name}" for name in (manifest.MANIFEST, *listed)
    }
    if strays:
        raise StorageError(
            f"{publication.address} holds {min(strays)}, which its model's manifest does not list",
            why="nothing says where it comes from",
            now="ask whoever published it",
        )


def show(address: str) -> None:
    """Print a published version's facts, its metrics, and what `inspection.describe` says of its model.

    Raises:
        StorageError: there is no such version.
        ArtifactError: its model is damaged.
    """
    server = _server()
    publication = find(server, address)
    lines = [f"{publication.address}", ""]
    lines += [f"{name:<32} {value}" for name, value in sorted(publication.metrics.items())]
    with tempfile.TemporaryDirectory() as folder:
        storage.fetch(server, publication, Path(folder))
        from pipeline import inspection  # brings torch, which a list of what is published needs not

        lines += ["", *inspection.describe(Path(folder) / "model")]
    _say("\n".join(lines).replace(folder, str(publication.address)))


def metrics(address: str, sha256: str | None = None) -> dict[str, float]:
    """What was measured of a published version.

    Raises:
        StorageError: there is no such version, or its model has another digest than `sha256`.
    """
    publication = find(_server(), address)
    _check_digest(publication, sha256)
    return dict(publication.metrics)


def find(server: Storage, text: str) -> Publication:
    """A published version by its address, as people write it.

    Raises:
        StorageError: there is none.
    """
    address = ObjectAddress.parse(text)
    parts = address.key.split("/")
    if len(parts) < 2:
        raise StorageError(f"{text} names no published version", now="write it as s3://BUCKET/PREFIX/NAME/VERSION")
    *prefix, name, version = parts
    return storage.find(server, ObjectAddress(address.bucket, "/".join(prefix)), name, version)


def _row(publication: Publication) -> tuple[str, ...]:
    metrics = publication.metrics
    shares = (metrics.get("recovered.top1"), metrics.get("recovered.agreement"))
    figures = ("" if share is None else f"{100 * share:.1f} %" for share in shares)
    return (publication.name, publication.version, *figures, str(publication.address))


def _server() -> Storage:
    return Storage(storage.required())


def _say(text: str) -> None:
    Console(file=sys.stdout).print(printable(text), highlight=False, markup=False, soft_wrap=True)
