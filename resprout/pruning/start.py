"""What is gone already: the zeros of a sparse teacher, and what a student lost that was pruned before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from resprout.errors import RecipeError
from resprout.pruning.candidates import Alive, candidates_of, maskable
from resprout.types import Student, Teacher
from resprout.wording import listed

SPARSE = 0.01
"""From which share of exact zeros on a teacher counts as sparse. Training ends at exactly 0 next to never: the
example's ResNet-20 has no such weight."""


def zeros_of(teacher: nn.Module) -> Alive:
    """Where a sparse teacher's weights are not zero: parameter name -> bool tensor; {} for one that is not sparse.

    Whoever pruned it before wants its zeros to stay. A few of them among many weights are chance.
    """
    nonzero = {name: (weight.detach() != 0).cpu() for name, weight in maskable(teacher).items()}
    count, left = sum(kept.numel() for kept in nonzero.values()), sum(int(kept.sum()) for kept in nonzero.values())
    return nonzero if count - left >= SPARSE * count else {}


def note_on_zeros(zeros: int, count: int) -> str:
    """What becomes of a sparse teacher's zeros."""
    return f"{100 * zeros / count:.1f} % of the teacher's weights are zero already, and stay so"


def is_the_teacher(teacher: nn.Module, start: Student | None) -> bool:
    """Whether the network that is about to be pruned answers everything as the teacher does, bit for bit."""
    if start is None:
        return True
    theirs = teacher.state_dict()
    return all(torch.equal(value.cpu(), theirs[name].cpu()) for name, value in start.network.state_dict().items())


@dataclass(frozen=True)
class Ground:
    """What pruning starts from.

    Args:
        weights: those that a mask covers, as of the teacher, or of the student that is pruned further.
        alive: which of them are not gone.
        held: the nonzero weights of a sparse teacher's other layers, excluded ones for example: they lose no weight,
            and their zeros stay zero.
        inherited: how many of each layer's weights that are gone were zero in the teacher.
        unreached: names of the weights that are left out, since no answer depends on them.
    """

    weights: Mapping[str, Tensor]
    alive: Alive
    held: Alive
    inherited: Mapping[str, int]
    unreached: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many weights the mask covers."""
        return sum(left.numel() for left in self.alive.values())

    @property
    def gone(self) -> int:
        """How many of them are gone already."""
        return self.count - sum(int(left.sum()) for left in self.alive.values())

    def limited_to(self, names: Collection[str]) -> Ground:
        """The same, with a mask that covers these weights alone."""
        weights = {name: weight for name, weight in self.weights.items() if name in names}
        others = {name: left for name, left in self.alive.items() if name not in names and not left.all()}
        alive = {name: self.alive[name] for name in weights}
        inherited = {name: count for name, count in self.inherited.items() if name in weights}
        return replace(self, weights=weights, alive=alive, held={**self.held, **others}, inherited=inherited)

    def due(self, sparsity: float) -> int:
        """How many weights are to be gone: no fewer than the teacher's own zeros."""
        return max(round(sparsity * self.count), sum(self.inherited.values()))

    def notes(self, sparsity: float) -> tuple[str, ...]:
        """What whoever asked for this sparsity may not expect."""
        found, zeros = [], sum(self.inherited.values())
        if self.unreached:
            found.append(f"not pruned, since no image reaches it: {listed(self.unreached)}")
        if zeros > round(sparsity * self.count):
            share = f"{100 * zeros / self.count:.1f} %"
            found.append(
                f"the teacher is sparser ({share}) than asked ({100 * sparsity:g} %): its zeros stay, nothing more goes"
            )
        elif zeros:
            found.append(note_on_zeros(zeros, self.count))
        return tuple(found)


def ground_of(teacher: Teacher, exclude: Iterable[str], start: Student | None) -> Ground:
    """What is there to prune of a teacher, or of a student of it that lost weights before.

    Raises:
        RecipeError, UnsupportedModelError: as `candidates_of`; or weights are gone that are to stay now.
    """
    found = candidates_of(teacher.network if start is None else start.network, teacher.info.input.shape, exclude)
    nonzero = zeros_of(teacher.network)
    before = nonzero if start is None else start.mask.keep
    alive = {name: before.get(name, torch.ones_like(w, dtype=torch.bool)) for name, w in found.weights.items()}
    held = {name: before[name] for name in found.excluded if name in before and not before[name].all()}
    for name, kept in held.items():
        _refuse_return(name, kept, nonzero)
    inherited = {name: _count_shared(~left, ~nonzero[name]) for name, left in alive.items() if name in nonzero}
    return Ground(found.weights, alive, held, inherited, found.unreached)


def _count_shared(first: Tensor, second: Tensor) -> int:
    """In how many places both are True; none, where channels are gone and the places are others."""
    return int((first & second).sum()) if first.shape == second.shape else 0


def _refuse_return(name: str, kept: Tensor, nonzero: Alive) -> None:
    """Raise RecipeError where weights of an excluded layer are gone that the teacher has."""
    lost = int((~kept).sum()) - (_count_shared(~kept, ~nonzero[name]) if name in nonzero else 0)
    if lost:
        raise RecipeError(
            f"pruning.exclude: {name} is to stay whole, and {lost} of its weights are already gone",
            why="a weight that is gone stays gone",
            now="exclude what was excluded before",
        )


def refuse_growth(ground: Ground, sparsity: float) -> None:
    """Raise RecipeError when pruning took more weights already than the sparsity asks for."""
    if ground.gone > ground.due(sparsity):
        raise RecipeError(
            f"pruning.sparsity: {sparsity:g} is less than the {ground.gone / ground.count:g} at which this student "
            "already is",
            why="a weight that is gone stays gone",
            now="raise the sparsity, or start from the teacher",
        )
