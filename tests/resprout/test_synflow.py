"""SynFlow: what it scores, and that no layer of a chain is emptied in rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resprout.errors import UnsupportedModelError
from resprout.pruning import prune
from resprout.pruning.synflow import linearised, synaptic_flow
from resprout.recipe import SynflowSection
from resprout.types import InputSpec, ModelInfo, Teacher


def section(sparsity: float = 0.8, **fields: Any) -> SynflowSection:
    return SynflowSection(sparsity=sparsity, **fields)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def paths(weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The sum over all paths through linear layers of the product of magnitudes; and of those through each weight."""
    through = [torch.zeros_like(weight) for weight in weights]
    total = torch.zeros((), dtype=torch.float64)
    sizes = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    for path in np.ndindex(*sizes):
        steps = [(layer, path[layer + 1], path[layer]) for layer in range(len(weights))]
        product = torch.stack([weights[layer][to, source].abs() for layer, to, source in steps]).prod()
        total += product
        for layer, to, source in steps:
            through[layer][to, source] += product
    return total, through


def test_synflow_is_the_share_of_all_paths_products_that_pass_a_weight() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    names = ["1.weight", "3.weight", "5.weight"]
    found = synaptic_flow(linearised(network), names, (1, 2, 2))
    assert set(found) == set(names)
    total, through = paths([network.get_parameter(name).detach().double() for name in names])
    for name, part in zip(names, through, strict=True):
        torch.testing.assert_close(found[name], part / total, rtol=1e-9, atol=0)


def test_what_flows_into_a_unit_flows_out_and_each_layer_carries_all() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    network[1].weight.detach().normal_()
    before = state(network)
    flow = synaptic_flow(linearised(network), ["0.weight", "3.weight", "6.weight"], (3, 8, 8))
    for scores in flow.values():
        assert float(scores.sum()) == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(flow["0.weight"].sum((1, 2, 3)), flow["3.weight"].sum((0, 2, 3)))
    torch.testing.assert_close(flow["3.weight"].sum((1, 2, 3)), flow["6.weight"].view(2, 4, 16).sum((0, 2)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_synflow_in_rounds_spares_a_layer_of_a_chain_that_one_round_brings_to_its_floor(tiny_teacher: Teacher) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 64, 3, 7), nn.Flatten(), nn.Linear(256, 4))
    teacher = Teacher(tiny_teacher.info, network.eval().requires_grad_(False))
    in_rounds, at_once = (prune(teacher, section(0.97, share_per_round=share), seed=0).mask for share in (0.045, 0.99))
    assert int(at_once.keep["2.weight"].sum()) == 1
    assert min(in_rounds.density().values()) > 1 / 4608
    assert in_rounds.num_kept == at_once.num_kept


def test_synflow_refuses_a_network_that_nothing_flows_through(tiny_teacher: Teacher) -> None:
    tiny_teacher.network.fc.weight.zero_()
    with pytest.raises(UnsupportedModelError, match=r"synaptic flow(.|\n)*is 0"):
        prune(tiny_teacher, section(), seed=0)


# --- selection


def test_synflow_in_rounds_of_less_than_a_weight_still_ends() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 2)).eval()
    teacher = Teacher(ModelInfo("custom", 2, InputSpec((1, 2, 2), (0.5,), (0.5,)), ("a", "b")), network)
    assert prune(teacher, section(0.5, share_per_round=0.01), seed=0).mask.num_kept == 6
