"""What is seen of a network while images pass through it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from resprout.hooks import each_use


class Loop(nn.Module):
    """Uses one layer as often as it is told, another never."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle, self.times = nn.Identity(), nn.Identity(), 2

    def forward(self, images: Tensor) -> Tensor:
        for number in range(self.times):
            images = self.layer(images + number)
        return images


def num_hooks(network: nn.Module) -> int:
    return sum(len(each._forward_pre_hooks) + len(each._forward_hooks) for each in network.modules())


def test_every_use_of_a_layer_is_seen_and_each_pass_begins_anew() -> None:
    network = Loop()
    layers = {"layer": network.layer, "idle": network.idle}
    with each_use(network, layers, lambda inputs, output: float(inputs[0].sum() + output.sum())) as uses:
        network(torch.ones(1))
        assert uses == {"layer": [2.0, 4.0]}
        network.times = 1
        network(torch.ones(1))
        assert uses == {"layer": [2.0]}


@pytest.mark.parametrize("before", [True, False])
def test_hooks_are_gone_also_after_an_exception(before: bool) -> None:
    network = Loop()
    looking = each_use(network, {"layer": network.layer}, lambda *_: None, before=before)
    with pytest.raises(ZeroDivisionError), looking:
        raise ZeroDivisionError if num_hooks(network) == 2 else AssertionError
    assert num_hooks(network) == 0
