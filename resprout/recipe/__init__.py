"""A recipe: what to do with which teacher, as one frozen pydantic section per stage.

Every field's docstring is what `resprout recipe explain SECTION.FIELD` prints. A section that offers several
methods is a union discriminated on `method`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from resprout.errors import RecipeError
from resprout.recipe.base import Section
from resprout.recipe.names import PATTERN, name_made_of
from resprout.recipe.placement import PlacementSection
from resprout.recipe.problems import problem
from resprout.recipe.pruning import (
    BlockSection,
    ErkSection,
    FisherSection,
    GlobalMagnitudeSection,
    LampSection,
    LayerMagnitudeSection,
    MaskingSection,
    OptimalBrainSection,
    PruningBase,
    PruningSection,
    RandomSection,
    ScoredSection,
    SemiStructuredSection,
    SensitivitySection,
    StructuredSection,
    SynflowSection,
    TaylorSection,
    TeacherGuidedSection,
)
from resprout.recipe.reading import parsed, text_of
from resprout.recipe.sections import (
    DeepInversionSection,
    DistillationSection,
    EvaluationSection,
    GateSection,
    ImagesSection,
    InputSection,
    PaperRecoverySection,
    PaperSynthesisSection,
    PublishingSection,
    ReconstructionSection,
    RecoverySection,
    SynthesisSection,
    TeacherSection,
)
from resprout.recipe.texts import mended, texts_in, typed
from resprout.urls import secret_in, without_secrets
from resprout.wording import is_plain


class Recipe(Section):
    """One compression, from a teacher to a recovered, evaluated student."""

    name: str = Field(default="unnamed", pattern=PATTERN)
    """What runs are called; default: a name made of the recipe file's."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """The one seed that all randomness comes from."""
    teacher: TeacherSection
    synthesis: SynthesisSection = DeepInversionSection()
    pruning: PruningSection = OptimalBrainSection()
    recovery: RecoverySection = DistillationSection()
    evaluation: EvaluationSection = EvaluationSection()
    gate: GateSection = GateSection()
    publishing: PublishingSection = PublishingSection()
    placement: PlacementSection = PlacementSection()

    @property
    def training_data(self) -> str | None:
        """Where the labelled images are that take the place of dreams; None where dreams are synthesized."""
        return self.synthesis.data if isinstance(self.synthesis, ImagesSection) else None

    @model_validator(mode="after")
    def _is_not_judged_on_what_it_learnt_from(self) -> Recipe:
        learnt_from, judged_on = self.training_data, self.evaluation.data
        if learnt_from and judged_on and os.path.normpath(learnt_from) == os.path.normpath(judged_on):
            raise RecipeError(
                f"synthesis.data: is evaluation.data, {judged_on}",
                why="accuracy on images that a network learnt from says little about others",
                now="name training images in synthesis.data, or leave evaluation.data out",
            )
        return self

    @model_validator(mode="after")
    def _measures_what_its_gate_asks_for(self) -> Recipe:
        if self.gate.max_latency_ratio is not None and not self.evaluation.measure_latency:
            raise RecipeError(
                "gate.max_latency_ratio: needs evaluation.measure_latency, which is off",
                why="a latency that is not measured cannot be judged, and the run would fail at its end",
                now="set evaluation.measure_latency: true, or leave the limit out",
            )
        return self

    @model_validator(mode="after")
    def _has_epochs_for_its_rounds(self) -> Recipe:
        epochs = getattr(self.pruning, "round_epochs", None)
        if epochs is not None and not isinstance(self.recovery, DistillationSection):
            raise RecipeError(
                f"pruning.round_epochs: is {epochs}, and recovery.method is {self.recovery.method}",
                why="only distillation has a number of epochs to choose",
                now="leave pruning.round_epochs out, or set recovery.method to distillation",
            )
        return self

    @model_validator(mode="after")
    def _has_something_to_score_by(self) -> Recipe:
        if isinstance(self.pruning, TeacherGuidedSection) and self.pruning.alpha == 1:
            raise RecipeError(
                "pruning.alpha: 1 asks the teacher alone how the student should change, and the student is the teacher",
                why="their divergence and its gradient are exactly zero, before any training and after it",
                now="lower pruning.alpha, so that labels count too",
            )
        return self

    @model_validator(mode="after")
    def _can_choose_its_sparsity(self) -> Recipe:
        if getattr(self.pruning, "sparsity", None) != "auto":
            return self
        if self.synthesis.num_held_out == 0:
            raise RecipeError(
                "pruning.sparsity: is auto, and synthesis.num_held_out is 0",
                why="held-out dreams are what agreement is measured on",
                now="hold some out, 128 for example",
            )
        return self


SECTIONS: dict[str, Any] = {
    "teacher": TeacherSection,
    "synthesis": SynthesisSection,
    "pruning": PruningSection,
    "recovery": RecoverySection,
    "evaluation": EvaluationSection,
    "gate": GateSection,
    "publishing": PublishingSection,
    "placement": PlacementSection,
}


_TOLD = 20  # problems at once


def load(path: str | Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        RecipeError: no such file, not YAML, a key that stands twice, or a field that is unknown, missing or out of
            range.
    """
    path = Path(path)
    text = text_of(path)
    fields = parsed(text, f"recipe {path.name}")
    if not isinstance(fields, dict):
        raise RecipeError(f"recipe {path} is not a mapping of sections", now="start from one in recipes/")
    fields.setdefault("name", name_made_of(path.stem))
    recipe: Recipe = validate(Recipe, fields, f"recipe {path.name}", typed(text))
    return recipe


def validate(kind: Any, fields: Mapping[str, Any], where: str, texts: Any = None) -> Any:
    """`fields` as a section; `where` starts the message of a refusal.

    Every problem gets a line: the dotted field, what is wrong with it, the value; an unknown field gets the nearest
    known one. A name or a version may be a number.

    Args:
        kind: the section.
        fields: its fields.
        where: as in "recipe demo.yaml".
        texts: the fields as they were typed, see `recipe.texts.typed`; None where nobody knows.

    Raises:
        RecipeError: with all the problems at once.
    """
    if where in SECTIONS:
        where = f"recipe section {where}"
    try:
        _check_texts(fields)
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        if (again := mended(fields, texts, error)) is not None:
            return validate(kind, again, where)
        problems = [f"{where}, {problem(detail, kind)}" for detail in error.errors()[:_TOLD]]
        more = [f"and {error.error_count() - _TOLD:,} more"] * (error.error_count() > _TOLD)
        raise RecipeError("\n".join([*problems, *more])) from None
    except RecursionError:
        raise RecipeError(f"{where} is not a recipe: it is nested too deeply") from None
    except RecipeError as error:  # of sections that are right each, but not together
        raise RecipeError(f"{where}, {error.what}", why=error.why, now=error.now) from None


def _check_texts(fields: Mapping[str, Any]) -> None:
    for field, text in texts_in(fields):
        if not is_plain(text):
            raise RecipeError(
                f"{field}: holds what cannot be shown on one line, {text!a:.200}",
                why="a terminal, a page or a file would take it for something else",
                now="write it in plain characters",
            )
        if (secret := secret_in(text)) and not text.startswith("https://"):
            raise RecipeError(
                f"{field}: holds {secret}, {without_secrets(text)}",
                why="recipes and addresses are recorded with each result",
                now="leave it out: credentials of object storage come from the environment, on a cluster from a "
                "secret, those of the Hugging Face Hub from `hf auth login`",
            )


def section(name: str, fields: Mapping[str, Any]) -> Any:
    """One stage's section from a plain dict, as a component receives it (numbers may be floats)."""
    return validate(SECTIONS[name], with_whole_numbers(fields), name)


def sections_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Each stage's section as a plain dict, which `section` reads back: what is not its default, and the method.

    A run's state holds a section many times, and must stay small.
    """
    sections = {}
    for name in SECTIONS.keys() - {"placement"}:
        part = getattr(recipe, name)
        sections[name] = {**part.model_dump(include={"method"}), **part.model_dump(mode="json", exclude_defaults=True)}
    return sections


def with_whole_numbers(value: Any) -> Any:
    """`value` with 2 for 2.0: KFP hands ints inside dicts back as floats.

    Fields become floats again where they are, free-form arguments do not.
    """
    if isinstance(value, Mapping):
        return {name: with_whole_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


__all__ = [
    "SECTIONS",
    "BlockSection",
    "DeepInversionSection",
    "DistillationSection",
    "ErkSection",
    "EvaluationSection",
    "FisherSection",
    "GateSection",
    "GlobalMagnitudeSection",
    "ImagesSection",
    "InputSection",
    "LampSection",
    "LayerMagnitudeSection",
    "MaskingSection",
    "OptimalBrainSection",
    "PaperRecoverySection",
    "PaperSynthesisSection",
    "PlacementSection",
    "PruningBase",
    "PruningSection",
    "PublishingSection",
    "RandomSection",
    "Recipe",
    "ReconstructionSection",
    "RecoverySection",
    "ScoredSection",
    "Section",
    "SemiStructuredSection",
    "SensitivitySection",
    "StructuredSection",
    "SynflowSection",
    "SynthesisSection",
    "TaylorSection",
    "TeacherGuidedSection",
    "TeacherSection",
    "load",
    "section",
    "sections_of",
    "validate",
    "with_whole_numbers",
]
