"""Any network that tells classes apart, taken as a function from images to logits.

People's networks differ in what they do with an image and in what they return. Two hooks on the root settle that once,
so that every stage can call `network(images)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def classifier(network: nn.Module, num_classes: int, *, channels_last: bool = True) -> nn.Module:
    """The network itself, so that it takes images laid out anyhow and returns logits.

    It works on a copy of the images, and may change them in place. Of what it returns, be it a tuple, a dictionary or a
    dataclass, the main logits are taken, shape (batch, classes); auxiliary ones are left.

    Args:
        network: gets a hook on each side; where it has them already, only `channels_last` changes.
        num_classes: the length of the logits.
        channels_last: whether images come to it channels last in memory, which is faster, and weights lie so in copies
            that compute (`laid_out`). Not every network takes it: one that flattens with `view` does not, and no
            three-dimensional convolution does.
    """
    flat = all(parameter.ndim < 5 for parameter in network.parameters())
    hook = _hook_of(network)
    if hook is None:
        hook = _Images()
        network.register_forward_pre_hook(hook)
        network.register_forward_hook(_Logits(num_classes))
    hook.channels_last = channels_last and flat
    return network


def laid_out(network: nn.Module) -> nn.Module:
    """The network itself, its weights laid out in memory as its images come."""
    hook = _hook_of(network)
    last = hook is not None and hook.channels_last
    return network.to(memory_format=torch.channels_last if last else torch.contiguous_format)


def _hook_of(network: nn.Module) -> _Images | None:
    return next((hook for hook in network._forward_pre_hooks.values() if isinstance(hook, _Images)), None)


def tensors_in(output: Any) -> Iterator[tuple[str, Tensor]]:
    """Every floating-point tensor in what a module returns, with the name that it has there: the innermost field's."""
    return _tensors(output, "")


def _tensors(output: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, str(key))
    elif hasattr(output, "_asdict"):
        yield from _tensors(output._asdict(), name)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for value in output:
            yield from _tensors(value, name)
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from _tensors(getattr(output, field.name), field.name)
    elif hasattr(output, "logits"):
        yield from _tensors(output.logits, "logits")


class _Images:
    """Hands a network images of its own. A class, as `_Logits`, so that a network can be copied and sent with it."""

    channels_last = False

    def __call__(self, _network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        last = self.channels_last and inputs[0].ndim == 4
        return (inputs[0].clone(memory_format=torch.channels_last if last else torch.contiguous_format), *inputs[1:])


class _Logits:
    """Takes the logits out of what a network returns: those called so, or else the first of their shape."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes

    def __call__(self, _network: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        batch = len(inputs[0])
        named = list(tensors_in(output))
        # a head that squeezes loses the batch where it is one image; a convolution as head keeps a height and a width
        fitting = [(name, found) for name, found in named if self._fits(found, batch)]
        if not fitting:
            return output
        chosen = next((found for name, found in fitting if name == "logits"), fitting[0][1])
        expected = (batch, self._num_classes)
        return chosen if chosen.shape == expected else chosen.reshape(expected)

    def _fits(self, found: Tensor, batch: int) -> bool:
        expected = [size for size in (batch, self._num_classes) if size > 1]
        return [size for size in found.shape if size > 1] == expected
