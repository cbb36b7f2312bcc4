"""What a benchmark ran on: a result is committed with this beside it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from resprout import __version__


def describe() -> dict[str, str | int]:
    """The machine and the versions, without a host name."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "resprout": __version__,
    }


def kind() -> str:
    """What decides how numbers are rounded here: cuda, or the processor's instructions, as avx2."""
    return "cuda" if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability().lower()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
