"""Reparametrised weights in a state dict, as the plain weights that they stand for.

A module computes such a weight from its parts before each use. The parts' names are torch's; what is made of them is in
the papers: spectral normalisation, arXiv 1802.05957, and weight normalisation, arXiv 1602.07868.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The numbers that weights may be."""
_OLD = re.compile(r"(?P<module>(?:.+\.)?)(?P<leaf>[^.]+)_(?P<part>orig|mask|u|v|g)$")
_NEW = re.compile(r"(?P<module>(?:.+\.)?)parametrizations\.(?P<leaf>[^.]+)\.(?P<part>.+)$")


@dataclass(frozen=True)
class Folded:
    """A plain weight: `parts` are the names of the tensors that it was made of, `kind` is what made it of them."""

    weight: Tensor
    parts: tuple[str, ...]
    kind: str


def folded(state: Mapping[str, Tensor]) -> dict[str, Folded]:
    """The plain weights that a state dict holds in parts, by the name that the weight would have.

    Parametrisations other than pruning masks, spectral norm and weight norm are left out: only their own module knows
    what they compute.
    """
    parts: dict[str, dict[str, str]] = {}
    for name in state:
        if match := _NEW.match(name) or _OLD.match(name):
            parts.setdefault(match["module"] + match["leaf"], {})[match["part"]] = name
    found: dict[str, Folded] = {}
    for stem, names in parts.items():
        form = _FORMS.get(frozenset(names))
        if form is None or stem in state:
            continue
        kind, order, compute = form
        tensors = [state[names[part]] for part in order if part in names]
        if all(map(_is_plain, tensors)) and (weight := compute(*tensors)) is not None:
            found[stem] = Folded(weight, tuple(names.values()), kind)
    return found


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype in (*FLOATS, torch.bool) and not tensor.is_meta and type(tensor) in (Tensor, nn.Parameter)


def _masked(weight: Tensor, mask: Tensor) -> Tensor | None:
    return weight * mask.to(weight.dtype) if weight.shape == mask.shape else None


def _spectral(weight: Tensor, left: Tensor, right: Tensor | None = None) -> Tensor | None:
    """The weight by its largest singular value u'Wv, as a matrix along the dimension that the vectors fit."""
    found = []
    for dim, size in enumerate(weight.shape):
        matrix = weight.movedim(dim, 0).flatten(1)
        if left.shape == (size,) and (right is None or right.shape == (matrix.shape[1],)):
            other = functional.normalize(matrix.T @ left, dim=0) if right is None else right
            found.append(torch.vdot(left, torch.mv(matrix, other)))
    # of two that fit, the wrong one has other singular vectors, and a smaller product
    return weight / max(found, key=lambda sigma: float(sigma.abs())) if found else None


def _weight_norm(length: Tensor, direction: Tensor) -> Tensor | None:
    if length.ndim not in (0, direction.ndim):
        return None
    dims = [dim for dim in range(direction.ndim) if length.ndim == 0 or length.shape[dim] == 1]
    expected = [1 if dim in dims else size for dim, size in enumerate(direction.shape)]
    if length.ndim and list(length.shape) != expected:
        return None
    norm: Tensor = torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
    return direction * (length / norm)


Form = tuple[str, tuple[str, ...], Callable[..., Tensor | None]]
_FORMS: dict[frozenset[str], Form] = {
    frozenset(order): (kind, order, compute)
    for kind, order, compute in (
        ("a pruning mask", ("orig", "mask"), _masked),
        ("spectral norm", ("orig", "u"), _spectral),
        ("spectral norm", ("orig", "u", "v"), _spectral),
        ("spectral norm", ("original", "0._u", "0._v"), _spectral),
        ("weight norm", ("g", "v"), _weight_norm),
        ("weight norm", ("original0", "original1"), _weight_norm),
    )
}
