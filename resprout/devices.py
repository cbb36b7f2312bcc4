"""Which devices a stage computes on: those it asked for, or an error; and what a manifest calls them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch

from resprout.errors import DeviceError
from resprout.precision import best_device


def devices(wanted: int) -> list[torch.device]:
    """As many GPUs as a stage asked for; the first of them is for stages that compute on one device.

    Args:
        wanted: how many GPUs; 0: none was asked for, and what is there is used: the first GPU, or the CPU.

    Raises:
        DeviceError: fewer are there.
    """
    if not wanted:
        return [best_device()]
    seen, said = _seen()
    if seen < wanted:
        raise DeviceError(
            f"this stage asked for {wanted} GPU{'s' if wanted > 1 else ''} and sees {seen or 'none'}",
            why=_reason(seen, said),
            now="check the image (placement.gpu_image), the pod's runtime class, and what `nvidia-smi` says in it; "
            "or set placement.gpus to 0 to compute on the processor",
        )
    return [torch.device("cuda", index) for index in range(wanted)]


def computed_on(used: Iterable[torch.device]) -> str:
    """What a manifest says of what made an artifact: `cpu (torch 2.14.1)`, or `NVIDIA L4 (torch 2.14.1, CUDA 13.0)`.

    Bits differ between kinds of devices and between versions, and not with the number of devices, which is left out.
    """
    return ", ".join(sorted({_kind(device) for device in used}))


def _kind(device: torch.device) -> str:
    version = f"torch {torch.__version__.partition('+')[0]}"  # what follows says for which devices it was built
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({version}, CUDA {torch.version.cuda})"
    return f"{device.type} ({version})"


def _seen() -> tuple[int, str]:
    """How many GPUs can be used, and what CUDA has to say where there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return count, " ".join(str(warning.message).partition(" (Triggered internally")[0] for warning in caught)


def _reason(seen: int, said: str) -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} here was built without CUDA: it is that of a CPU image"
    if said:
        return said
    if seen:
        return "fewer of the node's GPUs were handed to it than it asked for"
    return "no driver is visible: its runtime class or the node's device plugin handed none over, or the image has none"
