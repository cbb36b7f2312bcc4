"""How long a network takes, against another on the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from resprout.precision import best_device, frozen_copy, strict_float32
from resprout.types import Latency

PAIRS = 51
"""Runs of each that are timed: odd, so that the median is one of the ratios."""

WARM_UP = 10
"""Runs of each before these, while kernels are chosen, memory is allocated and clocks rise."""

Clock = Callable[[], float]


def latency_ratio(
    network: Callable[[], object],
    reference: Callable[[], object],
    *,
    pairs: int = PAIRS,
    warm_up: int = WARM_UP,
    clock: Clock = time.perf_counter,
) -> float:
    """How long `network` takes, in units of how long `reference` does.

    They run in turns, so that what slows the machine for a while slows both; who is first alternates, so that
    neither always finds the other's leavings in the caches; and the median of the ratios is deaf to a few
    interruptions.

    Args:
        network, reference: one run each, which returns when its work is done.
        pairs: how often both are timed, at least 1.
        warm_up: how often both run before that.
        clock: seconds, from any origin.

    Returns:
        The median over the pairs of network / reference; 1 is as long.
    """
    for _ in range(warm_up):
        network()
        reference()
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            took = _seconds(network, clock)
            ratios.append(took / _seconds(reference, clock))
        else:
            reference_took = _seconds(reference, clock)
            ratios.append(_seconds(network, clock) / reference_took)
    return median(ratios)


def measure_latency(
    student: nn.Module,
    teacher: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    batch_size: int,
    device: torch.device | None = None,
) -> Latency:
    """Time a student against its teacher on one device, in float32, as evaluation runs them.

    Args:
        student, teacher: are not changed.
        input_shape: (channels, height, width).
        batch_size: images per forward pass; the images are noise, since no dense kernel minds what it multiplies.
        device: default: the first GPU, or the CPU.
    """
    device = device or best_device()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, *input_shape, generator=generator).to(device)

    def run_of(network: nn.Module) -> Callable[[], None]:
        running = frozen_copy(network, torch.float32, device)

        def run() -> None:
            running(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # a kernel is only queued when the call returns

        return run

    with strict_float32():
        ratio = latency_ratio(run_of(student), run_of(teacher))
    return Latency(ratio, batch_size, PAIRS, device.type)


def _seconds(run: Callable[[], object], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start
