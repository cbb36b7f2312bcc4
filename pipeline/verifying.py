"""What `resprout verify` and `resprout models sign` do, with a run's folder or a published version."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipeline import publications
from resprout import signing, storage, strict_json
from resprout.errors import ArtifactError, StorageError
from resprout.manifest import MANIFEST
from resprout.statement import STATEMENT, read
from resprout.storage import Publication, Storage, attesting, builder
from resprout.verification import Finding, Verified, verify

_MARKS = {True: "ok", False: "WRONG", None: "-"}


def run(place: str, *, sha256: str | None, public_key: Path | None) -> bool:
    """Look at a run's folder or a published version, and print what was found and what follows from it.

    Args:
        place: a folder, or the s3:// address of a version.
        sha256: the model's digest, as somebody kept it.
        public_key: a PEM file; a signature by its owner must be there.

    Returns:
        Whether everything is as it should be.

    Raises:
        ResproutError: nothing can be held against anything: no statement, no such version, no storage.
    """
    if place.startswith("s3://"):
        server = Storage(storage.required())
        with _fetched(server, publications.find(server, place)) as (folder, findings):
            return _tell(place, folder, findings, sha256, public_key)
    return _tell(place, Path(place), [], sha256, public_key)


def sign(address: str) -> None:
    """Add a signature to a published version whose every byte is as it should be: with the key, or keyless in CI.

    Raises:
        ResproutError: the version is damaged, or nothing can be signed here.
    """
    key = builder.signing_key()
    server = Storage(storage.required())
    publication = publications.find(server, address)
    with _fetched(server, publication) as (folder, findings):
        if wrong := [it for it in (*findings, *verify(folder).findings) if it.holds is False]:
            raise ArtifactError(
                f"{address} is not what was published: {wrong[0].what}: {wrong[0].said}",
                why="a signature would vouch for it",
                now="`resprout verify` says all that is wrong with it",
            )
        signature = signing.sign(folder, key) if key else signing.sign_keyless(folder)
    _say(f"signed: {attesting.attach(server, publication.files_at, signature)}")


def _tell(place: str, folder: Path, findings: list[Finding], sha256: str | None, public_key: Path | None) -> bool:
    found = verify(folder, sha256=sha256)
    signatures = list(_signatures(folder, public_key))
    rows = [*findings, *found.findings, *signatures]
    width = max(len(row.what) for row in rows)
    lines = [f"{_MARKS[row.holds]:<6} {row.what:<{width}}  {row.said}" for row in rows]
    good = all(row.holds is not False for row in rows)
    signed = any(row.holds for row in signatures)
    told = _follows(found, signed, sha256 is not None) if good else ["It is not what was left here: see WRONG above."]
    _say("\n".join([place, "", *lines, "", f"model  {found.model}", "", *told]))
    return good


def _follows(found: Verified, signed: bool, kept: bool) -> Iterator[str]:
    details = found.statement.predicate.run_details
    yield f"It shows that none of these bytes changed since {details.metadata.finished_on}, that the figures were"
    yield "measured of this model, and what it was made of: all that a stage read is named by its digest."
    if signed:
        yield "The owner of that key signed all of it, this statement included."
    if kept:
        yield "The model is the one whose digest you kept."
    yield ""
    if not signed:
        yield "It does not show who says so: whoever can write here can write all of it anew. Hold the model against a"
        yield "digest that was kept elsewhere (--sha256), or check the publisher's signature (--public-key)."
    yield "It does not show that the stages did what they say, nor what the teacher itself was trained on: for that you"
    yield f"have to believe {details.builder.id}."


def _signatures(folder: Path, public_key: Path | None) -> Iterator[Finding]:
    """Each signature; where a public key is given, one must be by its owner."""
    files = sorted((folder / signing.SIGNATURES).glob("*"))
    by_key = []
    for file in files:
        try:
            who = signing.signer(file)
        except ArtifactError as error:
            yield Finding("signature", error.what, False)
            continue
        if public_key is None:
            yield Finding("signature", f"of {who}; not checked: --public-key names the file to check it with", None)
            continue
        try:
            signing.verify(folder, file, public_key)
            by_key.append(file)
            yield Finding("signature", f"of {who}: over these files, by the owner of {public_key}")
        except ArtifactError as error:
            yield Finding("signature", f"of {who}: {error.why}", None)
    if public_key is not None and not by_key:
        yield Finding("signature", f"none of these files by the owner of {public_key}", False)
    elif not files:
        yield Finding("signature", "none", None)


@contextmanager
def _fetched(server: Storage, publication: Publication) -> Iterator[tuple[Path, list[Finding]]]:
    """A version's files, statement and signatures in a folder; and what is wrong with them where they lie."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / publication.version
        folder.mkdir()
        wrong = list(_fetch(server, publication, folder))
        yield folder, wrong or [Finding("version", f"its {len(publication.files)} files are as they were published")]


def _fetch(server: Storage, publication: Publication, folder: Path) -> Iterator[Finding]:
    if not storage.is_as_written(server, publication):
        yield Finding("published.json", "is not what publishing these files writes", False)
    for name, digest in publication.files.items():
        try:
            storage.fetch(server, replace(publication, files={name: digest}), folder)
        except StorageError as error:
            yield Finding("version", f"{name}: {error.why or error.what}", False)
    attesting.fetch_attached(server, publication, folder)
    yield from _about(publication, folder)


def _about(publication: Publication, folder: Path) -> Iterator[Finding]:
    """Where the record says of the model and its figures what they do not say themselves."""
    try:
        stated = read(folder / STATEMENT).files
        figures = strict_json.parse((folder / "metrics.json").read_bytes())
    except (ArtifactError, OSError, ValueError):
        return  # told where the files are looked at
    if {**publication.files} != stated:
        yield Finding("published.json", f"lists other files than {STATEMENT}", False)
    if publication.about != {"digest": stated.get(f"model/{MANIFEST}"), "metrics": figures}:
        yield Finding("published.json", "says otherwise of the model than its files do", False)


def _say(text: str) -> None:
    Console(file=sys.stdout).print(text, highlight=False, markup=False, soft_wrap=True)
