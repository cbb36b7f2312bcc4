"""Checkpoints in object storage, so that a stage that a cluster moves to another machine goes on there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from resprout.checkpoints import FolderCheckpoint, State
from resprout.storage.client import ObjectAddress, Storage


class ObjectCheckpoint:
    """Checkpoints as one object each; an object is replaced whole or not at all."""

    def __init__(self, storage: Storage, prefix: ObjectAddress) -> None:
        self._storage = storage
        self._prefix = prefix

    def load(self, key: str) -> State | None:
        """See `Checkpoint`."""
        address = self._address(key)
        if self._storage.facts(address) is None:
            return None
        with TemporaryDirectory() as folder:
            self._storage.download(address, Path(folder) / self._name(key))
            return FolderCheckpoint(folder).load(key)

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """See `Checkpoint`."""
        with TemporaryDirectory() as folder:
            FolderCheckpoint(folder).save(key, tensors, about)
            self._storage.upload(Path(folder) / self._name(key), self._address(key))

    def clear(self) -> None:
        """Remove them all: the work they belong to is done."""
        for found in list(self._storage.list(self._prefix)):
            self._storage.remove(found.address)

    def _address(self, key: str) -> ObjectAddress:
        return self._prefix / self._name(key)

    @staticmethod
    def _name(key: str) -> str:
        return f"{key}.safetensors"
