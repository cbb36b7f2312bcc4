"""How well a network does: forward passes, and pure functions on what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn import functional


def logits_on(
    network: nn.Module, images: Tensor, *, batch_size: int, prepare: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """A network's answers, one batch at a time.

    Args:
        network: in evaluation mode, float32.
        images: shape (n, channels, height, width).
        batch_size: images per forward pass.
        prepare: brings a batch on the network's device to float32 in normalised model-input space.

    Yields:
        Float32 logits on the CPU, shape (at most batch_size, classes), in the order of the images.
    """
    device = next(network.parameters()).device
    for start in range(0, len(images), batch_size):  # split() would give an empty batch for no images
        yield network(prepare(images[start : start + batch_size].to(device))).float().cpu()


def agreement(logits: Tensor, teacher_logits: Tensor) -> float:
    """The share of images, in [0, 1], on which both networks rank the same class first; shapes (n, classes)."""
    return float((logits.argmax(1) == teacher_logits.argmax(1)).double().mean())


def kl_divergence(logits: Tensor, teacher_logits: Tensor) -> float:
    """Mean KL(teacher || network) at temperature 1, in nats, computed in float64; shapes (n, classes)."""
    network, teacher = (functional.log_softmax(each.double(), dim=1) for each in (logits, teacher_logits))
    return float(functional.kl_div(network, teacher, reduction="batchmean", log_target=True).clamp(min=0))
