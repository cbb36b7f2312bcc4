"""The weights go that the gradient of a loss on labels and teacher finds least important (arXiv 2511.16653)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resprout.errors import RecipeError
from resprout.pruning.fisher import fisher_scores
from resprout.pruning.gradients import damped, squared_gradients
from resprout.pruning.guidance import briefly_trained, examples_of, guided_loss
from resprout.pruning.subject import Subject
from resprout.pruning.taylor import taylor_scores
from resprout.recipe import TeacherGuidedSection
from resprout.seeding import generator


def teacher_guided(subject: Subject, section: TeacherGuidedSection) -> dict[str, Tensor]:
    """Train the student briefly under its teacher, and score its weights by the same loss.

    The training serves the scores alone. Weights that stay keep the values they had: on the example's ResNet-20 at
    75 %, with BatchNorm re-estimated on dreams, those of before gave 81.4 % top-1 and the trained ones 81.6 %. Whoever
    wants a student that was trained for longer hands it in as the start.

    Returns:
        Parameter name -> float64 tensor of the weight's shape, not negative.

    Raises:
        RecipeError: there are no images; or alpha is 1, and the student is the teacher.
        ArtifactError: the images do not fit the teacher.
    """
    if section.alpha == 1 and subject.is_teacher:
        raise RecipeError(
            "pruning.alpha: 1 asks the teacher alone how the student should change, and the student is the teacher",
            why="their divergence and its gradient are exactly zero, before any training and after it",
            now="lower pruning.alpha, so that labels count too, or start from a pruned student",
        )
    examples = examples_of(subject, section.num_images, section.labels)
    loss = guided_loss(section.alpha, section.temperature)
    trained = briefly_trained(
        subject.network,
        examples,
        loss,
        {name: left.to(subject.device) for name, left in subject.alive.items()},
        steps=section.training_steps,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        drawn=generator(subject.seed, "pruning", "batches"),
        report=subject.report,
    )
    if not all(torch.isfinite(parameter).all() for parameter in trained.parameters()):
        raise RecipeError(
            f"pruning.learning_rate: the training before scoring diverged at {section.learning_rate:g}",
            why="weights that are NaN or infinite have no scores",
            now="lower it",
        )
    images_per_gradient = 1 if section.score == "fisher" else section.batch_size
    found = squared_gradients(
        trained, subject.alive, examples, loss, batch_size=images_per_gradient, report=subject.report
    )
    weights = {name: trained.get_parameter(name).detach().double() for name in subject.alive}
    return guided_scores(section.score, weights, damped(found, section.gradient_power))


def guided_scores(score: str, weights: Mapping[str, Tensor], squares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `score` makes of the mean squared gradients: themselves, Taylor's scores, or Fisher's."""
    if score == "gradient":
        return dict(squares)
    return taylor_scores(weights, squares) if score == "taylor" else fisher_scores(weights, squares)
