"""Running a step of a loop as one launch: a CUDA graph, recorded once and replayed.

A small network's step is hundreds of kernels that each take less time than starting them does, so that a GPU waits for
Python most of the time. Replayed from a recording, they follow each other without Python in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

WARM_UP = 3
"""Runs before the recording, in which libraries choose kernels and optimisers make their state."""


class Recorded:
    """A step that may be replayed instead of run: on a GPU it is, elsewhere it runs as it is.

    Each call does what `step` does, the first ones too. What the step reads and writes besides its inputs must be the
    same tensors each time, written in place; what Python it runs besides, it runs only while it warms up and is
    recorded. A step that waits for the GPU in its midst, as a network of a user's own may, cannot be recorded; one that
    draws random numbers outside the GPU, to skip a block at random, may not be, since each replay would do as the
    recorded one drew. Both go on being run.

    Args:
        step: takes tensors, returns nothing.
        device: where they are.
    """

    def __init__(self, step: Callable[..., None], device: torch.device) -> None:
        self._step = step
        self._device = device
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, *inputs: Tensor) -> None:
        """Run the step on these inputs; each combination of shapes is recorded on its own."""
        if self._device.type != "cuda":
            self._step(*inputs)
            return
        shapes = tuple(each.shape for each in inputs)
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(self._step, inputs)
        self._recordings[shapes].run(inputs)


class _Recording:
    """A step on inputs of given shapes."""

    def __init__(self, step: Callable[..., None], inputs: tuple[Tensor, ...]) -> None:
        self._step = step
        self._inputs = tuple(each.clone() for each in inputs)  # where a replay reads
        self._memory, self._stream = _shared(inputs[0].device)
        self._runs = 0
        self._draws = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, inputs: tuple[Tensor, ...]) -> None:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        if self._graph is None and self._runs == WARM_UP and not self._draws:
            self._graph = self._record()
        if self._graph is None:
            before = _drawn()
            self._aside()
            self._draws = self._draws or _drawn() != before
        else:
            self._graph.replay()
        self._runs += 1

    def _aside(self) -> None:
        # what warms up must not have run on the stream that everything else does
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step(*self._inputs)
        current.wait_stream(self._stream)

    def _record(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        pool = self._memory.pool()
        try:
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                self._step(*self._inputs)
        except RuntimeError:  # while it is recorded nothing runs, so that nothing is done by half
            return None
        return graph


def _drawn() -> tuple[object, ...]:
    """Where the generators stand that a network may draw from outside the GPU."""
    state = np.random.get_state(legacy=False)  # what others draw from
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), repr(state)


@lru_cache
def _shared(device: torch.device) -> tuple[torch.cuda.CUDAGraph, torch.cuda.Stream]:
    """A pool of memory and a stream for all recordings on a device, since no two of their steps run at once.

    What a recording held in a pool of its own would be lost to everything else once it is gone. A pool lives as long as
    a recording that uses it: here, an empty one.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        torch.zeros((), device=device)
    return graph, stream
