"""Where a network's features are matched: the ends of its blocks, found without knowing the architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm, batch_norm_layers
from resprout.channels import alike, shrink, zeroed
from resprout.classifier import tensors_in
from resprout.precision import strict_float32
from resprout.types import ChannelPlan

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def block_names(network: nn.Module) -> list[str]:
    """The outermost composite members of containers that hold a BatchNorm layer, in definition order.

    Residual blocks in ResNets, inverted residuals in MobileNets, dense blocks in DenseNets. A plain chain such
    as VGG has none: there the BatchNorm layers themselves are taken.
    """
    blocks = list(_blocks(network, ""))
    return blocks or list(batch_norm_layers(network))


def _blocks(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        in_container = type(module) in _CONTAINERS
        composite = any(True for _ in child.children()) and type(child) not in _CONTAINERS
        if in_container and composite and any(isinstance(part, BatchNorm) for part in child.modules()):
            yield path
        else:
            yield from _blocks(child, f"{path}.")


@contextmanager
def capture_features(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what the named modules return, anew in each forward pass; the hooks end with the block.

    Yields:
        Every floating-point tensor that a module returns, in whatever structure: the first under the module's name,
        further ones, also of its further uses in a pass, under `name#1`, `name#2`, … A module that did not run is not
        there.
    """
    features: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            for _, found in tensors_in(output):
                key, number = name, 0
                while key in features:
                    number += 1
                    key = f"{name}#{number}"
                features[key] = found

        return hook

    handles = [network.register_forward_pre_hook(lambda *_: features.clear())]
    try:
        handles += [network.get_submodule(name).register_forward_hook(hook_for(name)) for name in names]
        yield features
    finally:
        for handle in handles:
            handle.remove()


def kept_features(teacher: nn.Module, plan: ChannelPlan, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Which channels of the named modules' outputs a student has that was cut to a plan, where that can be told.

    What a block returns is a sum or a concatenation of what its layers give, and no plan says which channels that
    has. So it is tried: of all selections in the plan, the one is right under which the teacher, when the channels
    that go carry nothing, returns what the teacher cut to the plan returns. Where none is, the name is left out.

    Args:
        teacher: in evaluation mode, float32.
        names: of modules; what they return has shape (batch, channels, ...).
        images: a few, shape (n, channels, height, width), normalised space.

    Returns:
        As `capture_features` names them -> int64, shape (channels that stay,), ascending; on the device of the images.
    """
    selections = {tuple(kept.tolist()): kept for side in (plan.outputs, plan.inputs) for kept in side.values()}
    dense, cut = zeroed(teacher, plan), shrink(teacher, plan)
    found = {}
    with capture_features(dense, names) as full, capture_features(cut, names) as small, strict_float32():
        dense(images), cut(images)
    for name in (each for each in full if each in small and full[each].ndim > 1):
        width = full[name].shape[1]
        whole = torch.ones(width, dtype=torch.bool)
        for kept in (whole, *selections.values()):
            index = kept.nonzero().flatten().to(images.device)
            if kept.numel() == width and alike(small[name], full[name].index_select(1, index)):
                found[name] = index
                break
    return found


class _RelativeErrors(torch.autograd.Function):
    """|student - reference|² / |reference|² of each block, in four passes over memory instead of a dozen.

    The features are as large as the network's activations, so that autograd's chain of elementwise operations would
    cost as much as the convolutions; all blocks are taken at once, because a GPU would wait for the kernels of each.
    The norms accumulate in float32; the differences stay in the features' type.
    """

    @staticmethod
    def forward(ctx: Any, *features: Tensor) -> Tensor:
        students, references = features[: len(features) // 2], features[len(features) // 2 :]
        differences = torch._foreach_sub(students, references)
        energies = _squared_norms(references).clamp_min(1e-12)
        ctx.save_for_backward(energies, *differences)
        return _squared_norms(differences) / energies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        energies, *differences = ctx.saved_tensors
        # as scalars of the features' type, so that the product is in it too
        factors = (2 * gradient / energies).unbind()
        products = torch._foreach_mul(differences, [factor.to(differences[0].dtype) for factor in factors])
        return *products, *[None] * len(differences)


def _squared_norms(values: Sequence[Tensor]) -> Tensor:
    """Float32, float64 of such values, shape (len(values),)."""
    norms = torch._foreach_norm(list(values), 2, dtype=torch.promote_types(values[0].dtype, torch.float32))
    return torch.stack(norms).square()


def matched(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], kept: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What both networks returned in a pass, under the same name and of the same shape.

    Args:
        student, teacher: as `capture_features` collects them.
        kept: as `kept_features` finds it; None where the student has all of the teacher's channels.
    """
    names = [name for name in student if name in teacher and (kept is None or name in kept)]
    wanted = {name: teacher[name] if kept is None else teacher[name].index_select(1, kept[name]) for name in names}
    alike_in_shape = [name for name in names if student[name].shape == wanted[name].shape]
    return (
        {name: student[name] for name in alike_in_shape},
        {name: wanted[name].to(student[name].dtype) for name in alike_in_shape},
    )


def feature_distance(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean over blocks of |student - teacher|² / |teacher|²: a relative error, so that every block counts alike.

    Args:
        student, teacher: the same names, with equal shapes (batch, ...); one float type.

    Returns:
        A float32 scalar (float64 for such features); gradients flow to the student alone.
    """
    errors: Tensor = _RelativeErrors.apply(*(student[name] for name in teacher), *teacher.values())
    return errors.mean()
