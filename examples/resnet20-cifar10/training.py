"""One training: its settings, its state, an epoch of it, and its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from batches import choose, crop_and_flip, resize
from cifar10 import CLASS_NAMES, INPUT
from torch import Tensor, nn

from resprout import models
from resprout.errors import ArtifactError
from resprout.files import write_atomically


@dataclass(frozen=True)
class Settings:
    """What decides the weights that come out; the defaults made the ResNet-20."""

    architecture: str = "cifar_resnet20"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 105
    batch_size: int = 128
    learning_rate: float = 0.1
    """The peak."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """L2, on every parameter."""
    warmup: float = 0.05
    """Share of the training over which the learning rate rises from 0; then it falls to 0, both linearly."""
    small_share: float = 0.5
    """Share of the epochs, at the start, on small images."""
    small_size: int = 24
    skip_probability: float = 0.5
    """For samples whose last loss is below the mean."""
    full_share: float = 0.125
    """Share of the epochs, at the end, that visit every sample."""
    seed: int = 0

    def size(self, epoch: int) -> int:
        """Height and width of the images in this epoch."""
        return self.small_size if epoch < self.small_share * self.epochs else INPUT.shape[1]

    def epoch_seed(self, epoch: int) -> int:
        """Where an epoch's random draws start, so that a resumed training draws what an unbroken one does."""
        return self.seed * 1_000_003 + epoch

    def skips(self, epoch: int) -> bool:
        """Whether easy samples are skipped in this epoch; in the first none has a loss yet."""
        return 0 < epoch < (1 - self.full_share) * self.epochs

    def learning_rate_factor(self, progress: float) -> float:
        """What the learning rate is multiplied by when `progress` of the training, in [0, 1], is done."""
        return progress / self.warmup if progress < self.warmup else (1 - progress) / (1 - self.warmup)


@dataclass
class Training:
    """A training on its way; all that a checkpoint holds."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    losses: Tensor
    epoch: int = 0


def start(settings: Settings, num_images: int, device: torch.device) -> Training:
    """A freshly initialised training. The first weights are always the same; the seed decides what follows."""
    network = build(settings)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Training(network, make_optimiser(network, settings), torch.ones(num_images, device=device))


def build(settings: Settings) -> nn.Module:
    """The untrained network."""
    return models.build(
        settings.architecture, num_classes=len(CLASS_NAMES), arguments=settings.arguments, input_shape=INPUT.shape
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global generator, which dropout draws from, at `seed`; put it back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def make_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        network.parameters(),
        settings.learning_rate,
        momentum=settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )


def train_epoch(training: Training, padded: Tensor, labels: Tensor, settings: Settings) -> tuple[float, float]:
    """One pass over the chosen samples; moves `training` on by an epoch.

    Args:
        training: changed in place.
        padded: the training images from `batches.prepare`.
        labels: int64, shape (n,), on the same device.
        settings: of the whole training.

    Returns:
        The mean loss and the accuracy on the augmented batches.
    """
    epoch, device = training.epoch, padded.device
    generator = torch.Generator().manual_seed(settings.epoch_seed(epoch))
    probability = settings.skip_probability if settings.skips(epoch) else 0.0
    order, weights = choose(training.losses.cpu(), probability, generator)
    weights = weights.to(device)
    num_batches = len(order) // settings.batch_size
    total_loss, total_correct = torch.zeros((), device=device), torch.zeros((), device=device)
    training.network.train()
    with seeded(settings.epoch_seed(epoch)):
        for batch in range(num_batches):
            set_learning_rate(training, settings, (epoch + batch / num_batches) / settings.epochs)
            indices = order[batch * settings.batch_size : (batch + 1) * settings.batch_size]
            images = resize(crop_and_flip(padded, indices, generator), settings.size(epoch))
            indices = indices.to(device)
            losses, correct = step(training, images, labels[indices], weights[indices])
            training.losses[indices] = losses
            total_loss += losses.mean()
            total_correct += correct
    training.epoch += 1
    return float(total_loss / num_batches), float(total_correct / (num_batches * settings.batch_size))


def set_learning_rate(training: Training, settings: Settings, progress: float) -> None:
    for group in training.optimiser.param_groups:
        group["lr"] = settings.learning_rate * settings.learning_rate_factor(progress)


def step(training: Training, images: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """One update. Returns each image's loss, float32, shape (batch,), and how many were classified right."""
    with torch.autocast(images.device.type, torch.bfloat16):
        logits = training.network(images)
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    training.optimiser.zero_grad()
    torch.autograd.backward((losses * weights).mean())
    training.optimiser.step()
    return losses.detach(), (logits.argmax(1) == labels).sum()


def save_checkpoint(training: Training, settings: Settings, path: Path) -> None:
    """Write the training's whole state, or nothing."""
    state = {
        "network": training.network.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "losses": training.losses,
        "epoch": training.epoch,
        "settings": lasting(settings),
    }
    with write_atomically(path) as unfinished:
        torch.save(state, unfinished)


def load_checkpoint(training: Training, settings: Settings, path: Path) -> None:
    """Put `training` where the checkpoint at `path` left it.

    Raises:
        ArtifactError: it is of a training with other settings; only the number of epochs may differ.
    """
    state = torch.load(path, map_location=training.losses.device, weights_only=True)
    if state["settings"] != lasting(settings):
        raise ArtifactError(
            f"checkpoint {path} is of another training: {state['settings']}",
            now="delete it, or give another --checkpoint",
        )
    training.network.load_state_dict(state["network"])
    training.optimiser.load_state_dict(state["optimiser"])
    training.losses, training.epoch = state["losses"], state["epoch"]


def lasting(settings: Settings) -> str:
    """The settings that a resumed training must share, as JSON: all but its length."""
    return json.dumps({name: value for name, value in asdict(settings).items() if name != "epochs"}, sort_keys=True)
