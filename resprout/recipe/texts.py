"""Names and versions that look like numbers: YAML reads 0.10 as 0.1, and a field for text wants what was typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

# what YAML makes of text that looks like something else; nothing is meant by null
_MISREAD = bool | int | float


def typed(text: str) -> Any:
    """YAML's structure with each scalar as it was typed; None where it is not YAML."""
    try:
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes strings, lists and mappings alone
    except (yaml.YAMLError, RecursionError):
        return None


def texts_in(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Each text with its dotted field, names of fields included."""
    if isinstance(value, str):
        yield field, value
    named = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, part in named:
        inner = f"{field}.{name}".lstrip(".")
        yield inner, str(name)
        yield from texts_in(part, inner)


def mended(fields: Any, texts: Any, error: ValidationError) -> Any:
    """`fields` with text wherever a field wanted text and got what looks like a number; None: nothing can be mended.

    Args:
        fields: what was refused; is not changed.
        texts: the same structure as it was typed, see `typed`; None where nobody knows it. Then only whole numbers are
            sure to have been typed as they are.
        error: why it was refused.
    """
    changed, mended_one = _copied(fields), False
    for detail in error.errors():
        if detail["type"] == "string_type" and isinstance(detail["input"], _MISREAD):
            text = _at(texts, detail["loc"])
            if not isinstance(text, str) and type(detail["input"]) is int:
                text = str(detail["input"])
            if isinstance(text, str):
                mended_one |= _put(changed, detail["loc"], text)
    return changed if mended_one else None


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _copied(part) for name, part in tree.items()}
    return [_copied(part) for part in tree] if isinstance(tree, list | tuple) else tree


def _at(tree: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        if isinstance(tree, Mapping):
            tree = tree.get(part, tree)  # a method's name, in pydantic's locations, is no part of the tree
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
    return tree


def _put(tree: Any, location: Sequence[int | str], text: str) -> bool:
    """Put text into the tree at a location; False where there is no such place."""
    *above, last = location
    place = _at(tree, above)
    there = last in place if isinstance(place, dict) else isinstance(place, list) and isinstance(last, int)
    if there:
        place[last] = text
    return there
