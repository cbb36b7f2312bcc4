"""Networks for images of about 32x32 pixels.

`ThinResNet` is the CIFAR ResNet of He et al. (arXiv 1512.03385, section 4.2) with projection shortcuts; the
others are torchvision's networks with the early downsampling taken out, as is usual at this size. torchvision
takes seconds to import, so that waits until one of them is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from resprout.errors import UnsupportedModelError

VGG_STAGES: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
# (expansion, channels, blocks, stride): torchvision's table with the second stage at stride 1
MOBILENET_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ThinBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(inputs)))
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        return functional.relu(self.bn2(self.conv2(hidden)) + shortcut)


class ThinResNet(nn.Module):
    """The CIFAR ResNet of depth 6n + 2: a 3x3 stem, three stages of n blocks, global average pool, a linear head.

    Args:
        depth: 8, 20, 32, 56, …
        num_classes: the length of the logits.
        channels: of the input.
        width: channels of the first stage; the second has twice as many, the third four times.
    """

    def __init__(self, depth: int, num_classes: int, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _thin_stage(width, width, blocks, stride=1)
        self.layer2 = _thin_stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _thin_stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.fc(hidden.mean((2, 3)))  # type: ignore[no-any-return]


class SmallVGG(nn.Module):
    """VGG with BatchNorm and one linear head over the globally averaged features.

    Args:
        stages: channels of each convolution; a 2x2 max-pool ends a stage, so five stages take 32x32 and more.
        num_classes: the length of the logits.
        channels: of the input.
    """

    def __init__(self, stages: Sequence[Sequence[int]], num_classes: int, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in stages:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))  # type: ignore[no-any-return]


def thin_resnet(depth: int, num_classes: int, channels: int, *, width: int = 16) -> nn.Module:
    """A CIFAR ResNet; `width` is the first stage's channels."""
    return ThinResNet(depth, num_classes, channels, width)


def small_vgg(name: str, num_classes: int, channels: int, *, width: float = 1.0) -> nn.Module:
    """VGG-BN for small images; `width` multiplies every layer's channels."""
    stages = [[max(1, round(width * size)) for size in stage] for stage in VGG_STAGES[name]]
    return SmallVGG(stages, num_classes, channels)


def small_resnet(name: str, num_classes: int, channels: int, **arguments: Any) -> nn.Module:
    """Torchvision's ResNet with a 3x3 stem of stride 1 and no max-pool."""
    from torchvision import models as vision

    network = getattr(vision, name)(weights=None, num_classes=num_classes, **arguments)
    network.conv1 = _replaced_stem(network.conv1, channels)
    network.maxpool = nn.Identity()
    return network  # type: ignore[no-any-return]


def small_mobilenet_v2(num_classes: int, channels: int, **arguments: Any) -> nn.Module:
    """Torchvision's MobileNetV2 with the stem and the first downsampling stage at stride 1; takes `width_mult`."""
    from torchvision import models as vision

    if "inverted_residual_setting" in arguments:
        raise UnsupportedModelError("cifar_mobilenet_v2 has its own inverted_residual_setting", now="leave it out")
    stages = [list(stage) for stage in MOBILENET_V2_STAGES]
    network = vision.mobilenet_v2(weights=None, num_classes=num_classes, inverted_residual_setting=stages, **arguments)
    network.features[0][0] = _replaced_stem(network.features[0][0], channels)
    return network  # type: ignore[no-any-return]


def _thin_stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = ThinBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(ThinBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def _replaced_stem(stem: nn.Conv2d, channels: int) -> nn.Conv2d:
    replacement = nn.Conv2d(channels, stem.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
    return replacement


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# name -> function(num_classes, channels, **arguments)
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": partial(thin_resnet, depth) for depth in (8, 20, 32, 56)},
    **{f"cifar_resnet{depth}": partial(small_resnet, f"resnet{depth}") for depth in (18, 34, 50)},
    "cifar_vgg11_bn": partial(small_vgg, "vgg11"),
    "cifar_vgg16_bn": partial(small_vgg, "vgg16"),
    "cifar_mobilenet_v2": small_mobilenet_v2,
}
