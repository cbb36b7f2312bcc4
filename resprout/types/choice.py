"""`sparsity: auto`: the sparsities that were tried, and the one that was chosen."""

from __future__ import annotations

from dataclasses import dataclass

from resprout.errors import ArtifactError


@dataclass(frozen=True)
class Trial:
    """What one sparsity would leave.

    Args:
        sparsity: the share of weights removed, in (0, 1).
        agreement: with the teacher, of the student whose BatchNorm was re-estimated on the training dreams, on held-out
            ones and their blends, in [0, 1].
        kl_divergence: likewise, in nats.
    """

    sparsity: float
    agreement: float
    kl_divergence: float


@dataclass(frozen=True)
class SparsityChoice:
    """Why a student is as sparse as it is.

    Args:
        sparsity: the one that was chosen, in (0, 1).
        promised: the agreement that it was to keep at least, in [0, 1].
        trials: every sparsity that was tried, each once, in that order.
    """

    sparsity: float
    promised: float
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not any(trial.sparsity == self.sparsity and trial.agreement >= self.promised for trial in self.trials):
            raise ArtifactError(
                f"no trial shows that a sparsity of {self.sparsity:g} keeps an agreement of {self.promised:g}"
            )

    @property
    def chosen(self) -> Trial:
        """The trial of the sparsity that was chosen."""
        return next(trial for trial in self.trials if trial.sparsity == self.sparsity)

    @property
    def next_above(self) -> Trial | None:
        """The trial of the next higher sparsity; None where none was tried above."""
        above = [trial for trial in self.trials if trial.sparsity > self.sparsity]
        return min(above, key=lambda trial: trial.sparsity, default=None)
