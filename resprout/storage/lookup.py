"""A run's addresses, looked up in the object storage that the environment names."""

from __future__ import annotations

from resprout import planning
from resprout.recipe import Recipe
from resprout.storage import ObjectAddress, Storage, check_free, identity, required


def plan(recipe: Recipe) -> planning.Plan:
    """`planning.plan`, with the storage that the environment names where the recipe has an s3:// address.

    Raises:
        StorageError: there is nothing at an address, no bucket to publish to, or that version is taken.
        RecipeError, ArtifactError: see `planning.plan`.
    """
    made = planning.plan(recipe, identity)
    section = recipe.publishing
    if section.to is not None:
        prefix = ObjectAddress.parse(section.to)
        check_free(Storage(required().for_publishing()), prefix, section.name or recipe.name, section.version)
    return made
