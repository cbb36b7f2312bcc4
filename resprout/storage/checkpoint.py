"""Checkpoints in object storage, so that a stage that a cluster moves to another machine goes on there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import Tensor

from resprout.checkpoints import SUFFIX, Checkpoint, FolderCheckpoint
from resprout.errors import ArtifactError, StorageAwayError, StorageError
from resprout.keys import own_key
from resprout.sealing import BESIDE_TENSORS, Seals, State
from resprout.storage.beside import Beside
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.keys import checkpoint_key, checkpoint_key_file
from resprout.storage.settings import required
from resprout.storage.trial import try_writing

PATIENCE_AT_THE_END_SECONDS = 60.0

T = TypeVar("T")

_log = logging.getLogger("resprout.storage")


class ObjectCheckpoint:
    """Checkpoints as one object each, replaced whole or not at all, beside the work of the stage.

    No result depends on them. So a server that is away costs a line in the log, never the stage: what cannot be read
    counts as none, whatever is wrong with it, and what cannot be written is not kept.

    Args:
        storage: the server.
        prefix: where the objects lie.
        key: what they are sealed with.
        patience_seconds: how long the end of the stage waits for what is still being written.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: ObjectAddress,
        key: bytes,
        *,
        patience_seconds: float = PATIENCE_AT_THE_END_SECONDS,
    ) -> None:
        self._storage = storage
        self._asked = storage  # is hasty while the server is known to be away: the stage waits for it once
        self._prefix = prefix
        self._patience_seconds = patience_seconds
        self._seals = Seals(key)
        self._used: set[str] = set()
        self._failing = False
        self._writer: Beside[State] = Beside(self._write)

    def check(self) -> None:
        """Find out before the work whether it can be kept.

        Raises:
            StorageError: these credentials or this bucket will not do. A server that is away is only told of.
        """
        try:
            try_writing(self._storage, self._prefix)
        except StorageAwayError as error:
            self._note_away(error, "nothing is kept there while that is so, and the stage goes on")

    def load(self, key: str, made_of: Callable[[State], T], *, at_most: int) -> T | None:
        """See `Checkpoint`; what is still being written counts as saved."""
        self._used.add(key)
        if kept := self._writer.newest(key):
            return made_of(({name: tensor.clone() for name, tensor in kept[0].items()}, dict(kept[1])))
        try:
            return self._read(key, made_of, at_most)
        except StorageAwayError as error:
            self._note_away(error, "what may be kept there is computed again, with the same result")
        except (StorageError, ArtifactError, OSError) as error:
            self._seals.tell(key, error)
        return None

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """See `Checkpoint`; it returns when there is a copy in memory, which is then written beside the work."""
        self._used.add(key)
        copied = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._writer.hand(key, (copied, json.loads(json.dumps(dict(about)))))

    @property
    def resumed(self) -> tuple[str, ...]:
        """See `Checkpoint`."""
        return self._seals.resumed

    def settle(self) -> None:
        """Wait until what was saved is written, for a while."""
        if not self._writer.wait(self._patience_seconds):
            _log.warning("storage: the last state of this stage is not in %s yet, and may be lost", self._prefix)

    def clear(self) -> None:
        """Remove what was asked for or saved here: the work it belongs to is done. Others' stays."""
        self._writer.forget()
        if not self._writer.wait(self._patience_seconds):
            _log.warning("storage: the state of this stage stays in %s: it is still being written", self._prefix)
            return
        try:
            for key in self._used:
                self._asked.remove(self._address(key))
        except StorageError as error:
            _log.warning("storage: the state of this stage stays in %s: %s", self._prefix, _in_a_line(error))
        self._used.clear()

    def _read(self, key: str, made_of: Callable[[State], T], at_most: int) -> T | None:
        address = self._address(key)
        if (found := self._asked.facts(address)) is None:
            return None
        if found.size > at_most + 2 * BESIDE_TENSORS:  # nobody's disk is to be filled with it
            raise ArtifactError("it is larger than such a state can be")
        with TemporaryDirectory() as folder:
            self._asked.download(address, Path(folder) / "state")
            return self._seals.read(Path(folder) / "state", key, made_of, at_most=at_most)

    def _write(self, key: str, state: State) -> None:
        try:
            with TemporaryDirectory() as folder:
                self._seals.write(Path(folder) / "state", key, *state)
                self._storage.upload(Path(folder) / "state", self._address(key))
        except Exception as error:  # whatever it is: it must not end the thread, nor be one line for each epoch
            if not self._failing:
                _log.warning(
                    "storage: the state of this stage is not kept: %s; the stage goes on, and would start again from "
                    "what was kept before",
                    _in_a_line(error),
                )
            self._failing = True
            if isinstance(error, StorageAwayError):
                self._asked = self._storage.hasty()
            return
        if self._failing:
            _log.warning("storage: the state of this stage is kept again in %s", self._prefix)
        self._failing, self._asked = False, self._storage

    def _note_away(self, error: StorageAwayError, so: str) -> None:
        if self._asked is self._storage:
            _log.warning("storage: %s; %s", _in_a_line(error), so)
            self._asked = self._storage.hasty()

    def _address(self, key: str) -> ObjectAddress:
        return self._prefix / f"{key}{SUFFIX}"


def _in_a_line(error: Exception) -> str:
    return f"{error.what}: {error.why}" if isinstance(error, StorageError) and error.why else str(error)


@contextmanager
def checkpoint_at(place: str) -> Iterator[Checkpoint | None]:
    """Where a stage keeps its state while the block runs.

    Args:
        place: a folder, which is left as it is, since without KFP's cache the next run needs it; or an s3:// address,
            from which this stage's state is removed when the block ends well; or "" for nowhere. A block that fails is
            waited for, for a while, until what it saved last is there.

    Raises:
        StorageError: an s3:// address, and no storage is configured, or what is configured may not write there.
    """
    if not place.startswith("s3://"):
        kept_in = checkpoint_key_file()
        yield FolderCheckpoint(place, own_key(kept_in) if kept_in else None) if place else None
        return
    settings = required()
    checkpoint = ObjectCheckpoint(Storage(settings), ObjectAddress.parse(place), checkpoint_key(settings))
    checkpoint.check()
    try:
        yield checkpoint
    except BaseException:
        checkpoint.settle()
        raise
    checkpoint.clear()
