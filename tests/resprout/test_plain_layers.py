"""However a network is put together, it becomes one of plain layers that gives the same answers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torchvision.ops import FrozenBatchNorm2d

from resprout.batchnorm import batch_norm_layers
from resprout.channels import whole_mask
from resprout.errors import UnsupportedModelError
from resprout.models.plain import is_reparametrised, plain


def small() -> nn.Sequential:
    """A network whose BatchNorm layers remember something."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Flatten()
    )
    network.extend([nn.Linear(6 * 16, 5, bias=False)])
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.2 + 0.2 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


NAMES = set(small().state_dict())


class FrozenWithoutEps(nn.Module):
    """As in older detection code: nothing is added to the variance."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(num_features))

    def forward(self, inputs: Tensor) -> Tensor:
        scale = self.weight * self.running_var.rsqrt()
        return inputs * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


class Shifted(FrozenWithoutEps):
    """Has the tensors of frozen BatchNorm, and does something else."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + 0.1 * self.weight[:, None, None]


class FrozenThenActed(FrozenBatchNorm2d):
    """As timm writes it: an activation in the same layer."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x) - 0.0)


class SyncThenActed(nn.SyncBatchNorm):
    """Likewise."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.act = nn.Hardtanh(-0.1, 0.1)

    def forward(self, input: Tensor) -> Tensor:
        return self.act(super().forward(input))


class Doubled(nn.Module):
    """A parametrisation of somebody's own."""

    def forward(self, original: Tensor) -> Tensor:
        return 2 * original


class Noisy(nn.Module):
    def forward(self, original: Tensor) -> Tensor:
        return original + torch.rand_like(original)


def with_frozen(kind: Callable[[int], nn.Module]) -> Callable[[nn.Sequential], nn.Module]:
    def change(network: nn.Sequential) -> nn.Module:
        for index in (1, 4):
            frozen = kind(6)
            frozen.load_state_dict(network[index].state_dict(), strict=False)
            network[index] = frozen
        return network

    return change


def each_layer(wrap: Callable[[nn.Module], object]) -> Callable[[nn.Sequential], nn.Module]:
    def change(network: nn.Sequential) -> nn.Module:
        for index in (0, 3, 6):
            wrap(network[index])
        network.requires_grad_(False)
        return network

    return change


def masked_twice(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", 0.3)
    prune.l1_unstructured(layer, "weight", 0.3)


def only_inner(network: nn.Sequential) -> nn.Module:
    network[0] = nn.DataParallel(network[0])
    return network


KINDS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "spectral norm, as hooks": each_layer(nn.utils.spectral_norm),
    "spectral norm": each_layer(parametrizations.spectral_norm),
    "weight norm, as hooks": each_layer(nn.utils.weight_norm),
    "weight norm": each_layer(parametrizations.weight_norm),
    "orthogonality": each_layer(parametrizations.orthogonal),
    "pruning mask": each_layer(masked_twice),
    "Doubled": each_layer(lambda layer: parametrize.register_parametrization(layer, "weight", Doubled())),
    "FrozenBatchNorm2d": with_frozen(FrozenBatchNorm2d),
    "FrozenWithoutEps": with_frozen(FrozenWithoutEps),
    "FrozenThenActed": with_frozen(FrozenThenActed),
    "SyncThenActed": with_frozen(SyncThenActed),
    "SyncBatchNorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "float16": lambda network: network.half(),
    "float64": lambda network: network.double(),
}
WRAPPERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "nothing": lambda network: network,
    "DataParallel": nn.DataParallel,
    "DataParallel within": only_inner,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "compile": lambda network: torch.compile(nn.DataParallel(network)),
}


def answers(network: nn.Module) -> Tensor:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(images.to(next(network.parameters()).dtype)).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_the_same_answers_come_from_plain_layers(kind: str, training: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm as hooks is deprecated; people have it
        network = KINDS[kind](small()).eval()
    expected = answers(network) if kind != "float16" else answers(small().half().float())
    if kind != "weight norm, as hooks":  # which torch cannot copy
        network = copy.deepcopy(network)
    made, notes = plain(network.train(training))
    assert torch.allclose(answers(made.eval()), expected, rtol=1e-4, atol=1e-4)
    assert set(made.state_dict()) == NAMES
    assert len(batch_norm_layers(made)) == 2
    assert len(whole_mask(made).keep) == 3
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    (note,) = notes
    assert kind.removesuffix(", as hooks") in note
    assert plain(made)[1] == ()
    made.load_state_dict(small().state_dict())
    assert not is_reparametrised(made)
    copy.deepcopy(made)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_taken_off(wrapper: str) -> None:
    made, notes = plain(WRAPPERS[wrapper](small()))
    assert torch.equal(answers(made), answers(small()))
    assert set(made.state_dict()) == NAMES
    assert notes == ()


def test_zeros_of_a_mask_stay_zeros() -> None:
    network = small()
    masked_twice(network[3])
    zeros = network[3].weight == 0
    made, _ = plain(network)
    assert zeros.sum() > zeros.numel() // 3
    assert torch.equal(made[3].weight == 0, zeros)


def test_synchronised_batch_norm_learns_as_batch_norm_does_whatever_its_inputs() -> None:
    made, _ = plain(nn.Sequential(nn.Linear(3, 4), nn.SyncBatchNorm(4)))
    layer, expected = made[1], nn.BatchNorm1d(4)
    inputs = torch.rand(5, 4)
    for each in (layer, expected):
        each.num_batches_tracked = None
        each.train()(inputs)
    assert torch.equal(layer.running_mean, expected.running_mean)
    assert torch.equal(layer.running_var, expected.running_var)


def test_one_layer_under_two_names_stays_one() -> None:
    network = nn.ModuleDict({"first": nn.SyncBatchNorm(3)})
    network["second"] = network["first"]
    made, notes = plain(network)
    assert made["first"] is made["second"]
    assert notes == ("read as BatchNorm: 1 SyncBatchNorm",)


def test_a_layer_that_computes_something_else_is_left_alone() -> None:
    made, notes = plain(with_frozen(Shifted)(small()))
    assert notes == ()
    assert isinstance(made[1], Shifted)


def test_a_parametrisation_that_cannot_be_folded_is_refused_by_name() -> None:
    network = small()
    parametrize.register_parametrization(network[3], "weight", Noisy())
    with pytest.raises(UnsupportedModelError, match=r"3\.weight is parametrised by Noisy, which cannot be removed"):
        plain(network)


def test_a_network_without_values_is_refused() -> None:
    with torch.device("meta"):
        network = nn.Linear(2, 2)
    with pytest.raises(UnsupportedModelError, match="meta device"):
        plain(network)


def test_torchscript_is_refused_with_the_way_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; people still return it
        scripted = torch.jit.script(nn.Linear(2, 2))
    for network in (scripted, nn.Sequential(scripted)):
        with pytest.raises(UnsupportedModelError, match="is TorchScript") as refusal:
            plain(network)
        assert "before torch.jit.script" in refusal.value.now
