"""Networks in plain layers: BatchNorm that is nn.BatchNorm, and weights that are parameters of their own.

People build the same network in several ways, and every stage would have to know each of them.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm

from resprout.errors import UnsupportedModelError
from resprout.wording import listed

STATISTICS = ("running_mean", "running_var")
_WORDS = {"_SpectralNorm": "spectral norm", "_WeightNorm": "weight norm", "_Orthogonal": "orthogonality"}
_FROZEN = {"weight", "bias", *STATISTICS}
# torch.nn.utils has functions of these modules' names
_SpectralNorm, _Loading, _WeightNorm = (
    getattr(importlib.import_module(f"torch.nn.utils.{module}"), name)
    for module, name in (
        ("spectral_norm", "SpectralNorm"),
        ("spectral_norm", "SpectralNormLoadStateDictPreHook"),
        ("weight_norm", "WeightNorm"),
    )
)


class AnyBatchNorm(_BatchNorm):
    """BatchNorm of inputs of any number of dimensions, as SyncBatchNorm's are, and what follows in the same layer."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised, then through each of the layer's children, such as an activation."""
        output = super().forward(input)
        for child in self.children():
            output = child(output)
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def plain(network: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A network that gives the same answers, made of layers that every stage knows.

    Wrappers for training (DataParallel, torch.compile, AveragedModel) are taken off. SyncBatchNorm and frozen BatchNorm
    become BatchNorm. Reparametrised weights (spectral and weight norm, pruning masks, `parametrize`) become the weights
    that they stand for. Numbers become float32.

    Args:
        network: is changed.

    Returns:
        The network, and what was done, a sentence each.

    Raises:
        UnsupportedModelError: it is TorchScript, has no values, or a weight's parametrisation cannot be removed.
    """
    network = _unwrapped(network)
    _check(network)
    notes = [*_plain_batch_norm(network), *_plain_weights(network), *_plain_numbers(network)]
    return network, tuple(notes)


def is_reparametrised(network: nn.Module) -> bool:
    """Whether some weight of a network is computed from others before each use, so that its state has other names."""
    kinds = (_SpectralNorm, _WeightNorm, prune.BasePruningMethod)
    return any(
        parametrize.is_parametrized(module)
        or any(isinstance(hook, kinds) for hook in module._forward_pre_hooks.values())
        for module in network.modules()
    )


def _check(network: nn.Module) -> None:
    scripted = [name for name, module in network.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        raise UnsupportedModelError(
            f"{scripted[0] or 'the network'} is TorchScript",
            why="its layers cannot be seen, changed or trained any more",
            now="return the network as it is before torch.jit.script or torch.jit.trace",
        )
    empty = [name for name, tensor in _tensors(network) if tensor.is_meta]
    if empty:
        raise UnsupportedModelError(
            f"{empty[0]} of the network is on torch's meta device, without values",
            now="build the network on the CPU",
        )


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(network.named_parameters(), network.named_buffers())


def _unwrapped(network: nn.Module) -> nn.Module:
    network = _inner(network)
    for parent in network.modules():
        for name, child in parent.named_children():
            parent._modules[name] = _inner(child)
    return network


def _inner(module: nn.Module) -> nn.Module:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    while True:
        inner = module.module if isinstance(module, wrappers) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _plain_batch_norm(network: nn.Module) -> list[str]:
    replaced: dict[nn.Module, nn.Module] = {}
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            layer = replaced.get(child) if child is not None else None
            if child is not None and layer is None and (layer := _as_batch_norm(child)) is not None:
                replaced[child] = layer
            if layer is not None:
                parent._modules[name] = layer
    kinds = [type(layer).__name__ for layer in replaced]
    counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    return [f"read as BatchNorm: {', '.join(counts)}"] if counts else []


def _as_batch_norm(module: nn.Module) -> nn.Module | None:
    """The BatchNorm layer that this one is in all but its class; None where it is none, or is one already."""
    tensors = {name: tensor for name, tensor in _tensors(module) if name != "num_batches_tracked"}
    synchronised = isinstance(module, nn.SyncBatchNorm)
    frozen = set(tensors) == _FROZEN and not isinstance(module, _BatchNorm) and not [*module.parameters()]
    sizes = {tensor.numel() if tensor.ndim == 1 else None for tensor in tensors.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    if not (synchronised or frozen) or size is None:
        return None
    for eps in (getattr(module, "eps", None), 1e-5, 1e-30):  # some add nothing to the variance; 0 is not allowed
        if isinstance(eps, float) and eps > 0:
            layer = _with_tensors_of(module, AnyBatchNorm(size, eps, getattr(module, "momentum", 0.1)))
            if _answers_alike(module, layer):
                return layer
    return None


def _with_tensors_of(module: nn.Module, layer: _BatchNorm) -> _BatchNorm:
    for name in ("weight", "bias"):
        tensor = getattr(module, name)
        layer.register_parameter(name, nn.Parameter(tensor.detach()) if tensor is not None else None)
    for name in (*STATISTICS, "num_batches_tracked"):
        if name in STATISTICS or getattr(module, name, None) is not None:
            setattr(layer, name, getattr(module, name))
    for name, child in module.named_children():
        layer.add_module(name, child)
    return layer.train(module.training)


@torch.no_grad()
def _answers_alike(module: nn.Module, layer: _BatchNorm) -> bool:
    """Whether two layers of the same tensors normalise alike, whatever the tensors hold; tried with random values."""
    module, layer = copy.deepcopy(module).float().eval(), copy.deepcopy(layer).float().eval()
    generator = torch.Generator().manual_seed(0)
    for name in sorted(_FROZEN):
        own, other = getattr(module, name), getattr(layer, name)
        if own is not None:
            drawn = torch.randn(own.shape, generator=generator)
            values = 10 ** -(3 * drawn.sigmoid()) if name == "running_var" else drawn
            own.copy_(values)
            other.copy_(values)
    inputs = torch.randn(2, layer.num_features, 3, 3, generator=generator)
    try:
        found, expected = module(inputs.clone()), layer(inputs)
    except Exception:  # somebody's own module: it may fail in any way, and is then no BatchNorm
        return False
    return isinstance(found, Tensor) and found.shape == expected.shape and torch.allclose(found, expected, 1e-4, 1e-4)


def _plain_weights(network: nn.Module) -> list[str]:
    folded: dict[str, list[str]] = {}
    for name, module in list(network.named_modules()):
        if name.split(".")[-1] != "parametrizations":
            for kind in (*_without_hooks(module), *_without_parametrizations(module, name)):
                folded.setdefault(kind, []).append(name or type(module).__name__)
    return [f"{kind} was folded into plain weights: {listed(names)}" for kind, names in folded.items()]


def _without_hooks(module: nn.Module) -> Iterator[str]:
    """Remove what torch.nn.utils.spectral_norm, weight_norm and prune have put on a module; names each."""
    for hook in reversed(list(module._forward_pre_hooks.values())):
        if isinstance(hook, _SpectralNorm):
            remove_spectral_norm(module, hook.name)
            loading = module._load_state_dict_pre_hooks  # torch leaves one there, which wants the weight's parts
            for key in [key for key, kept in loading.items() if isinstance(getattr(kept, "hook", kept), _Loading)]:
                del loading[key]
            yield "spectral norm"
        elif isinstance(hook, _WeightNorm):
            remove_weight_norm(module, hook.name)
            yield "weight norm"
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
            yield "a pruning mask"


def _without_parametrizations(module: nn.Module, name: str) -> Iterator[str]:
    if not parametrize.is_parametrized(module):
        return
    parametrizations: Any = module.parametrizations
    parametrizations.eval()  # in training mode spectral norm changes with each look at it
    parametrizations.requires_grad_(True)  # else the weight would become a buffer
    for tensor, kinds in list(parametrizations.items()):
        kind = " and ".join(_WORDS.get(type(part).__name__, type(part).__name__) for part in kinds)
        try:
            seen = [getattr(module, tensor).detach().clone() for _ in range(2)]
            parametrize.remove_parametrizations(module, tensor)
            if not all(torch.equal(getattr(module, tensor), values) for values in seen):
                raise RuntimeError("its values change")
        except Exception as error:  # somebody's own parametrisation: it may fail in any way
            raise UnsupportedModelError(
                f"{name + '.' if name else ''}{tensor} is parametrised by {kind}, which cannot be removed: {error}",
                why="a weight that is computed from others can be neither pruned nor stored as it is",
                now="fold it in your function, with torch.nn.utils.parametrize.remove_parametrizations",
            ) from error
        yield kind


def _plain_numbers(network: nn.Module) -> list[str]:
    others = {
        str(tensor.dtype).removeprefix("torch.")
        for _, tensor in _tensors(network)
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    network.cpu().float()
    return [f"the network is built in {' and '.join(sorted(others))}: computed with in float32"] if others else []
