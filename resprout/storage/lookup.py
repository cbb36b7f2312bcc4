"""A run's addresses, looked up in the object storage that the environment names."""

from __future__ import annotations

import hashlib

from resprout import planning
from resprout.errors import StorageError
from resprout.recipe import Recipe
from resprout.storage.client import ObjectAddress, ObjectFacts, Storage
from resprout.storage.publishing import is_published
from resprout.storage.settings import required


def identity(text: str) -> str:
    """What stands for the bytes that lie at an s3:// address now, without fetching them.

    Returns:
        Of an object, the sha256 that was stored with it, or its ETag and size; of a folder, a sha256 over its objects'
        names and these.

    Raises:
        StorageError: no storage is configured, it does not answer, or there is nothing.
    """
    server, address = Storage(required()), ObjectAddress.parse(text)
    if (found := server.facts(address)) is not None:
        return _of_object(found)
    below = [server.facts(each.address) or each for each in server.list(address)]
    if not below:
        raise StorageError(
            f"there is nothing at {text}",
            why=f"{server.endpoint} has neither an object of that name nor one below it",
            now=f"correct the address, or store it: resprout storage put PATH {text}",
        )
    lines = sorted(f"{each.address.key} {_of_object(each)}" for each in below)
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _of_object(facts: ObjectFacts) -> str:
    return f"sha256:{facts.sha256}" if facts.sha256 else f"etag:{facts.etag}-{facts.size}"


def plan(recipe: Recipe) -> planning.Plan:
    """`planning.plan`, with the storage that the environment names where the recipe has an s3:// address.

    Raises:
        StorageError: there is nothing at an address, no bucket to publish to, or that version is taken.
        RecipeError, ArtifactError: see `planning.plan`.
    """
    made = planning.plan(recipe, identity)
    _check_publishing(recipe)
    return made


def _check_publishing(recipe: Recipe) -> None:
    section = recipe.publishing
    if section.to is None:
        return
    server, prefix = Storage(required()), ObjectAddress.parse(section.to)
    server.check(prefix.bucket)
    name = section.name or recipe.name
    if section.version is not None and is_published(server, prefix, name, section.version):
        raise StorageError(
            f"publishing.version {section.version} exists: {prefix / name / section.version}",
            why="a published version never changes: whoever pinned it must get the same bytes",
            now="give another version, or none: the model's digest is its version then",
        )
