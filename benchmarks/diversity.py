"""How much dreams differ from each other, layer by layer, beside photographs: what diversity could still gain.

    python benchmarks/diversity.py            # ResNet-20, seed 0: 1,024 dreams, plain dreams, and training images

Of each channel that enters a BatchNorm layer, and of each colour of the images themselves: by how much an image's mean
(of colours, its brightness) and its standard deviation (its contrast) vary from image to image, in standard deviations
of the channel over all pixels of all images. Kept in benchmarks/results/diversity-resnet20.json.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import machine
import torch
from cells import RESULTS, ROOT, Setting, make_dreams
from torch import Tensor, nn

from resprout import artifacts, storage
from resprout.batchnorm import batch_norm_layers
from resprout.collecting import collect
from resprout.files import write_atomically
from resprout.recipe import ImagesSection

SEED = 0
KINDS = {"dreams": {}, "plain dreams": {"coarsest": 4}, "photographs": {}}


def spread(values: Tensor) -> list[float]:
    """How much the images' means and standard deviations vary, the mean over channels.

    Args:
        values: shape (images, channels, height, width).
    """
    of_all = values.std((0, 2, 3))
    statistics = values.mean((2, 3)), values.std((2, 3))
    return [round(float((of_images.std(0) / of_all).mean()), 4) for of_images in statistics]


@torch.no_grad()
def spreads(network: nn.Module, images: Tensor) -> dict[str, list[float]]:
    """By layer, in the order in which the images pass them; first the images themselves."""
    found = {"images": spread(images)}

    def look(name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[name] = spread(inputs[0])

    handles = [
        layer.register_forward_pre_hook(partial(look, name)) for name, layer in batch_norm_layers(network).items()
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return found


def main() -> None:
    teacher_path, data = ROOT / "examples/resnet20-cifar10/teacher", ROOT / "data/cifar10"
    teacher = artifacts.load_teacher(teacher_path)
    found = {}
    for kind, fields in KINDS.items():
        if kind == "photographs":
            section = ImagesSection(data=str(data / "train.safetensors"))
            images = collect(section, info=teacher.info, seed=SEED, stored=storage.stored)
        else:
            setting = Setting("resnet20", teacher_path, data, torch.get_num_threads(), **fields)
            make_dreams(setting, "ours", SEED)
            images = artifacts.load_dreams(setting.dreams("ours", SEED))
        found[kind] = spreads(teacher.network.eval(), images.training[0].float())
    path: Path = RESULTS / "diversity-resnet20.json"
    document = {"name": "resnet20", "seed": SEED, "num_images": 1024, "machine": machine.describe(), "spread": found}
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
