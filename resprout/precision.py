"""Which number format networks run in."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm

Network = TypeVar("Network", bound=nn.Module)


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """`auto`, `bfloat16` or `float32` as a dtype: auto is bfloat16 where the machine computes in it natively."""
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def frozen_copy(network: Network, dtype: torch.dtype, device: torch.device) -> Network:
    """A copy for inference and input gradients: evaluation mode, weights frozen, channels_last, weights in `dtype`.

    BatchNorm layers keep float32 parameters and statistics; their kernels take `dtype` inputs all the same.
    Converting the weights once is cheaper than autocast, which converts frozen weights on every pass.
    """
    duplicate = copy.deepcopy(network).eval().requires_grad_(False).to(device=device, dtype=dtype)
    for module in duplicate.modules():
        if isinstance(module, BatchNorm):
            module.float()
    return duplicate.to(memory_format=torch.channels_last)


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


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on `device`; a copy to a GPU is queued there behind earlier work, and not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def best_device() -> torch.device:
    """The first CUDA device, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
