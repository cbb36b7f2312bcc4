"""Checkpoints in object storage, so that a stage that a cluster moves to another machine goes on there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from resprout.checkpoints import Checkpoint, FolderCheckpoint, State
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.settings import required


class ObjectCheckpoint:
    """Checkpoints as one object each; an object is replaced whole or not at all."""

    def __init__(self, storage: Storage, prefix: ObjectAddress) -> None:
        self._storage = storage
        self._prefix = prefix
        self._used: set[str] = set()

    def load(self, key: str) -> State | None:
        """See `Checkpoint`."""
        self._used.add(key)
        address = self._address(key)
        if self._storage.facts(address) is None:
            return None
        with TemporaryDirectory() as folder:
            self._storage.download(address, Path(folder) / self._name(key))
            return FolderCheckpoint(folder).load(key)

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """See `Checkpoint`."""
        self._used.add(key)
        with TemporaryDirectory() as folder:
            FolderCheckpoint(folder).save(key, tensors, about)
            self._storage.upload(Path(folder) / self._name(key), self._address(key))

    def clear(self) -> None:
        """Remove what was asked for or saved here: the work it belongs to is done. Others' stays."""
        for key in self._used:
            self._storage.remove(self._address(key))
        self._used.clear()

    def _address(self, key: str) -> ObjectAddress:
        return self._prefix / self._name(key)

    @staticmethod
    def _name(key: str) -> str:
        return f"{key}.safetensors"


@contextmanager
def checkpoint_at(place: str) -> Iterator[Checkpoint | None]:
    """Where a stage keeps its state while the block runs.

    Args:
        place: a folder, which is left as it is, since without KFP's cache the next run needs it; or an s3:// address,
            from which this stage's state is removed when the block ends well; or "" for nowhere.

    Raises:
        StorageError: an s3:// address, and no storage is configured.
    """
    if not place.startswith("s3://"):
        yield FolderCheckpoint(place) if place else None
        return
    checkpoint = ObjectCheckpoint(Storage(required()), ObjectAddress.parse(place))
    yield checkpoint
    checkpoint.clear()
