"""BatchNorm re-estimation: the running statistics that pruning broke, measured anew on dreams.

The first baseline of every table: it trains nothing, and a method that does not beat it has done nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resprout.batchnorm import Moments, batch_norm_layers, capture_moments, mean_moments


@torch.no_grad()
def reestimate(network: nn.Module, images: Tensor, *, batch_size: int = 256) -> None:
    """Replace every BatchNorm layer's running statistics by those of `images`, in place.

    Each batch is normalised by its own statistics on the way, as in training; means and second moments are
    then pooled over all images, so that the result is the variance of the whole set and not a mean of
    batch variances (which would miss how much the batches' means differ). A layer that is used several times gets the
    mean over its uses, as in training; one that no image passes keeps what it has.

    Args:
        network: float32; its training modes are restored afterwards.
        images: float32, shape (n, channels, height, width), normalised space, on the network's device.
        batch_size: large enough for a batch's statistics to be worth normalising by.
    """
    layers = batch_norm_layers(network)
    modes = {module: module.training for module in network.modules()}
    momenta = {name: layer.momentum for name, layer in layers.items()}
    counts = {name: layer.num_batches_tracked for name, layer in layers.items()}
    pooled: dict[str, list[_Pooled]] = {name: [] for name in layers}
    network.eval()
    for layer in layers.values():
        layer.train()
        layer.num_batches_tracked = None  # re-estimating is not training on
        layer.momentum = 0.0  # normalise by the batch, and leave the running statistics to the end
    try:
        with capture_moments(network) as moments:
            for batch in _batches(images, batch_size):
                network(batch)
                for name, uses in moments.items():
                    pooled[name] += [_Pooled() for _ in uses[len(pooled[name]) :]]
                    for pool, found in zip(pooled[name], uses, strict=False):
                        pool.add(found, len(batch))
    finally:
        for name, layer in layers.items():
            layer.momentum, layer.num_batches_tracked = momenta[name], counts[name]
        for module, mode in modes.items():
            module.training = mode
    for name, layer in layers.items():
        if pools := pooled[name]:
            found = mean_moments([pool.moments() for pool in pools])
            layer.load_state_dict({"running_mean": found.mean, "running_var": found.variance}, strict=False)


class _Pooled:
    """What one use of a layer saw of all images, in float64 on the CPU."""

    def __init__(self) -> None:
        self._images = 0
        self._mean = self._square = torch.zeros((), dtype=torch.float64)

    def add(self, found: Moments, images: int) -> None:
        mean, variance = found.mean.double().cpu(), found.variance.double().cpu()
        self._mean = self._mean + images * mean
        self._square = self._square + images * (variance + mean.square())
        self._images += images

    def moments(self) -> Moments:
        mean = self._mean / self._images
        return Moments(mean, (self._square / self._images - mean.square()).clamp_min(0))


def _batches(images: Tensor, batch_size: int) -> list[Tensor]:
    # even batches: a last one of a few images would be normalised by a few images' statistics
    count = max(1, round(len(images) / batch_size))
    return [batch for batch in images.tensor_split(count) if len(batch)]
