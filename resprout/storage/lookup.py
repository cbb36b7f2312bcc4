"""A run's addresses, looked up in the object storage that the environment names."""

from __future__ import annotations

from resprout import planning
from resprout.errors import StorageError
from resprout.recipe import Recipe
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.publishing import is_published
from resprout.storage.settings import required


def identity(address: str) -> str:
    """What stands for the bytes that lie at an s3:// address now; see `Storage.identity`.

    Raises:
        StorageError: no storage is configured, it does not answer, or there is nothing.
    """
    return Storage(required()).identity(ObjectAddress.parse(address))


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
