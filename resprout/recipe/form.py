"""A recipe as the inputs of a run: what people change as plain fields, everything else as JSON.

What has a field of its own is refused in the JSON, so that no two inputs can contradict each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn, get_args

from resprout.errors import RecipeError
from resprout.recipe import ImagesSection, PlacementSection, PruningSection, Recipe, validate, with_whole_numbers
from resprout.recipe.names import name_made_of
from resprout.recipe.placement import AT_SUBMIT
from resprout.recipe.texts import texts_in
from resprout.urls import secret_in, without_secrets

# the input, and the section and field that it stands for
FIELDS = {
    "teacher": ("teacher", "source"),
    "images": ("synthesis", "data"),
    "test_set": ("evaluation", "data"),
    "sparsity": ("pruning", "sparsity"),
    "publish_to": ("publishing", "to"),
}
# the pipelines, and which of these inputs each has
KINDS = {
    "compress": ("teacher", "test_set", "sparsity", "publish_to"),
    "compress-images": ("teacher", "images", "test_set", "sparsity", "publish_to"),
    "scan": ("teacher",),
}
# what a scan reads of a recipe's JSON; the rest of it is about stages that a scan has not
_SCANNED = ("name", "teacher", "synthesis", "pruning")
WHERE = "the run's inputs"
_PRUNERS = {it.model_fields["method"].default: it for it in get_args(get_args(PruningSection)[0])}


def kind_of(recipe: Recipe) -> str:
    """The pipeline that compresses by a recipe."""
    return "compress-images" if isinstance(recipe.synthesis, ImagesSection) else "compress"


def fitting(recipe: Recipe, kind: str) -> Recipe:
    """A recipe as a pipeline's stages will read it on a cluster.

    Raises:
        RecipeError: this pipeline cannot do what the recipe says, or a cluster would read something else.
    """
    refuse_placeholders(recipe)
    refuse_secrets(recipe)
    return from_inputs(kind, to_inputs(recipe, kind))


def refuse_placeholders(recipe: Recipe) -> None:
    """Refuse text in whose place a cluster would put something else: Kubeflow Pipelines and Argo fill in {{…}}.

    Raises:
        RecipeError: with the field.
    """
    for field, text in texts_in(recipe.model_dump(mode="json")):
        if "{{" in text:
            raise RecipeError(
                f"{field}: holds {{{{, in {text!r}",
                why="on a cluster, Kubeflow Pipelines puts values of its own in the place of {{…}}",
                now="write it without; `resprout run` takes it as it is",
            )


def refuse_secrets(recipe: Recipe) -> None:
    """Refuse addresses with a password, a signature or a token, where they would be recorded as a run's inputs.

    Raises:
        RecipeError: with the field, and what may be shown of the address.
    """
    for field, text in texts_in(recipe.model_dump(mode="json")):
        if secret := secret_in(text):
            raise RecipeError(
                f"{field} holds {secret}: {without_secrets(text)}",
                why="Kubeflow Pipelines keeps a run's inputs, and shows them to whoever may see the run or its pods",
                now="leave it out where it is not needed, or store the file: resprout storage put FILE s3://BUCKET/KEY",
            )


def to_inputs(recipe: Recipe, kind: str) -> dict[str, Any]:
    """The inputs of a run; what a recipe leaves at its default is in none of them.

    `from_inputs` gives the recipe back, less what of its placement is compiled in and, for a scan, what a scan does
    not read.

    Raises:
        RecipeError: this pipeline takes other images than the recipe.
    """
    placement = recipe.placement.model_dump(mode="json", include=set(AT_SUBMIT), exclude_defaults=True)
    _refuse_unfitting(kind, recipe.synthesis.method)
    rest: dict[str, Any] = {} if recipe.name == _name_of(recipe.teacher.source) else {"name": recipe.name}
    fields = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"name", "seed", "placement"})
    for name, value in fields.items():
        method = getattr(getattr(recipe, name), "method", None)
        default = getattr(Recipe.model_fields[name].default, "method", None)
        rest[name] = {"method": method, **value} if method != default else value
    plain = {}
    for name, (section, field) in FIELDS.items():
        part = rest.get(section, {})
        if (value := part.pop(field, None)) is None and field in type(getattr(recipe, section)).model_fields:
            value = getattr(getattr(recipe, section), field)
        plain[name] = "" if value is None else str(value)
    if kind == "compress-images":
        rest["synthesis"].pop("method", None)
    if kind == "scan":
        rest = {name: rest[name] for name in _SCANNED if name in rest}
        rest["pruning"] = {"exclude": list(recipe.pruning.exclude)} if recipe.pruning.exclude else {}
    return {
        **{name: plain[name] for name in KINDS[kind]},
        "seed": recipe.seed,
        "recipe": {name: value for name, value in rest.items() if value != {}},
        "placement": placement,
    }


def from_inputs(kind: str, inputs: Mapping[str, Any]) -> Recipe:
    """The recipe that a run's inputs stand for; without a name, it is called as its teacher's source ends.

    Args:
        kind: the pipeline, one of `KINDS`.
        inputs: `recipe` and `placement` as mappings, `seed`, and those that the pipeline has; "" is none.

    Raises:
        RecipeError: a field is wrong, or said in two inputs, or compiled in; with what to do.
    """
    fields = {name: dict(part) if isinstance(part, Mapping) else part for name, part in inputs["recipe"].items()}
    for name in ("seed", "placement"):
        if name in fields:
            raise RecipeError(
                f"{WHERE}, recipe: holds {name}", why="an input of its own says that", now="move it there"
            )
    _refuse_compiled_in(inputs["placement"])
    for name, (section, field) in FIELDS.items():
        part = fields.setdefault(section, {})
        if not isinstance(part, dict):
            continue  # is refused with everything else that is wrong
        if field in part:
            _refuse_twice(name, section, field, is_input=name in KINDS[kind])
        if name in KINDS[kind] and inputs[name] != "":
            part[field] = inputs[name]
    if isinstance(synthesis := fields["synthesis"], dict):
        if kind == "compress-images":
            synthesis.setdefault("method", "images")
        _refuse_unfitting(kind, synthesis.get("method"))
    if isinstance(fields["pruning"], dict):
        _refuse_unused_sparsity(fields["pruning"])
    fields.setdefault("name", _name_of(str(inputs["teacher"])))
    whole = {**fields, "seed": inputs["seed"], "placement": inputs["placement"]}
    recipe: Recipe = validate(Recipe, with_whole_numbers(whole), WHERE)
    return recipe


def _name_of(source: str) -> str:
    last = source.partition("?")[0].rstrip("/").rpartition("/")[2].partition("@")[0]
    return name_made_of(re.sub(r"\.(safetensors|pth?|bin)$", "", last))


def _refuse_unfitting(kind: str, method: str | None) -> None:
    if (kind == "compress-images") != (method == "images"):
        raise RecipeError(
            f"{WHERE}, synthesis.method: is {method}",
            why=f"the pipeline {kind} takes {'images of your own' if kind == 'compress-images' else 'dreams'}",
            now="use pipeline/compress-images.yaml for images of your own, and the others for dreams",
        )


def _refuse_unused_sparsity(fields: Mapping[str, Any]) -> None:
    chosen = _PRUNERS.get(fields.get("method"))
    if "sparsity" in fields and chosen is not None and "sparsity" not in chosen.model_fields:
        raise RecipeError(
            f"{WHERE}, sparsity: is {fields['sparsity']}, and pruning.method {fields['method']} has none",
            why="other fields of its section say how much goes",
            now="leave sparsity empty",
        )


def _refuse_twice(name: str, section: str, field: str, *, is_input: bool) -> NoReturn:
    raise RecipeError(
        f"{WHERE}, recipe: holds {section}.{field}",
        why=f"the input {name} says that" if is_input else "this pipeline has no use for it",
        now=f"leave it out of recipe{f', and set {name}' if is_input else ''}",
    )


def _refuse_compiled_in(placement: Mapping[str, Any]) -> None:
    for name in sorted((PlacementSection.model_fields.keys() - AT_SUBMIT) & placement.keys()):
        raise RecipeError(
            f"{WHERE}, placement: holds {name}",
            why="that is compiled into the pipeline",
            now=f"resprout compile RECIPE --set placement.{name}=…, and upload what it writes",
        )
