"""What is decided before a run computes anything: whether its recipe can be run, and which bytes its addresses mean.

Without torch, so that a run's first stage takes seconds and little memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from resprout.errors import ArtifactError, RecipeError
from resprout.hub import hub_file
from resprout.recipe import Recipe, TeacherSection
from resprout.sharding import shares
from resprout.urls import without_secrets

Identity = Callable[[str], str]
"""What stands for the bytes that lie at an s3:// address now."""


@dataclass(frozen=True)
class Plan:
    """A run that can be started.

    Args:
        recipe: with every address that can move resolved, and a name to publish under.
        teacher, test_set, images: what stands for the bytes at these addresses; "" where the address says it itself.
        shards: the share of the dreams that each shard makes, as `2/3`; none where real images take their place.
    """

    recipe: Recipe
    teacher: str
    test_set: str
    images: str
    shards: list[str]

    def as_text(self) -> str:
        """For people: what was resolved, and what the run will do; secrets in an address are left out."""
        recipe = self.recipe
        told = {
            "teacher": (without_secrets(recipe.teacher.source), self.teacher),
            "images": (recipe.training_data, self.images),
            "test set": (recipe.evaluation.data, self.test_set),
            "publish to": (recipe.publishing.to, ""),
        }
        lines = [f"{name:<11} {' '.join(filter(None, found))}" for name, found in told.items() if found[0]]
        return "\n".join([f"recipe      {recipe.name}, seed {recipe.seed}, pruning by {recipe.pruning.method}", *lines])


def plan(recipe: Recipe, identity: Identity) -> Plan:
    """Decide a run, or refuse it.

    Args:
        recipe: what to do; it has been validated.
        identity: looks up what lies in object storage.

    Raises:
        RecipeError: the dreams cannot be shared among so many shards; the gate asks for what is not measured; it
            would be judged on the images that it learnt from.
        StorageError: there is nothing at an address, or storage does not answer.
        ArtifactError: there is no such repository, or it cannot be reached.
    """

    def stored(address: str | None) -> str:
        return identity(address) if address and address.startswith("s3://") else ""

    refuse_unmeasured(recipe)
    teacher = _pinned(recipe.teacher)
    publishing = recipe.publishing.model_copy(update={"name": recipe.publishing.name or recipe.name})
    images, test_set = stored(recipe.training_data), stored(recipe.evaluation.data)
    if images and images == test_set:
        raise RecipeError(
            f"synthesis.data: {recipe.training_data} holds the very bytes of evaluation.data, {recipe.evaluation.data}",
            why="accuracy on images that a network learnt from says little about others",
            now="name training images in synthesis.data, or leave evaluation.data out",
        )
    return Plan(
        recipe=recipe.model_copy(update={"teacher": teacher, "publishing": publishing}),
        teacher=stored(teacher.source),
        test_set=test_set,
        images=images,
        shards=shares(recipe.synthesis, recipe.placement.num_shards),
    )


def refuse_unmeasured(recipe: Recipe) -> None:
    """Refuse limits on what a run of this recipe does not measure.

    Raises:
        RecipeError: with the limit, and what it needs.
    """
    test_set = "" if recipe.evaluation.data else "evaluation.data, which is left out"
    held_out = "" if recipe.synthesis.num_held_out else "held-out images, and synthesis.num_held_out is 0"
    needs = {"max_top1_drop_points": test_set, "min_top1": test_set, "min_agreement": held_out}
    for limit, lacking in needs.items():
        if lacking and getattr(recipe.gate, limit) is not None:
            raise RecipeError(
                f"gate.{limit}: needs {lacking}",
                why="what is not measured cannot be judged, and the run would fail at its end",
                now="say what to judge on, or leave the limit out",
            )


def _pinned(section: TeacherSection) -> TeacherSection:
    """The section, with the commit in place of a branch of a repository on the Hugging Face Hub."""
    if not section.source.startswith("hf://"):
        return section
    repository, _, revision = section.source.removeprefix("hf://").partition("@")
    commit = hub_file(repository, "config.json", revision or None).parent.name
    return section.model_copy(update={"source": f"hf://{repository}@{commit}"})


def check_unchanged(address: str, planned: str, identity: Identity) -> None:
    """Refuse bytes that are not those that the run was planned with.

    Args:
        address: where they were fetched from just now.
        planned: what stood for them then; "" where nothing did.
        identity: looks up what lies in object storage.

    Raises:
        ArtifactError: something else lies there now.
    """
    if planned and identity(address) != planned:
        raise ArtifactError(
            f"{address} has changed since the run was planned",
            why="stages and reports would speak of other bytes than those that were looked up",
            now="start the run again; it sees what lies there now",
        )
