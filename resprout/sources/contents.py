"""The tensors in a checkpoint, by name, however deep they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from resprout.errors import UnsupportedModelError
from resprout.sources.bounds import MAX_VALUES, check_dense
from resprout.sources.folding import folded
from resprout.wording import is_plain, listed

_DEPTH = 8  # deeper than anybody wraps; a pickle may hold itself
# torchvision's DenseNet weights keep the names of an older torch: denselayer1.norm.1 is denselayer1.norm1
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")
# what DataParallel, torch.compile, FSDP, activation checkpointing and Fabric put into names, at any depth
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint: `origin` is the name that it has there, `container` the mapping that it lies in."""

    tensor: Tensor
    origin: str
    container: str


Entries = Mapping[str, Entry]


def entries_of(content: Any) -> dict[str, Entry]:
    """Every tensor in mappings and lists of any depth, dense, by the keys that lead to it, joined with dots.

    Tensors under keys that are no text are left out: they have no name.

    Raises:
        UnsupportedModelError: a tensor is much larger than what is stored of it, cannot be made dense, or there are
            more values than any checkpoint has.
    """
    return {entry.origin: entry for entry in _entries(content, "", _DEPTH, count(1))}


def _entries(content: Any, container: str, depth: int, visits: Iterator[int]) -> Iterator[Entry]:
    if isinstance(content, list | tuple):
        content = {str(index): value for index, value in enumerate(content) if not isinstance(value, Tensor)}
    if not isinstance(content, Mapping) or not depth:
        return
    for key, value in content.items():
        if next(visits) > MAX_VALUES:
            raise UnsupportedModelError(
                f"the file holds more than {MAX_VALUES:,} values, or lists that hold each other",
                why="looking through them would not end",
                now="save torch.save(model.state_dict(), PATH) alone",
            )
        if not isinstance(value, Tensor):
            yield from _entries(value, f"{container}{key}.", depth - 1, visits)
        elif isinstance(key, str):
            if not is_plain(key):
                raise UnsupportedModelError(
                    f"the file has a tensor {key!a:.200}, whose name cannot be shown",
                    why="it is damaged, or was put together by hand",
                    now="save it anew with torch.save or safetensors",
                )
            yield Entry(_dense(value, container + key), container + key, container)


def _dense(tensor: Tensor, origin: str) -> Tensor:
    try:
        if type(tensor) in (Tensor, nn.Parameter):  # a pickle may have hung anything on it
            tensor = Tensor.detach(tensor)
            check_dense(tensor, origin)
        return tensor if tensor.layout == torch.strided else tensor.to_dense()
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UnsupportedModelError(
            f"the tensor {origin} cannot be read: {str(error).splitlines()[0]}",
            why="the file is damaged, or was put together by hand",
            now="save it anew with torch.save or safetensors",
        ) from None


def variants(entries: Entries, own: Mapping[str, object]) -> Iterator[tuple[Entries, tuple[str, ...]]]:
    """The same tensors under further names that they may have in a network, with what was done, a sentence each.

    Args:
        entries: as they are in the file; they come first.
        own: the network's names.
    """
    yield entries, ()
    notes: tuple[str, ...] = ()
    for step in (_new_densenet, _without_wrappers, _folded):
        changed, note = step(entries, own)
        if changed.keys() != entries.keys():
            entries, notes = changed, (*notes, note) if note else notes
            yield entries, notes


def _new_densenet(entries: Entries, _own: Mapping[str, object]) -> tuple[Entries, str]:
    return {_OLD_DENSENET.sub(r"\1\2.", name): entry for name, entry in entries.items()}, ""


def _without_wrappers(entries: Entries, own: Mapping[str, object]) -> tuple[Entries, str]:
    known = {part for name in own for part in name.split(".")}
    wrappers = [wrapper for wrapper in _WRAPPERS if wrapper not in known]
    renamed: dict[str, Entry] = {}
    for name, entry in entries.items():
        shorter = ".".join(part for part in name.split(".") if part not in wrappers)
        if shorter in renamed:  # two tensors would have one name
            return entries, ""
        renamed[shorter] = entry
    found = [wrapper for wrapper in wrappers if any(wrapper in name.split(".") for name in entries)]
    return renamed, f"names: {', '.join(found)} was taken out"


def _folded(entries: Entries, _own: Mapping[str, object]) -> tuple[Entries, str]:
    weights = folded({name: entry.tensor for name, entry in entries.items()})
    gone = {part for weight in weights.values() for part in weight.parts}
    result = {name: entry for name, entry in entries.items() if name not in gone}
    kinds: dict[str, list[str]] = {}
    for name, weight in weights.items():
        result[name] = Entry(weight.weight, name, entries[weight.parts[0]].container)
        kinds.setdefault(weight.kind, []).append(name)
    return result, "; ".join(f"{kind} was folded into plain weights: {listed(names)}" for kind, names in kinds.items())
