"""Where a long stage keeps what it has done so far, so that a killed run goes on instead of starting over.

A key names what the state belongs to: it is derived from everything that determines the result, so that a
state from another recipe, seed or input is never picked up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from resprout.files import write_atomically

State = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoint(Protocol):
    """Keeps named tensors and JSON facts under a key, through a kill."""

    def load(self, key: str) -> State | None:
        """What was last saved under `key`, or None."""

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace what is kept under `key`, whole or not at all."""


class FolderCheckpoint:
    """Checkpoints as safetensors files in a folder, made when first needed."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def load(self, key: str) -> State | None:
        """See `Checkpoint`; an unreadable file counts as none, since the work can be done again."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a dict
        except (SafetensorError, KeyError, ValueError):
            return None

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """See `Checkpoint`."""
        with write_atomically(self._path(key)) as path:
            storable = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            save_file(storable, path, metadata={"about": json.dumps(dict(about))})

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.safetensors"


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
