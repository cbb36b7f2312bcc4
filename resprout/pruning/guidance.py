"""What the teacher says about images: labels, the loss of arXiv 2511.16653, and a student that it briefly trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from resprout.precision import frozen_copy
from resprout.progress import Progress, Report, silent
from resprout.pruning.gradients import Examples, Loss
from resprout.pruning.subject import Subject
from resprout.seeding import generator
from resprout.stem import step_groups

EPS = 1e-6
"""What logits' standard deviation is raised by, so that equal logits divide by something."""

DRAWN_AT = 4.0
"""The temperature at which labels are drawn: a teacher that is sure of its dreams still names more than one class."""

SURE = 48.0
"""How far an image's largest logit may be above its second: beyond, softmax in float32 is 1 and its slope 0. Trained
networks stay far below: the example's ResNet-20 reaches 24 on its dreams."""
STILL_OPEN = 12.0
"""What larger gaps are brought to: all but 6e-6 of the softmax is the first class's."""


def ca_kld(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Context-aware KL divergence: KL(teacher || student) of logits that were standardised image by image.

    arXiv 2511.16653: z -> (z - mean) / (standard deviation + eps) over an image's classes, then a softmax at a
    temperature. So it knows neither the scale nor the level of an image's logits. As usual for distillation
    (arXiv 1503.02531), it is multiplied by temperature², so that gradients keep their scale.

    Args:
        student_logits, teacher_logits: shape (batch, classes).
        temperature: above 0.

    Returns:
        The mean over the batch, in nats, a scalar.
    """
    teacher = functional.log_softmax(_standardised(teacher_logits) / temperature, dim=1)
    student = functional.log_softmax(_standardised(student_logits) / temperature, dim=1)
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def _standardised(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(1, keepdim=True)
    # the root has no slope at 0, where logits are all equal
    deviation = centred.square().mean(1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny).sqrt()
    return centred / (deviation + EPS)


def guided_loss(alpha: float, temperature: float) -> Loss:
    """L = alpha * CA-KLD + (1 - alpha) * cross-entropy with the labels (arXiv 2511.16653)."""

    def loss(logits: Tensor, answers: Tensor, labels: Tensor) -> Tensor:
        return alpha * ca_kld(logits, answers, temperature) + (1 - alpha) * cross_entropy(logits, answers, labels)

    return loss


def drawn_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy, summed over the batch, against labels drawn from the answers themselves, softened.

    Its squared gradients are the Fisher information, which does not vanish where a student is its teacher.
    """
    softened = tempered(logits, DRAWN_AT)
    drawn = torch.multinomial(softened.detach().softmax(1).cpu(), 1, generator=generator).squeeze(1)
    return functional.cross_entropy(softened, drawn.to(logits.device), reduction="sum")


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits at a temperature, and at a higher one for each image whose softmax would have no slope.

    Args:
        logits: shape (batch, classes).
    """
    first, second = logits.detach().topk(2, dim=1).values.unbind(1)
    gap = (first - second)[:, None]
    return logits / torch.where(gap > SURE, gap / STILL_OPEN, temperature)


def cross_entropy(logits: Tensor, _answers: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels alone, as a `Loss`; of `tempered` logits."""
    return functional.cross_entropy(tempered(logits, 1.0), labels)


@torch.no_grad()
def examples_of(subject: Subject, num_images: int | None, labels: str) -> Examples:
    """Images with the teacher's answers and with labels, on the subject's device.

    Args:
        subject: whose teacher answers, whose dreams are taken, and whose seed labels are drawn from.
        num_images: so many at most; None: all.
        labels: `targets`, or `sampled`: one drawn from the teacher's softmax for each image.

    Raises:
        RecipeError, ArtifactError: there are no images, or they do not fit the teacher.
    """
    images, targets = subject.images(num_images)
    teacher = frozen_copy(subject.teacher.network, torch.float32, subject.device)
    images = images.to(device=subject.device, dtype=torch.float32)
    answers = torch.cat([teacher(batch).float() for batch in images.split(128)])
    if labels == "sampled":
        drawn = generator(subject.seed, "pruning", "labels")
        targets = torch.multinomial(tempered(answers, 1.0).softmax(1).cpu(), 1, generator=drawn).squeeze(1)
    return Examples(images, answers, targets.to(subject.device))


def briefly_trained(
    student: nn.Module,
    examples: Examples,
    loss: Loss,
    keep: dict[str, Tensor],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    drawn: torch.Generator,
    report: Report = silent,
) -> nn.Module:
    """A copy of the student after a few steps of SGD (momentum 0.9) with BatchNorm's running statistics.

    Args:
        student: on the examples' device.
        keep: which weights stay, by parameter name; others remain 0.
        steps: of `batch_size` images each, drawn without replacement until all were seen.
        learning_rate: the first step size; a cosine brings it to 0.
        drawn: batches come from it; on the CPU.
        report: is told how many steps are done.
    """
    network = copy.deepcopy(student).eval().requires_grad_(True)
    optimizer = torch.optim.SGD(step_groups(network, examples.images, peak=learning_rate, adaptive=False), momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(examples), generator=drawn)])
        chosen, order = order[:batch_size], order[batch_size:]
        batch = examples[chosen.to(examples.images.device)]
        logits = network(batch.images)
        optimizer.zero_grad()
        loss(logits, batch.answers, batch.labels).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for name, kept in keep.items():
                network.get_parameter(name).mul_(kept)
        report(Progress("pruning", step + 1, steps, "steps"))
    return network.requires_grad_(False)
