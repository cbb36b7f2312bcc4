"""How large a network may become while it is built: a few words of a recipe or a manifest can ask for any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy

from resprout.errors import UnsupportedModelError

MAX_NUMBERS = 1 << 31
"""Weights and statistics: some more than the largest image classifiers have, RegNetY-256GF for one."""
MAX_MODULES = 50_000
"""Layers and what holds them: the deepest networks of timm have a tenth of it."""
_GROWTH, _SPARE = 4, 1 << 26


@contextmanager
def no_larger_than(weights: Iterable[Tensor]) -> Iterator[None]:
    """Bound the networks that are built in this block, all together, by the weights that are meant for them.

    They may have four times as many numbers, and 64 million more: a checkpoint need not hold all of a network, which is
    built twice, once with another number of classes, to see where that counts.

    Raises:
        UnsupportedModelError: where a network becomes larger.
    """
    with bounded(_GROWTH * sum(tensor.numel() for tensor in weights if not tensor.is_meta) + _SPARE):
        yield


@contextmanager
def bounded(numbers: int = MAX_NUMBERS) -> Iterator[None]:
    """Bound the networks that are built in this block, all together.

    Raises:
        UnsupportedModelError: where they have more modules or numbers.
    """
    left = {"modules": MAX_MODULES, "numbers": numbers}

    def take(what: str, count: int) -> None:
        left[what] -= count
        if left[what] < 0:
            raise UnsupportedModelError(
                f"the network has more than {MAX_MODULES if what == 'modules' else numbers:,} {what}",
                why="the weights that there are for it are far fewer, and it would take the machine's memory",
                now="correct teacher.architecture, teacher.arguments or teacher.num_classes",
            )

    def count_module(_module: nn.Module, _name: str, _child: Any) -> None:
        take("modules", 1)

    def count_numbers(_module: nn.Module, _name: str, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and not is_lazy(tensor):
            take("numbers", tensor.numel())

    with ExitStack() as stack:
        for handle in (
            hooks.register_module_module_registration_hook(count_module),
            hooks.register_module_parameter_registration_hook(count_numbers),
            hooks.register_module_buffer_registration_hook(count_numbers),
        ):
            stack.callback(handle.remove)
        yield
