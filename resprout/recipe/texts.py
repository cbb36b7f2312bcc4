"""Names and versions that look like numbers: YAML reads 0.10 as 0.1, and a field for text wants what was typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

# what YAML makes of text that looks like something else; nothing is meant by null
_MISREAD = bool | int | float


def typed(text: str) -> Any:
    """YAML's structure with each scalar as it was typed; None where it is not YAML."""
    try:
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes strings, lists and mappings alone
    except yaml.YAMLError:
        return None


def mended(fields: Any, texts: Any, error: ValidationError) -> Any:
    """`fields` with text wherever a field wanted text and got what looks like a number; None: nothing can be mended.

    Args:
        fields: what was refused; is not changed.
        texts: the same structure as it was typed, see `typed`; None where nobody knows it. Then only whole numbers are
            sure to have been typed as they are.
        error: why it was refused.
    """
    mended_one = False
    for detail in error.errors():
        if detail["type"] == "string_type" and isinstance(detail["input"], _MISREAD):
            text = _at(texts, detail["loc"])
            if not isinstance(text, str) and type(detail["input"]) is int:
                text = str(detail["input"])
            if isinstance(text, str):
                fields, mended_one = _with(fields, detail["loc"], text), True
    return fields if mended_one else None


def _at(tree: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        if isinstance(tree, Mapping):
            tree = tree.get(part, tree)  # a method's name, in pydantic's locations, is no part of the tree
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
    return tree


def _with(tree: Any, location: Sequence[int | str], text: str) -> Any:
    if not location:
        return text
    part, *rest = location
    if isinstance(tree, Mapping):
        return {**tree, part: _with(tree[part], rest, text)} if part in tree else _with(tree, rest, text)
    if isinstance(tree, list | tuple) and isinstance(part, int):
        return [*tree[:part], _with(tree[part], rest, text), *tree[part + 1 :]]
    return text
