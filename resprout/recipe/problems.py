"""What is wrong with a recipe's field, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from resprout.recipe.names import name_made_of
from resprout.urls import without_secrets


def problem(detail: Mapping[str, Any], kind: Any) -> str:
    """A line: the dotted field, what is wrong with it, the value, and where it can be told, what to write.

    Args:
        detail: one of pydantic's errors.
        kind: the section that was validated.
    """
    location = [part for part in map(str, detail["loc"]) if part not in _methods(kind) and not part.startswith("<")]
    field = ".".join(location) or "the whole"
    if detail["type"] == "extra_forbidden":
        return f"{field}: {_unknown(location, kind)}"
    if detail["type"] == "missing":
        return f"{field}: is required"
    if detail["type"] == "union_tag_invalid":
        return f"{'.'.join([*location, 'method'])}: {_no_such_method(detail['ctx'])}"
    if detail["type"] == "string_type" and detail["input"] is None:
        return f"{field}: is empty, where text belongs; put null or ~ in quotes where that is the text"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    got = without_secrets(detail["input"]) if isinstance(detail["input"], str) else detail["input"]
    return f"{field}: {message}, got {got!r:.200}{_remedy(detail, field)}"


def _remedy(detail: Mapping[str, Any], field: str) -> str:
    if detail["type"] == "string_type" and isinstance(detail["input"], bool | int | float):
        return "; put it in quotes"
    if detail["type"] == "string_pattern_mismatch" and field == "name":
        return f"; {name_made_of(detail['input'])} would do"
    return ""


def _unknown(location: list[str], kind: Any) -> str:
    *section, name = location
    homes = list(_homes(kind, name))
    if methods := [method for path, method in homes if method and path == section]:
        return f"belongs to method: {' or '.join(_few(methods))}"
    if places := sorted({".".join([*path, name]) for path, _ in homes}):
        return f"no such field; is {' or '.join(places)} meant?"
    near = get_close_matches(name, sorted(_field_names(kind)), n=1)
    return f"no such field; did you mean {near[0]}?" if near else "no such field"


def _few(names: list[str]) -> list[str]:
    return names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} others"]


def _no_such_method(context: Mapping[str, Any]) -> str:
    known = [name.strip("'") for name in context["expected_tags"].split(", ")]
    near = get_close_matches(context["tag"], known, n=1)
    return f"there is no {context['tag']}; {f'did you mean {near[0]}?' if near else 'known are ' + ', '.join(known)}"


def _homes(kind: Any, name: str, path: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    """Where there is a field of that name: the section's path, and the method that has it, or ""."""
    for model in _models(kind):
        if name in model.model_fields:
            yield list(path), str(model.model_fields["method"].default) if "method" in model.model_fields else ""
        for field, information in model.model_fields.items():
            yield from _homes(information.annotation, name, (*path, field))


def _field_names(kind: Any) -> set[str]:
    inner = (_field_names(information.annotation) for it in _models(kind) for information in it.model_fields.values())
    return set().union(*(it.model_fields for it in _models(kind)), *inner)


def _methods(kind: Any) -> set[str]:
    """What pydantic puts into an error's location where a union was discriminated."""
    own = {str(it.model_fields["method"].default) for it in _models(kind) if "method" in it.model_fields}
    inner = (_methods(information.annotation) for it in _models(kind) for information in it.model_fields.values())
    return own.union(*inner)


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)
