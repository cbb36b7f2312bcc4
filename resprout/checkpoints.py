"""Where a long stage keeps what it has done so far, so that a killed run goes on instead of starting over.

A key names what the state belongs to: it is derived from everything that determines the result, so that a
state from another recipe, seed or input is never picked up. And a state that was not sealed by the same run
(`resprout.sealing`) counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from resprout.files import write_atomically
from resprout.keys import KEY_FILE, own_key
from resprout.sealing import Seals, State

T = TypeVar("T")
SUFFIX = ".checkpoint"


class Checkpoint(Protocol):
    """Keeps named tensors and JSON facts under a key, through a kill."""

    def load(self, key: str, made_of: Callable[[State], T], *, at_most: int) -> T | None:
        """What `made_of` makes of what was last saved under `key`; None where nothing was, or it is of no use.

        Args:
            key: that it was saved under.
            made_of: refuses what is of no use by raising anything, and changes nothing then.
            at_most: bytes that the tensors take.
        """

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace what is kept under `key`, whole or not at all."""

    @property
    def resumed(self) -> tuple[str, ...]:
        """The sha256 of each state by an earlier process that went into the work, for the manifest of its result."""


class FolderCheckpoint:
    """Checkpoints as a file each in a folder, made when first needed.

    Args:
        directory: the folder.
        key: what they are sealed with; None: a key of the folder's own.
    """

    def __init__(self, directory: str | Path, key: bytes | None = None) -> None:
        self.directory = Path(directory)
        self._key = key

    def load(self, key: str, made_of: Callable[[State], T], *, at_most: int) -> T | None:
        """See `Checkpoint`."""
        if not os.path.lexists(self._path(key)):
            return None
        return self._seals.read(self._path(key), key, made_of, at_most=at_most)

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """See `Checkpoint`."""
        path = self._path(key)
        if path.is_dir() and not path.is_symlink():  # what does not count is no obstacle, either
            shutil.rmtree(path)
        with write_atomically(path) as temporary:
            self._seals.write(temporary, key, tensors, about)

    @property
    def resumed(self) -> tuple[str, ...]:
        """See `Checkpoint`."""
        return self._seals.resumed

    @cached_property
    def _seals(self) -> Seals:
        return Seals(self._key or own_key(self.directory / KEY_FILE))

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{SUFFIX}"


def check_like(found: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not the ones expected, or hold numbers that are none.

    Raises:
        ValueError: names, shapes or dtypes differ, or one holds NaN or infinity; the message names the first.
    """
    if found.keys() != like.keys():
        raise ValueError(f"it holds {min(found.keys() ^ like.keys())}, or lacks it")
    for name, tensor in found.items():
        if (tensor.shape, tensor.dtype) != (like[name].shape, like[name].dtype):
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity")


def fingerprint(*parts: Any) -> str:
    """A key over what determines a result: the sha256 of its parts in a form in which no two things look the same.

    Args:
        parts: networks and tensors count by their bytes, a network by its modules' types too; dataclasses, sections,
            mappings and sequences by what they hold; the rest is JSON.

    Raises:
        TypeError: a part is none of these.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(list(parts)):
        digest.update(len(chunk).to_bytes(8, "big"))  # where one ends, no byte of another can say
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(part: Any) -> Iterator[bytes | memoryview]:
    if isinstance(part, nn.Module):
        yield from _chunks({name: type(module).__qualname__ for name, module in part.named_modules()})
        yield from _chunks(dict(part.named_parameters()) | dict(part.named_buffers()))
    elif isinstance(part, Tensor):
        plain = part.detach().cpu().contiguous()
        yield f"tensor {plain.dtype} {list(plain.shape)}".encode()
        yield memoryview(plain.flatten().view(dtype=torch.uint8).numpy())  # type: ignore[arg-type]  # no dtype is named
    elif isinstance(part, BaseModel):
        yield from _chunks(part.model_dump(mode="json"))
    elif is_dataclass(part) and not isinstance(part, type):
        yield from _chunks({field.name: getattr(part, field.name) for field in fields(part)})
    elif isinstance(part, Mapping):
        yield f"mapping of {len(part)}".encode()
        for name in sorted(part, key=str):
            yield from _chunks(name)
            yield from _chunks(part[name])
    elif isinstance(part, list | tuple):
        yield f"sequence of {len(part)}".encode()
        for each in part:
            yield from _chunks(each)
    else:
        yield f"JSON {json.dumps(part)}".encode()
