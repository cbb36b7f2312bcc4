"""BatchNorm re-estimation: the running statistics that pruning broke, measured anew on dreams.

The first baseline of every table: it trains nothing, and a method that does not beat it has done nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resprout.batchnorm import batch_norm_layers, capture_moments


@torch.no_grad()
def reestimate(network: nn.Module, images: Tensor, *, batch_size: int = 256) -> None:
    """Replace every BatchNorm layer's running statistics by those of `images`, in place.

    Each batch is normalised by its own statistics on the way, as in training; means and second moments are
    then pooled over all images, so that the result is the variance of the whole set and not a mean of
    batch variances (which would miss how much the batches' means differ).

    Args:
        network: float32; its training modes are restored afterwards.
        images: float32, shape (n, channels, height, width), normalised space, on the network's device.
        batch_size: large enough for a batch's statistics to be worth normalising by.
    """
    layers = batch_norm_layers(network)
    modes = {module: module.training for module in network.modules()}
    momenta = {name: layer.momentum for name, layer in layers.items()}
    mean = {name: torch.zeros(layer.num_features, dtype=torch.float64) for name, layer in layers.items()}
    square = {name: torch.zeros_like(total) for name, total in mean.items()}
    counts = {name: layer.num_batches_tracked for name, layer in layers.items()}
    network.eval()
    for layer in layers.values():
        layer.train()
        layer.num_batches_tracked = None  # re-estimating is not training on
        layer.momentum = 0.0  # normalise by the batch, and leave the running statistics to the end
    try:
        with capture_moments(network) as moments:
            for batch in _batches(images, batch_size):
                network(batch.contiguous(memory_format=torch.channels_last))
                share = len(batch) / len(images)
                for name, found in moments.items():
                    batch_mean, batch_variance = found.mean.double().cpu(), found.variance.double().cpu()
                    mean[name] += share * batch_mean
                    square[name] += share * (batch_variance + batch_mean.square())
    finally:
        for name, layer in layers.items():
            layer.momentum, layer.num_batches_tracked = momenta[name], counts[name]
        for module, mode in modes.items():
            module.training = mode
    for name, layer in layers.items():
        variance = (square[name] - mean[name].square()).clamp_min(0)
        layer.load_state_dict({"running_mean": mean[name], "running_var": variance}, strict=False)


def _batches(images: Tensor, batch_size: int) -> list[Tensor]:
    # even batches: a last one of a few images would be normalised by a few images' statistics
    count = max(1, round(len(images) / batch_size))
    return [batch for batch in images.tensor_split(count) if len(batch)]
