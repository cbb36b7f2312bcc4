"""Statistics are the running ones, in the order in which an image meets the layers, and no hook stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from resprout.errors import UnsupportedModelError
from resprout.statistics import extract
from resprout.types import InputSpec, ModelInfo, Teacher

INFO = ModelInfo("custom", 2, InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3), ("a", "b"))


class Reversed(nn.Module):
    """Defines its layers in another order than it runs them, and one that it never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.BatchNorm1d(4, eps=1e-3)
        self.auxiliary = nn.BatchNorm2d(3)
        self.untracked = nn.BatchNorm2d(3, track_running_stats=False)
        self.first = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(self.untracked(images))
        return self.last(self.fc(self.first(features[..., ::2]).mean((2, 3))))[:, :2]


def test_layers_come_in_execution_order_with_their_sizes_and_without_those_never_run() -> None:
    statistics = extract(Teacher(INFO, Reversed().eval()))
    assert [(layer.name, layer.spatial, layer.eps, layer.channels) for layer in statistics.layers] == [
        ("first", (8, 8), 1e-5, 3),  # used twice: its first use counts
        ("last", (), 1e-3, 4),
    ]


def test_statistics_are_float32_copies_of_the_state_dict(tiny_teacher: Teacher) -> None:
    state = {name: value.clone() for name, value in tiny_teacher.network.state_dict().items()}
    statistics = extract(tiny_teacher)
    assert len(statistics.layers) == sum(name.endswith("running_mean") for name in state)
    for layer in statistics.layers:
        assert torch.equal(layer.mean, state[f"{layer.name}.running_mean"])
        assert torch.equal(layer.variance, state[f"{layer.name}.running_var"])
        layer.mean.add_(1)
    for name, value in tiny_teacher.network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_network_in_float64_gives_float32_statistics() -> None:
    layers = extract(Teacher(INFO, Reversed().double().eval())).layers
    assert {layer.mean.dtype for layer in layers} == {torch.float32}


def test_a_network_without_batchnorm_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten())
    with pytest.raises(UnsupportedModelError, match=r"no BatchNorm layer(.|\n)*nothing to match"):
        extract(Teacher(INFO, network))
