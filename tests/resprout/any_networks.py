"""Small classifiers of the kinds that people have; each takes its number of classes and nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 8


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Chain(nn.Module):
    """Three blocks, a mean over places, a linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(block(3, WIDTH), block(WIDTH, WIDTH, 2), block(WIDTH, WIDTH))
        self.fc = nn.Linear(WIDTH, num_classes)

    def answer(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images).mean((2, 3)))
        return logits

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


class Viewing(Chain):
    """Flattens with `view`, which only contiguous features allow."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc = nn.Linear(WIDTH * 64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        logits: Tensor = self.fc(features.view(len(features), -1))
        return logits


class Cube(nn.Module):
    """Channels as depth: a three-dimensional convolution, then two-dimensional ones."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.deep, self.norm = nn.Conv3d(1, 4, 3, 1, 1, bias=False), nn.BatchNorm3d(4)
        self.flat = block(12, WIDTH, 2)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.norm(self.deep(images[:, None]))).flatten(1, 2)
        logits: Tensor = self.fc(self.flat(features).mean((2, 3)))
        return logits


class Auxiliary(Chain):
    """Further logits while it is trained, as GoogLeNet and Inception have them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.aux = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.answer(images)
        return (logits, self.aux(self.features[0](images).mean((2, 3)))) if self.training else logits


class Both(NamedTuple):
    aux: Tensor
    logits: Tensor


class Named(Auxiliary):
    """Says which of its outputs are the logits; they are not the first."""

    def forward(self, images: Tensor) -> Any:
        logits = self.answer(images)
        return Both(0 * logits, logits)


@dataclass
class Output:
    hidden: tuple[Tensor, ...]
    logits: Tensor
    loss: Tensor | None = None


class Wrapped(Chain):
    def forward(self, images: Tensor) -> Any:
        return Output((self.features(images),), self.answer(images))


class Namespace(Chain):
    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(hidden=self.features(images), logits=self.answer(images))


class Complex(Chain):
    """Weighs frequencies by complex numbers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.gain = nn.Parameter(torch.ones(WIDTH, 1, 1, dtype=torch.complex64))

    def answer(self, images: Tensor) -> Tensor:
        features = self.features(images)
        features = torch.fft.irfft2(torch.fft.rfft2(features) * self.gain, s=features.shape[2:])
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class Dictionary(Chain):
    def forward(self, images: Tensor) -> Any:
        return {"features": self.features(images), "scores": [self.answer(images)], "loss": None}


class Squeezing(Chain):
    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images).squeeze()


class Convolving(Chain):
    """Its head is a convolution that leaves a height and a width of 1."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc = nn.Conv2d(WIDTH, num_classes, 1)  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images).mean((2, 3), keepdim=True))
        return logits


class Branches(nn.Module):
    """A block of several resolutions: a list comes in, a list goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([block(WIDTH, WIDTH), block(WIDTH, WIDTH)])

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        return [part(each) for part, each in zip(self.parts, images, strict=True)]


class Resolutions(Chain):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.branches = nn.Sequential(Branches(), Branches())

    def answer(self, images: Tensor) -> Tensor:
        features = self.features[0](images)
        fine, coarse = self.branches([features, functional.avg_pool2d(features, 2)])
        logits: Tensor = self.fc(fine.mean((2, 3)) + coarse.mean((2, 3)))
        return logits


class Idle(Chain):
    """Layers that no image reaches: a projector and a second head that were used for training."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.projector = nn.Sequential(nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
        self.rotation = nn.Linear(WIDTH, 4)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = block(WIDTH, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.body(images)


class Skipping(Chain):
    """Stochastic depth: while it is trained, whole blocks are left out at random."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.blocks = nn.ModuleList([Residual(), Residual()])

    def answer(self, images: Tensor) -> Tensor:
        features = self.features(images)
        for each in self.blocks:
            if not self.training or random.random() < 0.5:
                features = each(features)
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class Shared(Chain):
    """One block that is used three times in a pass, BatchNorm and all."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.conv, self.norm = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH)

    def answer(self, images: Tensor) -> Tensor:
        features = self.features[0](images)
        for _ in range(3):
            features = functional.relu(self.norm(self.conv(features)) + features)
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class Changing(Chain):
    """Changes the images that it is given, in place."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images.sub_(0.1).mul_(2.0))


class Copying(Chain):
    """Does the same without touching them."""

    def forward(self, images: Tensor) -> Any:
        return super().forward((images - 0.1) * 2.0)


class Counting(Chain):
    """Writes to a buffer in each pass."""

    calls: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Any:
        self.calls += 1
        return super().forward(images)


class Gated(Chain):
    """Takes another way for some images: which layers run depends on what they see."""

    def answer(self, images: Tensor) -> Tensor:
        features = self.features[0](images)
        if float(features.detach().mean()) > float(images.detach().mean()):
            features = self.features[1](features)
        logits: Tensor = self.fc(self.features[2](features).mean((2, 3)))
        return logits


class Frozen(Chain):
    """Runs its backbone without gradients."""

    def answer(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.features(images)
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class Rounding(Chain):
    """Rounds its images to whole levels first: nothing comes back to them."""

    def forward(self, images: Tensor) -> Any:
        return super().forward((images * 10).round() / 10)


class Quantising(Chain):
    """Rounds in its midst."""

    def answer(self, images: Tensor) -> Tensor:
        features = (self.features[:2](images) * 16).round() / 16
        logits: Tensor = self.fc(self.features[2](features).mean((2, 3)))
        return logits


class Detaching(Chain):
    def forward(self, images: Tensor) -> Any:
        return super().forward(torch.from_numpy(images.detach().numpy() * 2))


class TwoInputs(Chain):
    def forward(self, images: Tensor, meta: Tensor) -> Any:
        return super().forward(images) + meta


class FromDictionary(Chain):
    def forward(self, images: Any) -> Any:
        return super().forward(images["image"])


class Raising(Chain):
    def forward(self, images: Tensor) -> Any:
        if self.training:
            raise LookupError("no targets were given")
        return super().forward(images)


class Transforming(Chain):
    """Computes something on the way that bfloat16 has not."""

    def answer(self, images: Tensor) -> Tensor:
        features = self.features(images)
        features = torch.fft.irfft2(torch.fft.rfft2(features), s=features.shape[2:])
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


_built = iter(range(1, 1000))


class Remembering(Chain):
    """Computes with something that its state does not hold."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.scale = float(next(_built))

    def answer(self, images: Tensor) -> Tensor:
        return super().answer(images) * self.scale


def trained(network: nn.Module, shape: tuple[int, int, int] = (3, 16, 16)) -> nn.Module:
    """A network with believable statistics: a pass in training mode over smooth random pictures."""
    random.seed(0)  # of networks that skip blocks: each is to be passed
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(64, shape[0], 4, 4, generator=generator)
    pictures = functional.interpolate(small, size=shape[1:], mode="bilinear", align_corners=False)
    network.train()
    norms = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    for each in norms:
        each.momentum = None  # the mean over all passes
    with torch.no_grad():
        for _ in range(4):
            network(pictures + 0.3 * torch.randn(pictures.shape, generator=generator))
    for each in norms:
        each.momentum = 0.1
    return network.eval().requires_grad_(False)
