"""Which number format networks run in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm
from resprout.classifier import laid_out

Network = TypeVar("Network", bound=nn.Module)


def resolve(precision: str, device: torch.device, *, bfloat16: bool = True) -> torch.dtype:
    """`auto`, `bfloat16` or `float32` as a dtype: auto is bfloat16 where the machine computes in it natively.

    Args:
        bfloat16: whether the network can compute in it at all.
    """
    if precision == "auto":
        return torch.bfloat16 if bfloat16 and _has_bfloat16(device) else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def frozen_copy(network: Network, dtype: torch.dtype, device: torch.device) -> Network:
    """A copy for inference and input gradients: evaluation mode, weights frozen, in `dtype` and `laid_out`.

    BatchNorm layers keep float32 parameters and statistics; their kernels take `dtype` inputs all the same.
    Converting the weights once is cheaper than autocast, which converts frozen weights on every pass.
    """
    duplicate = copy.deepcopy(network).eval().requires_grad_(False).to(device=device, dtype=dtype)
    for module in duplicate.modules():
        if isinstance(module, BatchNorm):
            module.float()
    laid_out(duplicate)
    return duplicate


@contextmanager
def strict_float32() -> Iterator[None]:
    """No gradients, and no TF32: on a GPU it would cut the mantissas in float32 convolutions to 10 bits."""
    with torch.inference_mode(), repeatable(allow_tf32=False):
        yield


@contextmanager
def repeatable(*, allow_tf32: bool = True) -> Iterator[None]:
    """The same bits each time on one kind of machine: of its algorithms, cuDNN takes those that add in a fixed order.

    Args:
        allow_tf32: cut the mantissas in float32 convolutions to 10 bits on a GPU, as torch does unless it is told.
    """
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=allow_tf32):
        yield


@contextmanager
def sound_gradients(network: nn.Module) -> Iterator[None]:
    """Keep oneDNN's kernel for weight gradients from writing past its memory, on a CPU.

    It does for a strided 1x1 convolution of fewer than 16 channels (uxlfoundation/oneDNN issue 6035): results are
    wrong, or the process dies. Networks get one by losing channels: the projection of a residual block. Such a layer
    is handed, while the context lasts, only the pixels that it looks at, and takes no strides.
    """
    strides = {layer: layer.stride for layer in network.modules() if _is_unsound(layer)}
    hooks = []
    for layer, stride in strides.items():
        hooks.append(layer.register_forward_pre_hook(_only_seen(*stride)))
        layer.stride = (1, 1)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, stride in strides.items():
            layer.stride = stride


def _is_unsound(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not isinstance(layer, nn.Conv2d) or layer.weight.device.type != "cpu":
        return False
    projects = set(layer.kernel_size) == {1} and layer.padding in (0, (0, 0), "valid")
    return projects and max(layer.stride) > 1 and layer.in_channels // layer.groups < 16


def _only_seen(down: int, across: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda _layer, inputs: (inputs[0][..., ::down, ::across],)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on `device`; a copy to a GPU is queued there behind earlier work, and not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def best_device() -> torch.device:
    """The first CUDA device, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
