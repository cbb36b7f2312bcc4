"""Where a long stage keeps what it has done so far, so that a killed run goes on instead of starting over.

A key names what the state belongs to: it is derived from everything that determines the result, so that a
state from another recipe, seed or input is never picked up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
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
    """A short key over what determines a result: networks and tensors by their bytes, the rest as JSON."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            part = part.state_dict()
        if isinstance(part, Mapping) and any(isinstance(value, Tensor) for value in part.values()):
            for name, tensor in part.items():
                digest.update(name.encode())
                _update(digest, tensor)
        elif isinstance(part, Tensor):
            _update(digest, part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]


def _update(digest: Any, tensor: Tensor) -> None:
    plain = tensor.detach().cpu().contiguous()
    digest.update(f"{plain.dtype}{list(plain.shape)}".encode())
    digest.update(plain.flatten().view(dtype=torch.uint8).numpy().tobytes())
