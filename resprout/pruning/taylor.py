"""The weights go that change the loss least, to first order: Taylor (Molchanov et al., arXiv 1906.10771)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from resprout.pruning.gradients import damped, squared_gradients
from resprout.pruning.guidance import cross_entropy, examples_of
from resprout.pruning.subject import Subject
from resprout.recipe import TaylorSection


def taylor(subject: Subject, section: TaylorSection) -> dict[str, Tensor]:
    """How much the cross-entropy changes without each weight, to first order.

    Returns:
        Parameter name -> float64 tensor of the weight's shape, not negative.

    Raises:
        RecipeError, ArtifactError: there are no images, or they do not fit the teacher.
    """
    examples = examples_of(subject, section.num_images, section.labels)
    found = squared_gradients(
        subject.network, subject.alive, examples, cross_entropy, batch_size=section.batch_size, report=subject.report
    )
    return taylor_scores(subject.weights(), damped(found, section.gradient_power))


def taylor_scores(weights: Mapping[str, Tensor], squares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(gradient * weight)², Eq. 8, arXiv 1906.10771, from the mean over batches of the squared gradient."""
    return {name: squares[name] * weight.square() for name, weight in weights.items()}
