"""The pictures inside artifacts: a grid of dreams, a plot of BatchNorm statistics."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from resprout.types import BNStatistics, DreamSet, InputSpec

PREVIEW_IMAGES = 64
PREVIEW_COLUMNS = 8
GAP = 2  # pixels between images
CANVAS = 1024  # pixels that a preview's longer side stays near


def save_preview(dreams: DreamSet, spec: InputSpec, path: Path) -> None:
    """A grid of up to 64 dreams in pixel space, spread evenly over the classes and in their order, as PNG."""
    count = min(PREVIEW_IMAGES, len(dreams.images))
    by_class = torch.argsort(dreams.targets, stable=True)
    chosen = by_class[torch.linspace(0, max(len(by_class) - 1, 0), count).round().long()]
    grid = image_grid(spec.to_pixels(dreams.images[chosen].float()), min(PREVIEW_COLUMNS, max(count, 1)))
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy())
    side = max(picture.size)
    if side <= CANVAS // 2:  # 32-pixel dreams are too small to see
        scale = CANVAS // side
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    picture.thumbnail((2 * CANVAS, 2 * CANVAS))
    picture.save(path, optimize=True)


def image_grid(pixels: Tensor, columns: int) -> Tensor:
    """Images side by side.

    Args:
        pixels: shape (n, channels, height, width), in [0, 1].
        columns: images per row.

    Returns:
        uint8, shape (3, grid height, grid width); white where there is no image. Other than three channels are
        shown as the grey of their average.
    """
    if pixels.shape[1] != 3:
        pixels = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    _, _, height, width = pixels.shape
    rows = -(-len(pixels) // columns) or 1
    grid = torch.ones(3, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    for index, image in enumerate(pixels):
        top = GAP + index // columns * (height + GAP)
        left = GAP + index % columns * (width + GAP)
        grid[:, top : top + height, left : left + width] = image
    return (grid * 255).round().to(torch.uint8)


def save_statistics_plot(statistics: BNStatistics, path: Path) -> None:
    """Per layer, in network order: the median and the range of its channels' running means and variances."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    _plot_range(above, [layer.mean for layer in statistics.layers], "running mean")
    _plot_range(below, [layer.variance + layer.eps for layer in statistics.layers], "running variance + eps")
    below.set_yscale("log")
    below.set_xlabel("BatchNorm layer")
    names = [layer.name for layer in statistics.layers]
    step = -(-len(names) // 40) or 1  # more labels than this cannot be read
    below.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
    # no software version in the file, so that it depends on the figures alone
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _plot_range(axes: Axes, layers: list[Tensor], label: str) -> None:
    low, median, high = zip(*((v.min().item(), v.median().item(), v.max().item()) for v in layers), strict=True)
    positions = range(len(layers))
    axes.fill_between(positions, low, high, alpha=0.25, label="range of channels")
    axes.plot(positions, median, marker="o", markersize=3, label="median channel")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
