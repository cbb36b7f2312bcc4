"""What a network wants of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from resprout.models.plain import STATISTICS

COUNT = "num_batches_tracked"


class Names:
    """The names and the shapes that a network wants; `any_size` is a size of its shapes that stands for every size."""

    def __init__(self, network: nn.Module, any_size: int | None = None) -> None:
        found: Mapping[str, Any] = network.state_dict(keep_vars=True)
        state = {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        self.modules = {name for name, _ in network.named_modules() if name}
        # checkpoints from before torch 0.4.1 do not count batches, and nothing here needs the count
        self.wanted = [name for name in state if not name.endswith(COUNT)]
        learnt = [name for name, tensor in state.items() if isinstance(tensor, nn.Parameter) or is_statistic(name)]
        self.prefixes = common_prefixes(learnt)
        self._any_size = any_size
        self._state = state  # as long as it is held, no other tensor has the identity of one of these

    def takes(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor has the shape that the network wants under this name."""
        wanted = self.shapes[name]
        pairs = zip(tensor.shape, wanted, strict=False)
        return len(wanted) == tensor.ndim and all(size == own or own == self._any_size for size, own in pairs)

    def describe(self, name: str) -> str:
        """The name, and the shape that is wanted under it."""
        sizes = ("any" if size == self._any_size else str(size) for size in self.shapes[name])
        return f"{name} [{', '.join(sizes)}]"

    def under(self, prefix: str) -> list[str]:
        """The wanted names that begin so."""
        return [name for name in self.wanted if name.startswith(prefix)]

    def distinct(self, names: Iterable[str]) -> set[int]:
        """Which of the network's tensors they stand for: layers may share one."""
        return {id(self._state[name]) for name in names if not name.endswith(COUNT)}


def is_statistic(name: str) -> bool:
    """Whether it is a name of what BatchNorm remembers."""
    return name.endswith(STATISTICS)


def common_prefixes(names: Sequence[str]) -> list[str]:
    """Nothing, and what all names begin with, up to each dot of it: `model.`, `model.net.`."""
    prefixes, parts = [""], [name.split(".")[:-1] for name in names]
    for same in zip(*parts, strict=False):
        if len(set(same)) > 1:
            break
        prefixes.append(f"{prefixes[-1]}{same[0]}.")
    return prefixes
