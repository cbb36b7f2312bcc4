"""The weights go that change the loss least, to second order: Fisher (Theis et al., arXiv 1801.05787)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from resprout.pruning.gradients import damped, squared_gradients
from resprout.pruning.guidance import cross_entropy, examples_of
from resprout.pruning.subject import Subject
from resprout.recipe import FisherSection


def fisher(subject: Subject, section: FisherSection) -> dict[str, Tensor]:
    """How much the loss changes without each weight, to second order.

    Labels are drawn from the teacher's softmax: so it is the Fisher matrix, which at the teacher is the Hessian of the
    KL divergence from it. There the gradient of that divergence itself is zero and would say nothing.

    Returns:
        Parameter name -> float64 tensor of the weight's shape, not negative.

    Raises:
        RecipeError, ArtifactError: there are no images, or they do not fit the teacher.
    """
    examples = examples_of(subject, section.num_images, "sampled")
    found = squared_gradients(
        subject.network, subject.alive, examples, cross_entropy, batch_size=1, report=subject.report
    )
    return fisher_scores(subject.weights(), damped(found, section.gradient_power))


def fisher_scores(weights: Mapping[str, Tensor], squares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fisher * weight² / 2, Eq. 7, arXiv 1801.05787, from the mean over images of the squared gradient.

    It is Optimal Brain Damage's saliency (LeCun et al., 1989) with the Fisher matrix's diagonal for the Hessian's.
    """
    return {name: squares[name] * weight.square() / 2 for name, weight in weights.items()}
