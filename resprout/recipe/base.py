"""What all sections of a recipe share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What all sections share: frozen, strict about names, documented by attribute docstrings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def method_or(default: str) -> Callable[[Any], Any]:
    """Fill in the method of a section that names none, so that `pruning: {sparsity: 0.9}` is enough."""

    def fill_in(fields: Any) -> Any:
        return {"method": default, **fields} if isinstance(fields, Mapping) else fields

    return fill_in
