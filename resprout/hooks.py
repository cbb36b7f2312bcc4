"""Looking into a network while images pass through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

Found = TypeVar("Found")


@contextmanager
def each_use(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    take: Callable[..., Found],
    *,
    before: bool = False,
) -> Iterator[dict[str, list[Found]]]:
    """Collect something from every use of some layers.

    Args:
        network: whose passes are looked at.
        layers: modules of it, by name.
        take: of a use's (inputs, output), as torch hands them to hooks, what to collect.
        before: take it before the layer runs: of (inputs,).

    Yields:
        Name -> what was taken, one for each use of the layer, names in the order in which layers ran first. Each pass
        of the network fills it anew; a layer that did not run is not in it. The hooks are gone when the block ends,
        however it ends.
    """
    uses: dict[str, list[Found]] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, *seen: Any) -> None:
            uses.setdefault(name, []).append(take(*seen))

        return hook

    handles = [network.register_forward_pre_hook(lambda *_: uses.clear())]
    try:
        for name, layer in layers.items():
            register = layer.register_forward_pre_hook if before else layer.register_forward_hook
            handles.append(register(hook_for(name)))
        yield uses
    finally:
        for handle in handles:
            handle.remove()
