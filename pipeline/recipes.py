"""Recipes for people: those that come along, what a field means, changes from the command line."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import resprout
from resprout.errors import RecipeError
from resprout.recipe import Recipe, validate
from resprout.recipe.reading import parsed
from resprout.recipe.texts import typed


def shipped() -> list[Path]:
    """The recipes that come with Resprout: of a checkout, or of an installation."""
    return sorted(_shipped_folder().glob("*.yaml"))


def ablations() -> list[Path]:
    """Those that change one thing of the baseline among them, to see what it is good for."""
    return sorted(_shipped_folder().glob("ablations/*.yaml"))


def _shipped_folder() -> Path:
    package = Path(resprout.__file__).parent
    checkout = package.parent / "recipes"
    return checkout if checkout.is_dir() else package / "recipes"


def headline(path: Path) -> str:
    """The first sentence of the comment that a recipe starts with."""
    comment: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    sentence = " ".join(comment).split(". ")[0]
    return sentence if sentence.endswith("?") else sentence.rstrip(".") + "."


def as_yaml(recipe: Recipe) -> str:
    """A recipe with every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def schema() -> str:
    """The JSON Schema of a recipe."""
    return json.dumps(Recipe.model_json_schema(), indent=2)


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """A recipe with some fields changed.

    Args:
        recipe: is not changed.
        changes: `section.field=value` each; the value is read as YAML, and as it stands where a field wants text.

    Raises:
        RecipeError: not of that form, or the changed recipe is not valid.
    """
    fields = recipe.model_dump(exclude_unset=True)
    texts: dict[str, Any] = {}
    for change in changes:
        path, separator, text = change.partition("=")
        if not separator or not path:
            raise RecipeError(f"--set {change}: not of the form section.field=value", now="--set recovery.epochs=10")
        *parents, last = path.strip().split(".")
        place, as_typed = fields, texts
        for depth, name in enumerate(parents):
            if not isinstance(place.get(name), dict):
                place[name] = _only_method(recipe, name) if depth == 0 else {}
            if not isinstance(as_typed.get(name), dict):
                as_typed[name] = {}
            place, as_typed = place[name], as_typed[name]
        try:
            place[last], as_typed[last] = parsed(text, f"--set {path}"), typed(text)
        except RecipeError:
            if typed(text) is not None:  # it is YAML, so that something else is wrong with it
                raise
            place[last] = text
    changed: Recipe = validate(Recipe, fields, "--set", texts)
    return changed


def _only_method(recipe: Recipe, name: str) -> dict[str, Any]:
    # a section that the recipe leaves out still has a method, without which its fields have no meaning
    method = getattr(getattr(recipe, name, None), "method", None)
    return {"method": method} if method else {}


def explain(field: str) -> str:
    """What a section or a field of a recipe means; for "", all of them.

    Raises:
        RecipeError: there is no such field; the nearest one is named.
    """
    entries = list(_entries(Recipe, ""))
    chosen: dict[tuple[str, str], list[str]] = {}  # many methods have fields of the same meaning: told once
    for path, method, text in entries:
        if not field or path == field or path.startswith(f"{field}."):
            chosen.setdefault((path, text), []).append(method)
    if not chosen:
        names = sorted({path for path, _, _ in entries})
        near = get_close_matches(field, names, n=1) or [name for name in names if name.endswith(f".{field}")][:1]
        raise RecipeError(
            f"a recipe has no field {field}" + (f"; did you mean {near[0]}?" if near else ""),
            now="`resprout recipe explain` shows all of them",
        )
    return "\n\n".join(f"{path}{_in_brackets(methods)}{text}" for (path, text), methods in chosen.items())


def _in_brackets(methods: Iterable[str]) -> str:
    named = ", ".join(filter(None, methods))
    return f" ({named})" if named else ""


def _entries(section: type[BaseModel], prefix: str, method: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted path, method that has it or "", default and meaning) of every field."""
    for name, information in section.model_fields.items():
        path = f"{prefix}{name}"
        kinds = list(_sections(information.annotation))
        if information.description:
            yield path, method, f"{_default(information)}\n    {_one_line(information.description)}"
        for kind in kinds:
            chosen = str(kind.model_fields["method"].default) if "method" in kind.model_fields else ""
            if not information.description:
                yield path, chosen, f"\n    {_one_line(inspect.getdoc(kind) or '')}"
            yield from _entries(kind, f"{path}.", chosen)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        for part in get_args(annotation):
            yield from _sections(part)
    elif inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _default(information: FieldInfo) -> str:
    if information.is_required():
        return " (required)"
    default = information.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return ""
    limits = "".join(f", {limit}" for limit in _limits(information))
    return f" = {json.dumps(default)}{limits}"


def _limits(information: FieldInfo) -> Iterator[str]:
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    for constraint in information.metadata:
        for attribute, words in signs.items():
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield f"{words} {bound}"
